"""Grid-X: share the machines you have.

For programs: :class:`Executor`, the standard library's interface to pools over a grid; :class:`Client`, the
whole API, async; :func:`connect`, a client that is signed in as the shell is. They are loaded when they are
first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gridx.client import Client
    from gridx.connecting import connect
    from gridx.executor import Executor
    from gridx.messages import JobSpec

__version__ = "0.1.0"

__all__ = ["Client", "Executor", "JobSpec", "__version__", "connect"]

_HOMES = {
    "Client": "gridx.client",
    "Executor": "gridx.executor",
    "JobSpec": "gridx.messages",
    "connect": "gridx.connecting",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
