"""From how a conversation with a supervisor ended to how the attempt ended, in words for the job's owner.

Pure. What is said of a job is what was measured and seen; nothing is guessed.
"""

from __future__ import annotations

import signal as signals
from dataclasses import dataclass, replace
from typing import Literal

from gridx import safetext
from gridx.errors import SandboxBroken
from gridx.messages import LeftFile, Outcome, OutputFile
from gridx.services.worker.sandbox.base import RunOutcome, RunRequest
from gridx.services.worker.sandbox.frames import End, Usage
from gridx.services.worker.sandbox.supervisor import flood_limit

How = Literal["ended", "timed_out", "cancelled", "vanished"]


@dataclass(slots=True)
class Ending:
    """How a conversation ended and what was measured. ``vanished``: the stream ended without a word."""

    how: How
    end: End | None
    usage: Usage | None
    wall_ms: int
    began: bool
    not_begun: str = ""
    """Why the job's files could not be written."""
    files: tuple[OutputFile, ...] = ()
    left: tuple[LeftFile, ...] = ()


def megabytes(count: int) -> str:
    """Bytes for a person."""
    return f"{count / (1 << 20):.0f} MiB" if count >= 10 << 20 else f"{count / (1 << 20):.1f} MiB"


def signal_name(number: int) -> str:
    """``SIGSEGV (segmentation fault)``."""
    try:
        name = signals.Signals(number).name
    except ValueError:
        return f"signal {number}"
    text = signals.strsignal(number)
    return f"{name} ({text.lower()})" if text else name


def out_of_memory(request: RunRequest, ending: Ending) -> RunOutcome:
    """The attempt needed more memory than it has. Where nobody is left to say its peak, that is the limit."""
    peak = (ending.end.peak if ending.end else 0) or request.memory_mb << 20
    judged = outcome(
        ending,
        "out_of_memory",
        f"It needed more than its {request.memory_mb} MiB of memory; its peak was {megabytes(peak)}.",
    )
    return replace(judged, peak_memory_bytes=peak)


def outcome(ending: Ending, kind: Outcome, reason: str = "") -> RunOutcome:
    """An outcome with what was measured."""
    measured = ending.end or ending.usage
    own = ending.end if kind in ("succeeded", "failed", "out_of_memory") else None
    return RunOutcome(
        kind,
        exit_code=own.exit_code if own else None,
        signal=own.signal if own else None,
        reason=reason,
        wall_ms=ending.wall_ms,
        cpu_ms=measured.cpu_ms if measured else None,
        peak_memory_bytes=measured.peak if measured else None,
        files=ending.files if kind != "cancelled" else (),
        left=ending.left if kind != "cancelled" else (),
    )


def judge(request: RunRequest, ending: Ending) -> RunOutcome:
    """The outcome of a conversation that did not vanish."""
    if ending.how == "cancelled":
        return outcome(ending, "cancelled")
    if ending.how == "timed_out":
        return outcome(ending, "timed_out", f"It ran longer than its {request.timeout_s} s.")
    if ending.not_begun:
        why = safetext.line(ending.not_begun)
        return outcome(
            ending,
            "failed",
            f"Its input files could not be put into its folder: {why}. More memory_mb makes more room.",
        )
    end = ending.end
    if end is None:
        raise SandboxBroken("The sandbox ended without a word.")
    if end.flooded:
        limit = megabytes(flood_limit(request.output_cap_bytes))
        return outcome(ending, "failed", f"It wrote more than {limit} to {end.flooded} and was ended.")
    if end.broke == "memory":
        return out_of_memory(request, ending)
    if end.broke == "pids":
        return outcome(ending, "failed", f"It had more than {request.pids} processes and was ended.")
    if end.exit_code == 0:
        return outcome(ending, "succeeded")
    if end.oom_kills or (end.memory_error and (end.exit_code == 1 or end.signal == signals.SIGABRT)):
        return out_of_memory(request, ending)
    if end.signal is not None:
        return outcome(ending, "failed", f"It was ended by {signal_name(end.signal)}.")
    if end.exit_code is not None:
        return outcome(ending, "failed", f"It ended with exit code {end.exit_code}.")
    raise SandboxBroken("The sandbox's supervisor does not know how the job ended.")
