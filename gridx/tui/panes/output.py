"""The output of the chosen job, as it comes: both streams told apart, followed, searched, copied, saved."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from textual import on
from textual.app import ComposeResult
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Input

from gridx import safetext
from gridx.errors import GridError, InvalidField
from gridx.messages import STREAMS, Job, OutputArrived, Stream
from gridx.tui import describe, figures
from gridx.tui.commands import bindings
from gridx.tui.look import JOB_LOOKS
from gridx.tui.panes.pane import Finder, Pane
from gridx.tui.screens.form import FormField, FormScreen
from gridx.tui.state import Changes
from gridx.tui.transcript import Piece, Transcript
from gridx.tui.widgets.lines import Line, LineView

CHOOSE_DELAY_S: Final = 0.12
"""Running through the list with a key held down reads only the job one stops at."""
COPY_BYTES: Final = 64 << 10
"""Terminals drop longer clipboard requests."""


class OutputPane(Pane):
    """One job's output."""

    NAME = "output"
    BINDINGS = bindings("output")

    def __init__(self) -> None:
        super().__init__()
        self.job_id: int | None = None
        self.only: Stream | None = None
        self._transcript = Transcript()
        self._reading = False
        self._arrived: list[OutputArrived] = []
        self._said_end = False
        """The job's end has been written below its output."""
        self._open: Stream | None = None
        self._delay: Timer | None = None
        self.view = LineView(marks=2, empty="Choose a job to see what it writes.")
        self.finder = Finder("search", "text; n and N go on and back")

    def compose(self) -> ComposeResult:
        yield self.view
        yield self.finder

    @property
    def entry(self) -> Widget:
        return self.view

    @property
    def job(self) -> Job | None:
        """The job whose output this is."""
        return self.state.jobs.get(self.job_id) if self.job_id is not None else None

    # -- which job ---------------------------------------------------------------------------------------

    def choose(self, job_id: int | None) -> None:
        """Show another job's output."""
        if job_id == self.job_id:
            return
        self.job_id = job_id
        self._begin()
        if self._delay is not None:
            self._delay.stop()
        self._delay = self.set_timer(CHOOSE_DELAY_S, self._watch) if job_id is not None else None

    def _begin(self) -> None:
        self._transcript = Transcript()
        self._arrived.clear()
        self._said_end = False
        self._open = None
        self._reading = self.job_id is not None
        self.view.clear()
        self._describe()

    def _watch(self) -> None:
        self._delay = None
        self.run_worker(self._read(), exclusive=True, group="output")

    async def _read(self) -> None:
        """Read what is missing over HTTP; what arrives meanwhile is put behind it."""
        job_id = self.job_id
        if job_id is None:
            return
        self._reading = True
        try:
            await self.grid.feed.watch([job_id])
            job = await self.grid.client.job(job_id)
            self.state.put_jobs([job])
            if job.array is not None:
                return
            if job.attempt > self._transcript.attempt:
                self._start_attempt(job.attempt)
            if job.attempt:
                for stream in STREAMS:
                    offset = self._transcript.offset(stream)
                    data = await self.grid.client.output(
                        job_id, stream, offset=offset, attempt=self._transcript.attempt
                    )
                    self._write(self._transcript.feed(stream, offset, data) or [])
        except GridError as error:
            if self.state.link.connected:
                self.view.extend([Line(safetext.line(str(error), limit=1000), "error")])
            return
        finally:
            self._reading = False
        arrived, self._arrived = self._arrived, []
        self._take(arrived)
        self._close(self.state.jobs.get(job_id))
        self._describe()

    # -- what arrives ------------------------------------------------------------------------------------

    def apply(self, changes: Changes) -> None:
        if self.job_id is None:
            return
        mine = [event for event in changes.output if event.job_id == self.job_id]
        if self._reading:
            self._arrived.extend(mine[: max(0, 4000 - len(self._arrived))])
        elif changes.reread or changes.output_lost:
            self._watch()
        else:
            self._take(mine)
            if (
                self.job_id in changes.jobs
                and self.job is not None
                and self.job.state.ended
                and self.job.array is None
                and not self._said_end
            ):
                if self._complete(self.job):
                    self._close(self.job)
                else:
                    self._watch()
        if self.job_id in changes.jobs or changes.reread or mine:
            self._describe()

    def _take(self, events: list[OutputArrived]) -> None:
        for event in events:
            if event.attempt > self._transcript.attempt:
                self._start_attempt(event.attempt)
            elif event.attempt < self._transcript.attempt:
                continue
            pieces = self._transcript.feed(event.stream, event.offset, event.data)
            if pieces is None:
                self._watch()
                return
            self._write(pieces)

    def _complete(self, job: Job) -> bool:
        script = self._transcript
        return (
            script.attempt == job.attempt
            and script.offset("stdout") >= job.stdout_bytes
            and script.offset("stderr") >= job.stderr_bytes
        )

    def _start_attempt(self, number: int) -> None:
        self._transcript.begin(number)
        self._open = None
        if number > 1:
            self.view.extend([Line(f"── attempt {number} ──", "muted")])

    def _write(self, pieces: list[Piece]) -> None:
        lines: list[Line] = []
        for piece in pieces:
            if self.only is not None and piece.stream != self.only:
                continue
            line = self._line(piece)
            if not piece.amend or self._open != piece.stream:
                lines.append(line)
            elif lines:
                lines[-1] = line
            else:
                self.view.amend(line)
            self._open = piece.stream
        if lines:
            self.view.extend(lines)

    def _line(self, piece: Piece) -> Line:
        if piece.stream == "stdout":
            return Line(piece.text)
        return Line(piece.text, "warning", "▌ ", "warning")

    def _close(self, job: Job | None) -> None:
        """Write below the output how the job ended."""
        if job is None or job.array is not None or not job.state.ended:
            return
        if self._said_end or job.id != self.job_id:
            return
        self._said_end = True
        look = JOB_LOOKS[job.state]
        words = [look.text]
        if job.exit_code:
            words.append(f"exit code {job.exit_code}")
        if job.signal:
            words.append(f"signal {job.signal}")
        if run := describe.job_run(job, self.grid.clock.now()):
            words.append(run)
        words.append(f"{describe.credits_short(job.charge)} credits")
        if note := describe.job_note(job):
            words.append(note)
        self.view.extend([Line(" · ".join(words), look.style)])

    # -- title -------------------------------------------------------------------------------------------

    def _describe(self) -> None:
        job = self.job
        if self.job_id is None:
            self.title()
            return
        self.view.empty = "Nothing yet."
        if job is None:
            self.title(str(self.job_id))
            return
        if job.array is not None:
            self.view.empty = f"An array: {self.grid.key_of('jobs_unfold')} in the list shows its elements."
        elif not job.state.ended and not self._transcript.attempt:
            self.view.empty = f"It waits: {describe.job_note(job) or JOB_LOOKS[job.state].word}"
        elif job.state.ended:
            self.view.empty = "It wrote nothing."
        follow = "" if job.state.ended else "FOLLOW" if self.view.following else "PAUSED"
        if not self.view.following and job.state.ended:
            follow = "f follows"
        words = [f"{job.id} {describe.job_title(job)}", self.only or "", follow]
        sizes = [
            f"{stream} {figures.size(self._transcript.offset(stream))}"
            for stream in STREAMS
            if self._transcript.offset(stream)
        ]
        if self.view.dropped:
            sizes.append(f"{self.view.dropped:,} lines above not shown; w saves all")
        self.title(" · ".join(word for word in words if word), " · ".join(sizes))
        self.view.refresh()

    @on(LineView.Following)
    def _following(self, event: LineView.Following) -> None:
        event.stop()
        self._describe()

    # -- searching ---------------------------------------------------------------------------------------

    @on(LineView.SearchWanted)
    def _search(self, event: LineView.SearchWanted) -> None:
        event.stop()
        if not isinstance(event, LineView.CopyWanted):
            self.finder.open()

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        found = self.view.search(event.value)
        self.finder.note(f"{found} lines" if event.value else "")

    @on(Input.Submitted)
    def _entered(self, event: Input.Submitted) -> None:
        event.stop()
        self.view.focus()
        self.view.action_match(1)

    def _is_array(self) -> bool:
        """Whether what is chosen is an array, which writes nothing itself; says so."""
        if self.job is None or self.job.array is None:
            return False
        self.grid.tell("An array writes nothing itself; its elements do.")
        return True

    # -- acting ------------------------------------------------------------------------------------------

    def action_stream(self) -> None:
        """Both streams, stdout alone, stderr alone."""
        order: tuple[Stream | None, ...] = (None, "stdout", "stderr")
        self.only = order[(order.index(self.only) + 1) % len(order)]
        if self.job_id is not None:
            self._begin()
            self._watch()

    @on(LineView.CopyWanted)
    def _copy(self, event: LineView.CopyWanted) -> None:
        event.stop()
        if event.text:
            self.grid.copy(event.text, f"{len(event.text):,} characters")
        elif self.job_id is not None and not self._is_array():
            self.run_worker(self._copy_all(self.job_id), group="copy", exclusive=True)

    async def _copy_all(self, job_id: int) -> None:
        stream = self.only or "stdout"
        try:
            data = await self.grid.client.output(job_id, stream)
        except GridError as error:
            self.grid.tell_error(error)
            return
        text = safetext.decode(data[-COPY_BYTES:])
        cut = f"the last {figures.size(COPY_BYTES)} of " if len(data) > COPY_BYTES else ""
        self.grid.copy(text, f"{cut}{stream} of job {job_id}")

    def action_save(self) -> None:
        """Write the output to a file that is asked for."""
        if self.job_id is None or self._is_array():
            return
        job_id = self.job_id

        async def save(values: dict[str, str]) -> str:
            return await self._save(job_id, values["path"])

        fields = [FormField("path", "file", f"job-{job_id}.txt")]
        about = (
            "stderr goes to a second file with .err behind its name. A file that exists is not overwritten."
        )
        screen = FormScreen(f"Save the output of job {job_id}", about, fields, "Save", save)
        self.app.push_screen(screen, lambda said: self.grid.tell(said) if said else None)

    async def _save(self, job_id: int, name: str) -> str:
        if not name.strip():
            raise InvalidField("A file needs a name.", "", field="path")
        data = {stream: await self.grid.client.output(job_id, stream) for stream in STREAMS}

        def write() -> list[str]:
            path = Path(name).expanduser()
            paths = {"stdout": path, "stderr": path.with_name(path.name + ".err")}
            written = []
            for stream in STREAMS:
                if data[stream] or stream == "stdout":
                    with paths[stream].open("xb") as file:
                        file.write(data[stream])
                    written.append(str(paths[stream]))
            return written

        try:
            written = await asyncio.to_thread(write)
        except FileExistsError as error:
            raise InvalidField(
                f"{error.filename} exists already.", "Name a new file.", field="path"
            ) from None
        except OSError as error:
            raise InvalidField(f"{name}: {error.strerror}.", "Name another file.", field="path") from None
        return f"Saved {' and '.join(written)}."
