"""From bytes to a result: a pickle may run anything, so whose machine made it decides what it may hold.

From the machines of the caller, and of users who are trusted, any object is taken. From others, data: what
Python, numpy and pandas keep numbers, texts, dates and tables in, the exceptions that Python brings, and the
classes that went out with the call itself. Whatever else a pickle names is refused before it is loaded.
"""

from __future__ import annotations

import builtins
import io
import pickle
import zoneinfo
from collections.abc import Collection
from typing import Any, ClassVar, Final

from gridx.executor.pickling import find

_BUILTINS: Final = frozenset(
    {"bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object", "range"}
    | {"set", "slice", "str", "tuple"}
)

DATA: Final[dict[str, frozenset[str]]] = {
    module: frozenset(names.split())
    for module, names in {
        "_codecs": "encode",
        "array": "array _array_reconstructor",
        "collections": "Counter OrderedDict defaultdict deque",
        "copyreg": "_reconstructor",
        "datetime": "date datetime time timedelta timezone",
        "decimal": "Decimal",
        "fractions": "Fraction",
        "ipaddress": "IPv4Address IPv4Network IPv6Address IPv6Network",
        "pathlib": "Path PosixPath PurePath PurePosixPath PureWindowsPath",
        "pathlib._local": "Path PosixPath PurePath PurePosixPath PureWindowsPath",
        "types": "SimpleNamespace",
        "uuid": "SafeUUID UUID",
        "zoneinfo": "ZoneInfo",
        "numpy": "dtype ndarray",
        "numpy.dtypes": "StringDType",
        "numpy._core.multiarray": "_reconstruct scalar",
        "numpy.core.multiarray": "_reconstruct scalar",
        "numpy._core.numeric": "_frombuffer",
        "numpy.core.numeric": "_frombuffer",
        "numpy.ma": "MaskedArray",
        "numpy.ma.core": "MaskedArray _mareconstruct",
        "pandas": "Categorical DataFrame Interval Period Series",
        "pandas._libs.arrays": "__pyx_unpickle_NDArrayBacked",
        "pandas._libs.internals": "_unpickle_block",
        "pandas._libs.missing": "NAType _NA",
        "pandas._libs.interval": "Interval",
        "pandas._libs.tslibs.nattype": "_nat_unpickle",
        "pandas._libs.tslibs.offsets": "Day MonthEnd Hour Minute Second",
        "pandas._libs.tslibs.period": "_unpickle_period",
        "pandas._libs.tslibs.timedeltas": "_timedelta_unpickle",
        "pandas._libs.tslibs.timestamps": "_unpickle_timestamp",
        "pandas.core.arrays.boolean": "BooleanArray BooleanDtype",
        "pandas.core.arrays.categorical": "Categorical",
        "pandas.core.arrays.datetimes": "DatetimeArray",
        "pandas.core.arrays.floating": "Float32Dtype Float64Dtype FloatingArray",
        "pandas.core.arrays.integer": "Int16Dtype Int32Dtype Int64Dtype Int8Dtype IntegerArray UInt16Dtype "
        "UInt32Dtype UInt64Dtype UInt8Dtype",
        "pandas.core.arrays.numpy_": "NumpyExtensionArray",
        "pandas.core.arrays.string_": "StringArray StringDtype",
        "pandas.core.arrays.timedeltas": "TimedeltaArray",
        "pandas.core.dtypes.dtypes": "CategoricalDtype DatetimeTZDtype",
        "pandas.core.frame": "DataFrame",
        "pandas.core.indexes.base": "Index _new_Index",
        "pandas.core.indexes.category": "CategoricalIndex",
        "pandas.core.indexes.datetimes": "DatetimeIndex _new_DatetimeIndex",
        "pandas.core.indexes.multi": "MultiIndex",
        "pandas.core.indexes.range": "RangeIndex",
        "pandas.core.indexes.timedeltas": "TimedeltaIndex",
        "pandas.core.internals.managers": "BlockManager SingleBlockManager",
        "pandas.core.series": "Series",
    }.items()
}
"""What a result from anybody may name. Nothing in it does more than make a value of its arguments."""

KINDS: Final[dict[str, tuple[str, ...]]] = {
    "numpy.dtypes": ("DType",),
    "pandas": ("Index", "Dtype"),
    "pandas.arrays": ("Array",),
}
"""Modules of which every name with such an end is a class for data."""
_NONE: Final = ("\0",)


class MoreThanData(Exception):
    """The pickle names something that is not data."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def loaded(data: bytes | memoryview, sent: Collection[tuple[str, str]], *, anything: bool) -> Any:
    """What a call returned or raised.

    Args:
        sent: the classes that went out with the call.
        anything: its machine is trusted.

    Raises:
        MoreThanData: it is not trusted, and the pickle holds more than data.
        Exception: whatever unpickling raises.
    """
    kind = _Unpickler if anything else _DataUnpickler
    return kind(io.BytesIO(data), frozenset(sent)).load()


class _Sent:
    """Classes that went out with the call are the caller's own, not the copies that the machine had."""

    _sent: frozenset[tuple[str, str]]

    def persistent_load(self, name: Any) -> Any:
        if not (isinstance(name, tuple) and name in self._sent and isinstance(kind := find(*name), type)):
            raise pickle.UnpicklingError(f"the result names {name!r}, which did not go out with the call")
        return kind


class _Unpickler(_Sent, pickle.Unpickler):
    def __init__(self, file: io.BytesIO, sent: frozenset[tuple[str, str]]) -> None:
        super().__init__(file)
        self._sent = sent


_PythonUnpickler: Any = vars(pickle)["_Unpickler"]


class _DataUnpickler(_Sent, _PythonUnpickler):  # type: ignore[misc]
    """The one that is written in Python, slow as it is: it can be kept from changing what it was given."""

    dispatch: ClassVar[dict[int, Any]] = dict(_PythonUnpickler.dispatch)

    def __init__(self, file: io.BytesIO, sent: frozenset[tuple[str, str]]) -> None:
        super().__init__(file)
        self._sent = sent

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("builtins", "getattr"):
            return _attribute
        if module == "builtins":
            found = getattr(builtins, name, None)
            allowed = name in _BUILTINS or (isinstance(found, type) and issubclass(found, BaseException))
        else:
            is_data = name.isidentifier() and name.endswith(KINDS.get(module, _NONE))
            allowed = is_data or name in DATA.get(module, ())
        if not allowed:
            raise MoreThanData(f"{module}.{name}")
        return super().find_class(module, name)

    def load_build(self) -> None:
        """Set the state of a new object, and never attributes of a class or a function."""
        target = self.stack[-2]
        if isinstance(target, type) or hasattr(type(target), "__get__"):
            raise MoreThanData(f"a change to {getattr(target, '__qualname__', 'a function')}")
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build


def _attribute(owner: Any, name: str) -> Any:
    """What pickles need of ``getattr``: a time zone is loaded by a method of its class."""
    if owner is zoneinfo.ZoneInfo and name == "_unpickle":
        return getattr(owner, name)
    raise MoreThanData("builtins.getattr")
