"""From a call to bytes: pickled in the caller, by value, large arrays beside the pickle.

Functions and classes of ``__main__`` and of the caller's own modules travel by value: no machine of the grid
has them. A module is one's own if its file lies neither in the standard library nor in ``site-packages``.
"""

from __future__ import annotations

import io
import pickle
import site
import sys
import sysconfig
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Final

import cloudpickle

OUT_OF_BAND_BYTES: Final = 256 << 10
"""An array of so many bytes is a file of its own: calls that share it send it once, and workers keep it."""
NO_FILE: Final = "<dynamic-code>"
NEVER_BY_VALUE: Final = frozenset({"__main__", "__mp_main__", "gridx", "cloudpickle"})
"""Top-level names: what is in ``__main__`` goes by value anyway."""


@dataclass(frozen=True, slots=True)
class Pickled:
    """A pickle and what belongs to it.

    Attributes:
        buffers: what the pickle leaves out, in order.
        classes: module and qualified name of classes that went by value and that the caller has under it.
    """

    data: bytes
    buffers: list[memoryview] = field(default_factory=list)
    classes: frozenset[tuple[str, str]] = frozenset()


def pickled(value: Any, *, installed: Collection[str] = (), apart: bool = True) -> Pickled:
    """Pickle a value for another machine.

    Args:
        installed: modules of one's own that the runtime has; they go by reference.
        apart: whether large buffers may be left out.

    Raises:
        Exception: whatever pickling raises.
    """
    file = io.BytesIO()
    pickler = _Pickler(file, apart)
    with _by_value(frozenset(installed)):
        pickler.dump(value)
    return Pickled(file.getvalue(), pickler.buffers, frozenset(pickler.classes))


class _Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]
    def __init__(self, file: io.BytesIO, apart: bool) -> None:
        super().__init__(file, protocol=5, buffer_callback=self._keep if apart else None)
        self.buffers: list[memoryview] = []
        self.classes: set[tuple[str, str]] = set()

    def _keep(self, buffer: pickle.PickleBuffer) -> bool:
        """Whether the buffer stays in the pickle."""
        try:
            raw = buffer.raw()
        except BufferError:
            return True
        if raw.nbytes < OUT_OF_BAND_BYTES:
            return True
        self.buffers.append(raw)
        return False

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, CodeType):
            # cloudpickle leaves the file's name out from 3.1.3 on; a traceback is not much use without it.
            kind, fields = self.dispatch_table[CodeType](value)
            return kind, tuple(value.co_filename if field == NO_FILE else field for field in fields)
        reduced = super().reducer_override(value)
        if reduced is not NotImplemented and isinstance(value, type):
            name = (value.__module__, value.__qualname__)
            if find(*name) is value:
                self.classes.add(name)
        return reduced


def find(module: str, name: str) -> Any:
    """What this program has under a name of a loaded module; None where it has nothing there."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


_turn = threading.Lock()


@contextmanager
def _by_value(installed: frozenset[str]) -> Iterator[None]:
    """Have one's own modules pickled by value, and nobody else's pickles changed afterwards."""
    with _turn:
        before = cloudpickle.list_registry_pickle_by_value()
        mine = [module for module in _own_modules(installed) if module.__name__ not in before]
        for module in mine:
            cloudpickle.register_pickle_by_value(module)
        try:
            yield
        finally:
            for module in mine:
                cloudpickle.unregister_pickle_by_value(module)


_latest: dict[frozenset[str], tuple[tuple[int, str], list[ModuleType]]] = {}


def _own_modules(installed: frozenset[str]) -> list[ModuleType]:
    """The modules that are loaded and the caller's own. The same list while none is loaded or dropped."""
    state = (len(sys.modules), next(reversed(sys.modules)))
    if installed in _latest and _latest[installed][0] == state:
        return _latest[installed][1]
    mine = [
        module
        for name, module in list(sys.modules.items())
        if isinstance(module, ModuleType)
        and module.__name__ == name
        and is_own(name, getattr(module, "__file__", None) or "")
        and not any(name == other or name.startswith(f"{other}.") for other in installed)
    ]
    _latest[installed] = (state, mine)
    return mine


@cache
def is_own(name: str, file: str) -> bool:
    """Whether a module is the caller's own, by its name and its file."""
    if name.partition(".")[0] in NEVER_BY_VALUE or not file.endswith(".py"):
        return False
    path = Path(file).resolve()
    if {"site-packages", "dist-packages"} & set(path.parts):
        return False
    return not any(path.is_relative_to(folder) for folder in _installed_folders())


@cache
def _installed_folders() -> tuple[Path, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = [sysconfig.get_path(name) for name in names]
    folders += [*site.getsitepackages(), site.getusersitepackages()]
    return tuple({Path(folder).resolve() for folder in folders if folder})
