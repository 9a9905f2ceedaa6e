"""How states look: a glyph, a word and a colour each, so that none of the three has to carry it alone.

The glyphs are one cell wide in every terminal font that was tried and have no emoji form; the ASCII ones
serve ``--ascii``. Colours are names of the palette in :mod:`gridx.tui.themes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from gridx.messages import AttemptState, JobState


class Look(NamedTuple):
    """One state on the screen."""

    glyph: str
    plain: str
    """The glyph where only ASCII may be drawn."""
    word: str
    style: str

    @property
    def text(self) -> str:
        """Glyph and word."""
        return f"{self.glyph} {self.word}"


JOB_LOOKS: Final[Mapping[JobState, Look]] = {
    JobState.QUEUED: Look("○", ".", "queued", "muted"),
    JobState.ASSIGNED: Look("◔", ":", "assigned", "primary"),
    JobState.RUNNING: Look("►", ">", "running", "primary strong"),
    JobState.CANCELLING: Look("◌", "~", "cancelling", "warning"),
    JobState.SUCCEEDED: Look("✓", "+", "succeeded", "success"),
    JobState.FAILED: Look("✗", "x", "failed", "error"),
    JobState.TIMED_OUT: Look("◷", "T", "timed out", "error"),
    JobState.OUT_OF_MEMORY: Look("▲", "M", "out of memory", "error"),
    JobState.CANCELLED: Look("□", "-", "cancelled", "muted"),
    JobState.LOST: Look("◇", "?", "lost", "error"),
}

ATTEMPT_LOOKS: Final[Mapping[AttemptState, Look]] = {
    AttemptState.ASSIGNED: JOB_LOOKS[JobState.ASSIGNED],
    AttemptState.RUNNING: JOB_LOOKS[JobState.RUNNING],
    AttemptState.SUCCEEDED: JOB_LOOKS[JobState.SUCCEEDED],
    AttemptState.FAILED: JOB_LOOKS[JobState.FAILED],
    AttemptState.TIMED_OUT: JOB_LOOKS[JobState.TIMED_OUT],
    AttemptState.OUT_OF_MEMORY: JOB_LOOKS[JobState.OUT_OF_MEMORY],
    AttemptState.CANCELLED: JOB_LOOKS[JobState.CANCELLED],
    AttemptState.BROKEN: Look("◆", "!", "broken", "warning"),
    AttemptState.REFUSED: Look("◁", "<", "refused", "warning"),
    AttemptState.RELEASED: Look("◁", "<", "released", "muted"),
    AttemptState.LOST: JOB_LOOKS[JobState.LOST],
}

WORKER_LOOKS: Final[Mapping[str, Look]] = {
    "online": Look("●", "*", "online", "success"),
    "paused": Look("□", "-", "paused", "warning"),
    "closed": Look("◑", "%", "closed", "muted"),
    "draining": Look("◌", "~", "draining", "warning"),
    "unready": Look("▲", "!", "unready", "error"),
    "offline": Look("○", ".", "offline", "muted"),
}

STATE_WORDS: Final[Mapping[str, frozenset[JobState]]] = {
    **{state.value: frozenset({state}) for state in JobState},
    "waiting": frozenset({JobState.QUEUED}),
    "active": frozenset({JobState.ASSIGNED, JobState.RUNNING, JobState.CANCELLING}),
    "ended": frozenset(state for state in JobState if state.ended),
    "bad": frozenset(
        {JobState.FAILED, JobState.TIMED_OUT, JobState.OUT_OF_MEMORY, JobState.LOST},
    ),
}
"""What may stand behind ``state:`` in a filter."""
