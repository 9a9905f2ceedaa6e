"""The protocol: any frame round-trips or is refused with the path of what is wrong."""

from __future__ import annotations

import typing
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Meta

from gridx import messages
from gridx.errors import BadRequest, GridError, InvalidField


def strategy(kind: typing.Any) -> st.SearchStrategy:
    """Values of a type as the messages declare it, bounds and patterns included."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return bounded(args[0], [note for note in args[1:] if isinstance(note, Meta)])
    return bounded(kind, []) if origin is None else generic(kind, origin, args)


def generic(kind, origin, args):
    if origin is typing.Literal:
        return st.sampled_from(args)
    if origin is list:
        return st.lists(strategy(args[0]), max_size=3)
    if origin is dict:
        return st.dictionaries(strategy(args[0]), strategy(args[1]), max_size=3)
    if origin is tuple:
        return st.tuples(*(strategy(a) for a in args))
    return st.one_of(*(strategy(a) for a in args if a is not msgspec.UnsetType))


def bounded(kind, metas):
    def bound(*names, default=None):
        return next((getattr(m, n) for m in metas for n in names if getattr(m, n) is not None), default)

    pattern = bound("pattern")
    if typing.get_origin(kind) is list:
        low, high = bound("min_length", default=0), min(bound("max_length", default=3), 3)
        return st.lists(strategy(typing.get_args(kind)[0]), min_size=low, max_size=max(low, high))
    if typing.get_origin(kind) is not None:
        return strategy(kind)
    if kind is str and pattern:
        return (
            st.from_regex(pattern)
            .filter(lambda s: bound("min_length", default=0) <= len(s) <= bound("max_length", default=1000))
            .filter(encodable)
        )
    if kind is str:
        return st.text(
            st.characters(exclude_categories=("Cs",)), max_size=min(bound("max_length", default=50), 50)
        )
    if kind is bytes:
        return st.binary(max_size=100)
    if kind is bool:
        return st.booleans()
    if kind is int:
        return st.integers(bound("ge", default=-(2**53)), bound("le", default=2**53))
    if kind is float:
        return st.floats(bound("ge", default=0), bound("le", default=1e15), allow_nan=False)
    if kind is type(None):
        return st.none()
    if kind is datetime:
        return st.datetimes(timezones=st.just(UTC))
    if kind is typing.Any:
        return st.none() | st.integers(-5, 5) | st.text("abc")
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = typing.get_type_hints(kind, include_extras=True)
        return st.builds(
            kind, **{field.name: strategy(hints[field.name]) for field in msgspec.structs.fields(kind)}
        )
    return st.sampled_from(list(kind))


def encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


worker_frames = st.lists(strategy(messages.WorkerFrame), min_size=1, max_size=3)
coordinator_frames = st.lists(strategy(messages.CoordinatorFrame), min_size=1, max_size=3)
relaxed = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much], deadline=None)


@relaxed
@given(worker_frames)
def test_every_frame_of_a_worker_round_trips(frames):
    assert messages.decode_worker_frames(messages.encode(frames)) == frames


@relaxed
@given(coordinator_frames)
def test_every_frame_of_the_coordinator_round_trips(frames):
    assert messages.decode_coordinator_frames(messages.encode(frames)) == frames


@relaxed
@given(strategy(messages.Event))
def test_every_event_round_trips(event):
    assert messages.decode_event(messages.encode(event)) == event


FIELDS = ["type", "protocol", "attempt_id", "seq", "stream", "offset", "data", "attempts", "outcome", "offer"]
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS) | st.text("ab"), inner)
    ),
    max_leaves=12,
)


@relaxed
@given(
    st.binary(max_size=200)
    | json_values.map(messages.encode)
    | st.lists(json_values, max_size=3).map(messages.encode)
)
def test_anything_else_is_refused_by_a_typed_error(data):
    for decode in (messages.decode_worker_frames, messages.decode_coordinator_frames, messages.decode_event):
        try:
            decode(data)
        except GridError as error:
            assert error.message
            assert error.status in (400, 422)


@relaxed
@given(worker_frames, st.data())
def test_a_flipped_byte_is_decoded_or_refused_never_a_crash(frames, data):
    raw = bytearray(messages.encode(frames))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] = data.draw(st.integers(0, 255))
    try:
        messages.decode_worker_frames(bytes(raw))
    except GridError as error:
        assert error.hint


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{}", "code"),
        (b'{"code": "x", "zzz": 1}', "zzz"),
        (b'{"code": 1}', "code"),
        (b'{"code": "x", "cpus": -1}', "cpus"),
        (b'{"code": "x", "cpus": true}', "cpus"),
        (b'{"code": "x", "memory_mb": 1.5}', "memory_mb"),
        (b'{"code": "x", "timeout_s": 0}', "timeout_s"),
        (b'{"code": "x", "timeout_s": 9223372036854775808}', "timeout_s"),
        (b'{"code": "x", "gpus": "1"}', "gpus"),
        (b'{"code": "x", "args": ["a", "\\u0000"]}', "args[1]"),
        (b'{"code": "x", "name": "two\\nlines"}', "name"),
        (b'{"code": "x", "runtime": "../etc"}', "runtime"),
        (b'{"code": "x", "python": "2.7"}', "python"),
        (b'{"code": "x", "image": "evil"}', "image"),
        (b'{"code": "x", "mounts": ["/"]}', "mounts"),
        (b'{"code": "x", "privileged": true}', "privileged"),
    ],
)
def test_a_bad_field_is_named_by_its_path(body, field):
    with pytest.raises(InvalidField) as caught:
        messages.decode(body, messages.JobSpec)
    assert caught.value.details["field"] == field
    assert field in caught.value.message


@pytest.mark.parametrize("body", [b"", b"\xff", b"{", b'{"code": "\\ud800"}', b"nan", b'{"code": NaN}'])
def test_what_is_not_json_is_a_bad_request(body):
    with pytest.raises(BadRequest):
        messages.decode(body, messages.JobSpec)


@pytest.mark.parametrize("body", [b"[" * 100_000, b"1" * 5000, b"[]", b'"x"'])
def test_what_is_no_object_is_refused(body):
    with pytest.raises(GridError) as caught:
        messages.decode(body, messages.JobSpec)
    assert caught.value.status in (400, 422)


def test_frames_over_their_caps_are_refused():
    data = b"x" * (messages.MAX_OUTPUT_FRAME_BYTES + 1)
    frame = messages.Output(attempt_id=1, stream="stdout", offset=0, data=data)
    with pytest.raises(InvalidField):
        messages.decode_worker_frames(messages.encode([frame]))
    beats = [messages.Sample(seq=1, attempts=[])] * (messages.MAX_BATCH + 1)
    with pytest.raises(InvalidField):
        messages.decode_worker_frames(messages.encode(beats))
    with pytest.raises(InvalidField):
        messages.decode_worker_frames(b"[]")


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("cpus", -1, "must be at least 0.1"),
        ("timeout_s", 10**9, "must be at most 2592000"),
        ("gpus", None, "must be a whole number, not null"),
        ("args", ["x"] * 1001, "must have at most 1000 elements"),
        ("python", "2.7", "must be a version like 3.11"),
        ("name", "a\nb", "must be one line of text without control characters"),
        ("runtime", "../x", "must be 1 to 64 small letters, digits and . _ -, with a letter or digit first"),
        ("image", "x", "is not a field that is known here"),
    ],
)
def test_a_refusal_says_in_words_what_a_field_must_be(field, value, words):
    with pytest.raises(InvalidField) as refused:
        messages.decode(messages.encode({"code": "x", field: value}), messages.JobSpec)
    assert refused.value.message == f"{field}: {words}."
    assert refused.value.details == {"field": field}


def test_a_field_that_is_not_known_is_answered_with_those_that_are():
    with pytest.raises(InvalidField) as refused:
        messages.decode(b'{"code": "x", "cores": 2}', messages.JobSpec)
    assert "cpus" in refused.value.hint
