"""The pure parts: figures, filters, where panes go, how output is put together, what is folded."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from gridx.config import Role
from gridx.errors import ConfigError, InvalidField
from gridx.messages import (
    Entry,
    EntryPage,
    Job,
    JobChanged,
    JobState,
    OutputArrived,
    User,
    Worker,
    WorkerChanged,
)
from gridx.quantities import parse_cores, parse_mebibytes, parse_seconds
from gridx.tui import figures
from gridx.tui.accountbook import DAYS, MAX_ENTRIES, AccountBook, by_day
from gridx.tui.arrangement import ALL, plan
from gridx.tui.cells import fit, wrap, wrap_words
from gridx.tui.commands import COMMANDS
from gridx.tui.filters import parse_filter
from gridx.tui.keymap import read_keymap
from gridx.tui.logbook import Logbook
from gridx.tui.look import ATTEMPT_LOOKS, JOB_LOOKS, WORKER_LOOKS
from gridx.tui.plain import plain
from gridx.tui.state import MAX_JOBS, GridState
from gridx.tui.transcript import Transcript
from gridx.tui.widgets.table import Column, fit_columns


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def monotonic(self) -> float:
        return self.time

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)


def job(number: int, state: JobState = JobState.QUEUED, **more) -> Job:
    return Job(
        **{
            "id": number,
            "name": f"job-{number}",
            "owner": "ann",
            "state": state,
            "language": "python",
            "cpus": 1.0,
            "memory_mb": 64,
            "gpus": 0,
            "timeout_s": 60,
            "priority": 0,
            "max_attempts": 3,
            "created_at": datetime(2026, 1, 1, tzinfo=UTC),
            **more,
        }
    )


# -- figures -----------------------------------------------------------------------------------------------


@given(st.floats(0, 1e9))
def test_figures_keep_to_their_columns(value):
    assert len(figures.age(value)) <= 5
    assert len(figures.span(value)) <= 8
    assert len(figures.size(value)) <= 8


@given(st.floats(0, 1), st.integers(0, 40))
def test_a_bar_is_as_wide_as_it_says(part, width):
    assert cell_len("".join(figures.bar(part, width))) == width


@given(st.lists(st.floats(0, 10), max_size=50), st.integers(0, 30))
def test_a_graph_is_as_wide_as_it_says(values, width):
    assert cell_len(figures.graph(values, width, 5.0)) == width


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=40))
def test_ascii_stand_ins_take_as_many_cells(text):
    assert plain(text).isascii()
    assert len(plain(text)) == sum(cell_len(char) for char in text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0s"), (9.94, "9.9s"), (59.6, "1m 00s"), (3725, "1h 02m"), (90000, "1d 01h")],
)
def test_spans_are_read_at_a_glance(seconds, text):
    assert figures.span(seconds) == text


@given(st.text(max_size=60), st.integers(0, 30))
def test_text_is_cut_to_cells(text, width):
    text = "".join(char for char in text if char.isprintable())
    assert cell_len(fit(text, width)) == width


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=80), st.integers(1, 20))
def test_wrapping_loses_nothing(text, width):
    pieces = wrap(text, width)
    assert "".join(text[start:end] for start, end in pieces) == text
    assert all(cell_len(text[start:end]) <= max(width, 2) for start, end in pieces)


# -- states, filters, columns ------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=200), st.integers(1, 30))
def test_wrapping_between_words_loses_nothing_and_cuts_no_word_that_fits(text, width):
    pieces = wrap_words(text, width)
    assert "".join(text[start:end] for start, end in pieces) == text
    for (_, end), (start, _) in pairwise(pieces):
        assert end == start
        word = text[text.rfind(" ", 0, start) + 1 : (text + " ").find(" ", start)]
        assert text[start - 1] == " " or sum(map(cell_len, word)) > width


def test_every_state_has_its_own_glyph_and_word():
    for looks in (JOB_LOOKS, WORKER_LOOKS):
        assert len({look.glyph for look in looks.values()}) == len(looks)
        assert len({look.plain for look in looks.values()}) == len(looks)
        assert all(cell_len(look.glyph) == 1 and look.plain.isascii() for look in looks.values())
    assert set(JOB_LOOKS) == set(JobState)
    assert all(cell_len(look.text) <= 15 for look in (*JOB_LOOKS.values(), *ATTEMPT_LOOKS.values()))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", [1, 2, 3]),
        ("state:run", [2]),
        ("state:queued,fail", [1, 3]),
        ("owner:b", [3]),
        ("worker:lab state:active", [2]),
        ("JOB-3", [3]),
        ("memory", [1]),
        ("state:nonsense", [1, 2, 3]),
        ("job 9", []),
    ],
)
def test_filters_find_what_they_name(text, shown):
    jobs = [
        job(1, reason="needs more memory"),
        job(2, JobState.RUNNING, worker_name="lab-2"),
        job(3, JobState.FAILED, owner="bob"),
    ]
    wanted = parse_filter(text)
    assert [found.id for found in jobs if wanted.shows(found)] == shown


def test_an_unknown_state_is_named():
    assert parse_filter("state:nonsense").unknown == ("nonsense",)


@given(st.integers(1, 200))
def test_columns_fit_or_are_dropped_by_rank(width):
    columns = (
        Column("a", "a", 10),
        Column("b", "b", 8, rank=2),
        Column("c", "c", 8, rank=1),
        Column("d", "d", 5, stretch=True),
    )
    fitted = fit_columns(columns, width)
    total = sum(cells for _, cells in fitted) + len(fitted) - 1
    shown = [columns[i].key for i, _ in fitted]
    assert total == max(width, 16)
    assert "b" not in shown or "c" in shown


def test_command_names_and_keys_do_not_clash_within_a_scope():
    assert len({command.id for command in COMMANDS}) == len(COMMANDS)
    for scope in {command.scope for command in COMMANDS}:
        keys = [key for command in COMMANDS if command.scope == scope for key in command.keys.split(",")]
        assert len(keys) == len(set(keys)), scope


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("jobs_cancle=x", "Did you mean jobs_cancel"),
        ("jobs_cancel", "is not COMMAND=KEY"),
        ("jobs_cancel=", "is not COMMAND=KEY"),
        ("jobs_cancel=ctrl+", "is not a key"),
        ("jobs_cancel=r", "would do two things"),
    ],
)
def test_keys_that_cannot_be_are_refused_with_what_to_write(entry, said):
    with pytest.raises(ConfigError, match=said):
        read_keymap([entry])


def test_keys_can_be_swapped():
    assert read_keymap(["jobs_cancel=r", "jobs_retry = c x"]) == {"jobs_cancel": "r", "jobs_retry": "c,x"}


def test_the_documentation_lists_every_command_with_its_keys():
    page = (Path(__file__).parents[2] / "docs" / "dashboard.md").read_text()
    for command in COMMANDS:
        assert f"| `{command.id}` | {' '.join(f'`{key}`' for key in command.keys.split(','))} |" in page, (
            command.id
        )


# -- where panes go ----------------------------------------------------------------------------------------


@given(
    st.integers(60, 300),
    st.integers(13, 100),
    st.sampled_from(["standalone", "coordinator", "worker", "viewer"]),
    st.permutations(ALL),
    st.booleans(),
)
def test_panes_tile_the_desk_and_the_latest_is_seen(width, height, role: Role, recent, zoomed):
    boxes = plan(width, height, role=role, recent=recent, zoomed=zoomed)
    assert recent[0] in boxes
    assert sum(w * h for _, _, w, h in boxes.values()) == width * height
    for x, y, w, h in boxes.values():
        assert x >= 0 and y >= 0 and x + w <= width and y + h <= height
        assert w >= 20 and h >= 5


# -- output ------------------------------------------------------------------------------------------------


def shown(pieces) -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    for piece in pieces:
        if piece.amend:
            lines[-1] = (piece.stream, piece.text)
        else:
            lines.append((piece.stream, piece.text))
    return lines


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=8))
def test_output_reads_the_same_however_it_is_cut(data, cuts):
    whole, parts = Transcript(), Transcript()
    expected = shown(whole.feed("stdout", 0, data) or [])
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = []
    for start, end in pairwise(edges):
        pieces += parts.feed("stdout", start, data[start:end]) or []
    assert shown(pieces) == expected


def test_overlap_is_skipped_and_a_gap_is_told():
    script = Transcript()
    assert shown(script.feed("stdout", 0, b"one\ntw")) == [("stdout", "one"), ("stdout", "tw")]
    assert script.feed("stdout", 9, b"later") is None
    assert [piece.text for piece in script.feed("stdout", 2, b"e\ntwo\n") or []] == ["two"]
    assert script.offset("stdout") == 8


def test_a_carriage_return_writes_over_the_line():
    script = Transcript()
    pieces = script.feed("stderr", 0, b"10%\r55%\r")
    pieces += script.feed("stderr", 8, b"100%\r\ndone\n")
    assert shown(pieces) == [("stderr", "100%"), ("stderr", "done")]


def test_streams_that_write_in_turn_stay_apart():
    script = Transcript()
    pieces = script.feed("stdout", 0, b"a")
    pieces += script.feed("stderr", 0, b"oops\n")
    pieces += script.feed("stdout", 1, b"b\n\n")
    assert shown(pieces) == [("stdout", "a"), ("stderr", "oops"), ("stdout", "b"), ("stdout", "")]


def test_a_line_without_end_is_cut_into_lines():
    script = Transcript()
    pieces = script.feed("stdout", 0, b"x" * 10_000)
    assert [len(text) for _, text in shown(pieces)] == [4096, 4096, 1808]


# -- state -------------------------------------------------------------------------------------------------


def state_of(user: str = "ann") -> GridState:
    state = GridState(Clock())
    state.user = User(id=1, username=user, role="user", created_at=datetime(2026, 1, 1, tzinfo=UTC))
    return state


def test_an_ended_job_does_not_come_back_to_life():
    state = state_of()
    state.fold(JobChanged(job=job(1, JobState.SUCCEEDED)))
    state.fold(JobChanged(job=job(1, JobState.RUNNING)))
    assert state.jobs[1].state is JobState.SUCCEEDED


def test_ends_are_told_once_and_of_ones_own_jobs_only():
    state = state_of()
    for owner, number in (("ann", 1), ("bob", 2)):
        state.fold(JobChanged(job=job(number, JobState.RUNNING, owner=owner)))
        state.fold(JobChanged(job=job(number, JobState.FAILED, owner=owner)))
    assert [ended.id for ended in state.take().ended] == [1]
    assert not state.take()


def test_what_is_known_stays_bounded():
    state = state_of()
    for number in range(1, MAX_JOBS + 200):
        state.put_jobs([job(number, JobState.SUCCEEDED if number > 5 else JobState.RUNNING)])
    assert len(state.jobs) <= MAX_JOBS
    assert {1, 2, 3, 4, 5, MAX_JOBS + 199} <= state.jobs.keys()
    for n in range(9000):
        state.fold(OutputArrived(job_id=1, attempt=1, stream="stdout", offset=n, data=b"x"))
    changes = state.take()
    assert len(changes.output) < 9000
    assert changes.output_lost


def test_a_worker_that_is_silent_becomes_stale_by_the_monotonic_clock():
    state = state_of()
    state.fold(WorkerChanged(worker=Worker(id=1, name="lab", owner="ann", state="online", last_seen_s=1.0)))
    state.clock.time += 9
    assert state.machines[1].seen_s(state.clock.monotonic()) == 10


async def test_the_account_book_reads_only_what_is_new():
    def entry(id_: int, day: int) -> Entry:
        return Entry(id_, id_, datetime(2026, 1, day, 12, tzinfo=UTC), "grant", 5)

    have = [entry(n, 1 + n // 40) for n in range(1, 1101)]
    asked: list[int | None] = []

    async def page(before: int | None) -> EntryPage:
        asked.append(before)
        found = [e for e in reversed(have) if before is None or e.id < before][:500]
        return EntryPage(entries=found, next=found[-1].id if len(found) == 500 else None)

    book, today = AccountBook(), date(2026, 1, 28)
    await book.read(page, today)
    assert asked == [None, 601, 101] and book.complete and list(book.entries) == list(range(1100, 0, -1))
    have.append(entry(1101, 28))
    await book.read(page, today)
    assert asked[3:] == [None] and list(book.entries)[:2] == [1101, 1100] and len(book.entries) == 1101
    assert book.days(today) == DAYS


async def test_days_of_which_not_all_is_known_are_not_plotted():
    have = [
        Entry(n, n, datetime(2026, 1, 28, 12, tzinfo=UTC) - timedelta(hours=n // 100), "grant", 5)
        for n in range(1, 9000)
    ]

    async def page(before: int | None) -> EntryPage:
        start = before or 0
        return EntryPage(entries=have[start : start + 500], next=start + 500)

    book = AccountBook()
    await book.read(page, date(2026, 1, 28))
    assert len(book.entries) == MAX_ENTRIES and not book.complete
    assert book.days(date(2026, 1, 28)) in (1, 2)


def test_totals_by_day_net_what_was_held_and_given_back():
    at = datetime(2026, 1, 5, 12, tzinfo=UTC)

    def entry(number: int, kind: str, amount: int) -> Entry:
        return Entry(id=number, transaction_id=number, at=at, kind=kind, amount=amount)

    entries = [
        entry(1, "hold", -100),
        entry(2, "release", 70),
        entry(3, "settle", 5),
        entry(4, "transfer", -1),
    ]
    gained, spent = by_day(entries, date(2026, 1, 6), 3)
    assert (gained, spent) == ([0, 5, 0], [0, 31, 0])


# -- amounts, log ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("5m", 300), ("1h30m", 5400), (" 2D ", 172800)])
def test_durations_as_typed(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize(("text", "mebibytes"), [("512", 512), ("1.5G", 1536), ("1GiB", 1024), ("100k", 1)])
def test_sizes_as_typed(text, mebibytes):
    assert parse_mebibytes(text) == mebibytes


@pytest.mark.parametrize("parse", [parse_seconds, parse_mebibytes, parse_cores])
@pytest.mark.parametrize("text", ["", "-1", "ten", "1e9", "NaN", "٣", "1,5", "0x10"])
def test_other_amounts_are_refused_with_what_is_allowed(parse, text):
    with pytest.raises(InvalidField) as caught:
        parse(text)
    assert caught.value.hint and caught.value.details["field"]


def test_cores_are_exact_to_a_thousandth():
    assert Fraction(str(parse_cores("0.125"))) == Fraction(1, 8)


def test_the_logbook_is_bounded_and_hands_over_what_is_new():
    import logging

    book = Logbook(keep=10)
    for n in range(25):
        book.handle(logging.LogRecord("gridx.test", logging.INFO, "", 1, "line %d \x1b]0;x\x07", (n,), None))
    lines = book.since(0)
    assert [line.text.strip() for line in lines] == [f"line {n}" for n in range(15, 25)]
    assert [line.number for line in book.since(lines[-2].number)] == [25]
    assert book.since(25) == ()
