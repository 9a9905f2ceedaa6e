"""``gridx-tui`` that kills itself, as a power cut would, at a point of its work that a test names.

The point is what is written in the file that ``GRIDX_TEST_FAILPOINT`` names, so that a test can say it while
the process runs. The file is removed first: the next process lives.

``submit before commit``
    The operation has run in the writer's transaction, which is not committed. So for assign, finish, ...
``submit after commit``
    It is committed, and nobody has been answered.
``file in place``
    A file that was uploaded has its place on the disk, and its row was not written.
``result on disk``
    A worker has an attempt's result in its spool and has told nobody.
``program TEXT``
    A worker's attempt begins whose program contains the text.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from pathlib import Path


def at(point: str) -> None:
    """End here if the test wants it."""
    control = Path(os.environ["GRIDX_TEST_FAILPOINT"])
    try:
        wanted = control.read_text()
    except FileNotFoundError:
        return
    if wanted == point:
        control.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def coordinator() -> None:
    """Points of the writer."""
    from gridx.services.coordinator.blobs import Partial
    from gridx.services.coordinator.store import attempts, blobs, ends, files, submit
    from gridx.services.coordinator.store.writer import Writer

    run: set[str] = set()

    def watch(module, name: str) -> None:
        original = getattr(module, name)

        @functools.wraps(original)
        def watched(*args):
            value = original(*args)
            at(f"{name} before commit")
            run.add(name)
            return value

        setattr(module, name, watched)

    for module, name in (
        (submit, "submit"),
        (attempts, "assign"),
        (attempts, "start"),
        (ends, "finish"),
        (ends, "cancel"),
        (ends, "requeue"),
        (blobs, "add_upload"),
        (blobs, "forget_blobs"),
        (files, "add_sent"),
    ):
        watch(module, name)
    transaction = Writer._transaction

    def committed(self, batch):
        run.clear()
        outcomes = transaction(self, batch)
        for name in run:
            at(f"{name} after commit")
        return outcomes

    Writer._transaction = committed
    move = Partial.move

    def placed(self, target):
        move(self, target)
        at("file in place")

    Partial.move = placed


def worker() -> None:
    """Points of an attempt."""
    from gridx.services.worker.attempt import Attempt
    from gridx.services.worker.spool import Entry

    end, started = Entry.end, Attempt._started

    def on_disk(self, result):
        end(self, result)
        at("result on disk")

    async def begun(self):
        await started(self)
        for word in self.assignment.code.split():
            at(f"program {word}")

    Entry.end, Attempt._started = on_disk, begun


if __name__ == "__main__":
    (worker if "worker" in sys.argv else coordinator)()
    from gridx.cli import main

    main()
