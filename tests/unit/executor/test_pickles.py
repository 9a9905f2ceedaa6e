"""What goes by value, what comes back as one's own, and what no result of a stranger can do."""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import importlib
import os
import pickle
import subprocess
import sys
import uuid
import zoneinfo
from pathlib import Path, PurePosixPath

import cloudpickle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridx.executor.pickling import OUT_OF_BAND_BYTES, is_own, pickled
from gridx.executor.unpickling import MoreThanData, loaded

MINE = """
import enum

FACTOR = 3


class Colour(enum.Enum):
    RED = 1


class Point:
    def __init__(self, x):
        self.x = x


class Wrong(Exception):
    pass


def triple(number):
    return FACTOR * number


def point(number):
    return Point(triple(number)), Colour.RED


def wrong():
    raise Wrong("quite")
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module of the caller's own, which lies in a folder of his."""
    name = f"mine_{uuid.uuid4().hex}"
    (tmp_path / f"{name}.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module(name)
    del sys.modules[name]


def elsewhere(data: bytes) -> str:
    """What a process that has none of our modules says of ``call()``."""
    code = "import pickle, sys; call = pickle.loads(sys.stdin.buffer.read()); print(call())"
    done = subprocess.run([sys.executable, "-I", "-c", code], input=data, capture_output=True, check=True)
    return done.stdout.decode().strip()


# -- going out -------------------------------------------------------------------------------------------


def test_a_function_of_ones_own_module_goes_with_all_that_it_needs(mine):
    triple = mine.triple
    assert elsewhere(pickled(lambda: triple(7)).data) == "21"


def test_a_module_of_ones_own_goes_when_a_function_uses_it(mine):
    def call():
        return mine.triple(7)

    assert elsewhere(pickled(call).data) == "21"


def test_a_function_keeps_the_name_of_its_file():
    def outer():
        return (lambda: 1).__code__.co_filename

    assert elsewhere(pickled(outer).data) == __file__


def test_a_module_that_is_said_to_be_installed_goes_by_name(mine):
    assert mine.__name__.encode() in pickled(mine.triple, installed=[mine.__name__]).data
    assert b"FACTOR" not in pickled(mine.triple, installed=[mine.__name__]).data


def test_other_pickles_of_the_program_are_as_before(mine):
    pickled(mine.triple)
    assert mine.__name__ not in cloudpickle.list_registry_pickle_by_value()
    assert b"FACTOR" not in cloudpickle.dumps(mine.triple)


@pytest.mark.parametrize("module", [os, collections, pytest, cloudpickle, pickle])
def test_what_is_installed_is_not_ones_own(module):
    assert not is_own(module.__name__, module.__file__)


def test_this_file_is_ones_own_and_grid_x_is_not():
    assert is_own("something", __file__)
    assert not is_own("gridx.client", str(Path(__file__).parents[3] / "gridx" / "client.py"))
    assert not is_own("something", str(Path(__file__).with_suffix(".so")))


def test_large_arrays_go_beside_the_pickle_and_small_ones_in_it():
    numpy = pytest.importorskip("numpy")
    large, small = numpy.zeros(OUT_OF_BAND_BYTES, "u1"), numpy.zeros(OUT_OF_BAND_BYTES - 1, "u1")
    both = pickled((large, small, large[::2]))
    assert [len(buffer) for buffer in both.buffers] == [OUT_OF_BAND_BYTES]
    again = pickle.loads(both.data, buffers=both.buffers)
    assert [len(one) for one in again] == [len(large), len(small), len(large) // 2]


def test_an_executor_and_its_futures_do_not_go_along(executor):
    with pytest.raises(TypeError, match="An Executor stays"):
        pickled(lambda: executor)
    future = executor.submit(abs, -1)
    with pytest.raises(TypeError, match="result"):
        executor.submit(abs, future).result(60)


# -- coming back -----------------------------------------------------------------------------------------


def test_a_result_is_of_the_callers_own_classes(executor, pretended, mine):
    for owner in ("ann", "bob"):
        pretended.owner = owner
        point, colour = executor.submit(mine.point, 2).result(60)
        assert type(point) is mine.Point
        assert point.x == 6
        assert colour is mine.Colour.RED


def test_an_exception_is_of_the_callers_own_class(executor, mine):
    with pytest.raises(mine.Wrong, match="quite"):
        executor.submit(mine.wrong).result(60)


DATA = [
    None,
    True,
    -(2**70),
    1.5,
    2j,
    "text\udc80",
    b"bytes",
    bytearray(b"more"),
    (1, [2, {3: {4}}], frozenset({5})),
    range(3),
    slice(1, 2),
    collections.OrderedDict(a=1),
    collections.defaultdict(list, a=[1]),
    collections.Counter("abca"),
    collections.deque([1, 2], 5),
    datetime.datetime(2020, 1, 2, 3, tzinfo=datetime.UTC),
    datetime.timedelta(3),
    datetime.datetime(2020, 1, 2, tzinfo=zoneinfo.ZoneInfo("UTC")),
    decimal.Decimal("1.1"),
    fractions.Fraction(1, 3),
    uuid.UUID(int=5),
    PurePosixPath("a/b"),
]


@pytest.mark.parametrize("value", DATA, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("protocol", [4, 5])
def test_data_comes_from_anybody(value, protocol):
    assert loaded(pickle.dumps(value, protocol), (), anything=False) == value


@pytest.mark.parametrize("kind", [ValueError, KeyError, OSError, StopIteration, KeyboardInterrupt])
def test_exceptions_of_python_come_from_anybody(kind):
    error = loaded(pickle.dumps(kind("why")), (), anything=False)
    assert type(error) is kind
    assert error.args == ("why",)


def test_arrays_and_tables_come_from_anybody():
    numpy, pandas = pytest.importorskip("numpy"), pytest.importorskip("pandas")
    table = pandas.DataFrame(
        {
            "number": [1, 2, 3],
            "part": [1.5, None, 2],
            "word": ["a", "b", None],
            "kind": pandas.Categorical(["x", "y", "x"]),
            "when": pandas.date_range("2020-01-01", periods=3, tz="UTC"),
            "long": pandas.to_timedelta([1, 2, 3], unit="h"),
            "maybe": pandas.array([1, None, 3], dtype="Int64"),
        }
    )
    for value in (
        table,
        table["word"],
        table.set_index(["number", "kind"]),
        table.groupby("kind").number.sum(),
    ):
        same = loaded(pickle.dumps(value), (), anything=False)
        assert same.equals(value)
    for value in (
        numpy.arange(4.0).reshape(2, 2),
        numpy.array(["a", "b"]),
        numpy.array([1, "b", None], dtype=object),
        numpy.zeros(2, dtype=[("a", "i4"), ("b", "f8")]),
        numpy.array(["2020-01-01"], dtype="M8[D]"),
        numpy.float32(1.5),
        numpy.ma.array([1, 2], mask=[0, 1]),
        numpy.asfortranarray(numpy.ones((3, 3))),
    ):
        same = loaded(pickle.dumps(value, 5), (), anything=False)
        assert numpy.array_equal(numpy.asarray(same), numpy.asarray(value))
        assert same.dtype == value.dtype
    assert loaded(pickle.dumps(pandas.Timestamp("2020")), (), anything=False) == pandas.Timestamp("2020")


class Calls:
    """Pickled, it calls something when it is loaded."""

    def __init__(self, function, *arguments):
        self.how = (function, arguments)

    def __reduce__(self):
        return self.how


@pytest.mark.parametrize(
    "value",
    [
        Calls(os.system, "touch harmed"),
        Calls(eval, "1"),
        Calls(exec, "1"),
        Calls(open, "harmed", "w"),
        Calls(getattr, 1, "real"),
        Calls(setattr, 1, "x", 1),
        Calls(importlib.import_module, "os"),
        Calls(subprocess.run, ["true"]),
        Calls(Path.unlink, Path("harmed")),
        Calls(cloudpickle.loads, b""),
        os.system,
        pytest.fixture,
        lambda: 1,
        sys,
    ],
    ids=lambda value: getattr(getattr(value, "how", [value])[0], "__name__", type(value).__name__),
)
def test_nothing_else_comes_from_anybody(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = cloudpickle.dumps(value)
    with pytest.raises(MoreThanData):
        loaded(data, (), anything=False)
    assert not list(tmp_path.iterdir())


def test_a_pickle_of_somebody_else_cannot_change_a_class():
    """``GLOBAL Counter, (None, {"total": 1}), BUILD``: attributes of a class that everybody uses."""
    data = b"\x80\x04ccollections\nCounter\n(N}\x8c\x05totalK\x01st\x94b."
    with pytest.raises(MoreThanData):
        loaded(data, (), anything=False)
    assert callable(collections.Counter.total)


def test_a_pickle_names_only_classes_that_went_out():
    class Names(pickle.Pickler):
        def persistent_id(self, value):
            return ("os", "environ") if value == "it" else None

    import io

    file = io.BytesIO()
    Names(file).dump(["it"])
    for sent in ((), [("os", "environ")]):
        for anything in (True, False):
            with pytest.raises(pickle.UnpicklingError):
                loaded(file.getvalue(), sent, anything=anything)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_bytes_at_random_do_no_harm(data):
    try:
        loaded(data, (), anything=False)
    except Exception as error:
        assert not isinstance(error, (SystemError, MemoryError))
