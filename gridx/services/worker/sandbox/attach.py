"""The byte streams of a container: one connection to the engine, read in a thread with a bounded queue.

The engine sends stdout and stderr interleaved: eight bytes of header (stream, length), then the bytes. The
thread takes them apart and stops reading when the event loop does not keep up: a flood stays inside.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import deque
from typing import Any, Final

from gridx import safetext

CHUNK: Final = 1 << 16
QUEUED_CHUNKS: Final = 4
SEND_WITHIN_S: Final = 30.0
LAST_WORDS: Final = 4096
STDOUT: Final = 1
_NO_WAIT: Final = getattr(socket, "MSG_DONTWAIT", 0)


class AttachedChannel:
    """A container's stdin and stdout, over a socket that the engine has handed over.

    Args:
        attached: what the SDK's ``attach_socket`` returned; closed with the channel.
    """

    def __init__(self, attached: Any) -> None:
        self._attached = attached
        # The SDK wraps plain sockets in a SocketIO; TLS and pipes come as they are.
        self._socket: Any = getattr(attached, "_sock", attached)
        if hasattr(self._socket, "settimeout"):
            self._socket.settimeout(None)
        self._loop = asyncio.get_running_loop()
        self._room = threading.Semaphore(QUEUED_CHUNKS)
        self._queue: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._words = b""
        self._closed = False
        self.ended = False
        """Whether the container's output is over; what is queued can still be received."""
        self._thread = threading.Thread(target=self._read, name="sandbox output", daemon=True)
        self._thread.start()

    async def send(self, data: bytes) -> None:
        if _NO_WAIT and type(self._socket) is socket.socket:
            # What fits into the kernel's buffer, as nearly every job does, needs no thread.
            with contextlib.suppress(BlockingIOError):
                data = data[self._socket.send(data, _NO_WAIT) :]
        if data:
            async with asyncio.timeout(SEND_WITHIN_S):
                await asyncio.to_thread(self._socket.sendall, data)

    async def receive(self) -> bytes:
        while not self._queue:
            if self.ended:
                return b""
            self._arrived.clear()
            await self._arrived.wait()
        data = self._queue.popleft()
        self._room.release()
        return data

    async def end_input(self) -> None:
        # A pipe of Windows or a connection under TLS has no half that could be closed; the kill comes later.
        with contextlib.suppress(OSError, AttributeError, ValueError):
            if isinstance(self._socket, socket.socket):
                self._socket.shutdown(socket.SHUT_WR)

    def last_words(self) -> str:
        return safetext.line(self._words.decode("utf-8", "replace")[-400:], limit=400)

    def close(self) -> None:
        """End both directions; the thread ends by itself."""
        self._closed = True
        self._room.release()
        with contextlib.suppress(OSError, AttributeError, ValueError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError, AttributeError, ValueError):
            self._attached.close()

    def _read(self) -> None:
        header = b""
        left, stream = 0, 0
        try:
            while not self._closed:
                self._room.acquire()
                data = self._receive(CHUNK)
                if not data or self._closed:
                    break
                out = bytearray()
                while data:
                    if left == 0:
                        take = 8 - len(header)
                        header, data = header + data[:take], data[take:]
                        if len(header) == 8:
                            stream, left = header[0], int.from_bytes(header[4:])
                            header = b""
                        continue
                    part, data = data[:left], data[left:]
                    left -= len(part)
                    if stream == STDOUT:
                        out += part
                    else:
                        self._words = (self._words + part)[-LAST_WORDS:]
                if out:
                    self._tell(bytes(out))
                else:
                    self._room.release()
        except (OSError, ValueError):
            # The connection broke; to whoever receives that is the end.
            pass
        finally:
            self._tell(None)

    def _receive(self, count: int) -> bytes:
        data: bytes = self._socket.recv(count)
        return data

    def _tell(self, data: bytes | None) -> None:
        # A loop that is closed has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._deliver, data)

    def _deliver(self, data: bytes | None) -> None:
        if data is None:
            self.ended = True
        else:
            self._queue.append(data)
        self._arrived.set()
