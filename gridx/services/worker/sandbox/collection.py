"""What a job gives back, on the worker's side: checked and counted again, whatever its supervisor says."""

from __future__ import annotations

from typing import Final

from gridx import safetext
from gridx.errors import SandboxBroken
from gridx.messages import LeftFile, OutputFile
from gridx.services.worker.sandbox.base import RunRequest
from gridx.services.worker.sandbox.frames import FileBegins, FileData, FileEnds, Left

MAX_LEFT: Final = 100
LINE_CHARS: Final = 200


class Collection:
    """Hands the files of one attempt on to its sink, and keeps what is to be told of them."""

    def __init__(self, request: RunRequest) -> None:
        self._sink, self._caps = request.files, request.out_files
        self._wanted = bool(request.outputs)
        self._bytes = 0
        self._paths: set[str] = set()
        self._folders: set[str] = set()
        self._open: FileBegins | None = None
        self._missing = 0
        self._files: list[OutputFile] = []
        self._left: list[LeftFile] = []

    @property
    def files(self) -> tuple[OutputFile, ...]:
        """Files that came, whole."""
        return tuple(self._files)

    @property
    def left(self) -> tuple[LeftFile, ...]:
        """What stayed behind."""
        return tuple(self._left)

    async def take(self, frame: FileBegins | FileData | FileEnds | Left) -> None:
        """Take the next word of the supervisor.

        Raises:
            SandboxBroken: it passes on what it may not, or the disk is full.
        """
        if self._sink is None or not self._wanted:
            raise SandboxBroken("The sandbox's supervisor sent files that nobody wants.")
        match frame:
            case FileBegins():
                self._check(frame)
                self._open, self._missing = frame, frame.size
                await self._sink.begin(frame.path, frame.size)
            case FileData(data):
                self._missing -= len(data)
                if self._missing < 0:
                    raise SandboxBroken("The sandbox's supervisor sent more of a file than it has.")
                await self._sink.write(data)
            case FileEnds(why):
                await self._end(why)
            case Left(path, why):
                self._stays(path, why)

    async def give_up(self) -> None:
        """The stream ended; a file that was under way is not whole."""
        if self._open is not None and self._sink is not None:
            await self._sink.drop()
            self._stays(self._open.path, "the sandbox ended before it was whole")
            self._open = None

    def _check(self, file: FileBegins) -> None:
        folders = file.path.split("/")[:-1]
        above = {"/".join(folders[:count]) for count in range(1, len(folders) + 1)}
        self._bytes += file.size
        if (
            self._bytes > self._caps.total_bytes
            or len(self._paths) >= self._caps.files
            or len(folders) > self._caps.depth
            or file.path in self._paths
            or file.path in self._folders
            or not above.isdisjoint(self._paths)
        ):
            raise SandboxBroken("The sandbox's supervisor sent a file that may not come.")
        self._paths.add(file.path)
        self._folders |= above

    async def _end(self, why: str) -> None:
        assert self._sink is not None and self._open is not None
        file, self._open = self._open, None
        if why:
            await self._sink.drop()
            # Why is told by the next word.
            self._paths.discard(file.path)
            self._bytes -= file.size
            return
        if self._missing:
            raise SandboxBroken("The sandbox's supervisor sent less of a file than it has.")
        self._files.append(await self._sink.end())

    def _stays(self, path: str, why: str) -> None:
        if len(self._left) < MAX_LEFT:
            self._left.append(
                LeftFile(
                    path=safetext.line(path, limit=LINE_CHARS - 1),
                    why=safetext.line(why, limit=LINE_CHARS - 1),
                )
            )
