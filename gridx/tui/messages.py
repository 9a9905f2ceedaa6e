"""What panes tell the dashboard; it alone decides what follows."""

from __future__ import annotations

from textual.message import Message

from gridx.messages import Job, JobSpec


class JobChosen(Message):
    """Another job is under the cursor, or none."""

    def __init__(self, job_id: int | None) -> None:
        super().__init__()
        self.job_id = job_id


class JobOpened(Message):
    """A job's own screen is wanted."""

    def __init__(self, job_id: int) -> None:
        super().__init__()
        self.job_id = job_id


class OutputWanted(Message):
    """A job's output is wanted."""

    def __init__(self, job_id: int) -> None:
        super().__init__()
        self.job_id = job_id


class EditWanted(Message):
    """A spec is to go into the editor, to be changed and submitted."""

    def __init__(self, spec: JobSpec, origin: str) -> None:
        super().__init__()
        self.spec = spec
        self.origin = origin


class Submitted(Message):
    """A job was accepted."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job


class PaneWanted(Message):
    """A pane is to come to the front, and to have the focus."""

    def __init__(self, pane: str) -> None:
        super().__init__()
        self.pane = pane
