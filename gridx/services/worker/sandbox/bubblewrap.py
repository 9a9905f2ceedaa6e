"""Namespaces for the process sandbox, where bubblewrap is installed and works: better than nothing."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path
from typing import Final

TRY_WITHIN_S: Final = 20.0
_SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_SETTINGS: Final = (
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
    "/etc/localtime",
    "/etc/mime.types",
)
JOB_FOLDER: Final = "/job"


def command(bwrap: str, folder: Path) -> list[str]:
    """The command in front of the interpreter: no network, no processes and no files of the machine but the
    system's and the interpreter's, read-only.
    """
    arguments = [bwrap, "--unshare-all", "--die-with-parent", "--new-session", "--as-pid-1"]
    arguments += ["--uid", "65534", "--gid", "65534", "--cap-drop", "ALL", "--hostname", "sandbox"]
    for path in _SYSTEM:
        place = Path(path)
        if place.is_symlink():
            arguments += ["--symlink", str(place.readlink()), path]
        elif place.is_dir():
            arguments += ["--ro-bind", path, path]
    for path in _SETTINGS:
        arguments += ["--ro-bind-try", path, path]
    arguments += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/dev/shm"]  # noqa: S108
    # After /tmp is emptied: the interpreter may lie there.
    for prefix in dict.fromkeys((sys.base_prefix, sys.prefix, str(Path(sys.executable).parent.parent))):
        if not prefix.startswith("/usr/") and prefix not in ("/", "/usr"):
            arguments += ["--ro-bind", prefix, prefix]
    return [*arguments, "--bind", str(folder), JOB_FOLDER, "--chdir", JOB_FOLDER, "--"]


async def find(folder: Path) -> tuple[str, str]:
    """Path of a bubblewrap that works here, or an empty text and why not."""
    bwrap = shutil.which("bwrap")
    if sys.platform != "linux" or bwrap is None:
        return "", "bubblewrap is not installed"
    process = await asyncio.create_subprocess_exec(
        *command(bwrap, folder),
        *(sys.executable, "-I", "-c", "import ctypes, json"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={},
    )
    try:
        async with asyncio.timeout(TRY_WITHIN_S):
            _, said = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return "", "bubblewrap hangs here"
    if process.returncode != 0:
        lines = said.decode("utf-8", "replace").strip().splitlines() or ["it says nothing"]
        return "", f"bubblewrap does not work here: {lines[-1]}"
    return bwrap, ""
