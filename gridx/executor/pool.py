"""``Executor``: the standard library's interface to pools, over a grid."""

from __future__ import annotations

import collections
import concurrent.futures
import itertools
import sys
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, ParamSpec, Self, TypedDict, TypeVar, Unpack

import msgspec

from gridx import messages, safetext
from gridx.connecting import opener
from gridx.errors import InvalidField
from gridx.executor.calls import Call, InputPaths, OnOutput, pack
from gridx.executor.future import GridFuture
from gridx.executor.pickling import Pickled, pickled
from gridx.executor.results import Trust
from gridx.executor.session import Session
from gridx.messages import JobSpec, Worker

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE_S: Final = 300.0
THIS_PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"


class Options(TypedDict, total=False):
    """What a call may ask for, as in :class:`~gridx.messages.JobSpec`; ``inputs`` are paths here."""

    name: str
    cpus: float
    memory_mb: int
    gpus: int
    timeout_s: int
    priority: int
    max_attempts: int
    retries: int
    retry_delay_s: int
    runtime: str | None
    python: str | None
    env: Mapping[str, str]
    inputs: Iterable[str | Path]
    outputs: Iterable[str]


class Executor(concurrent.futures.Executor):
    """Runs functions on a grid, each call as a job.

    Args:
        coordinator: its URL; else ``GRIDX_COORDINATOR``, the configuration, or where one signed in last.
        user: whose saved sign-in is used; with ``GRIDX_PASSWORD`` none is needed.
        token: of a sign-in, in place of a saved one.
        trust: users whose machines' results may hold any object, or ``"everybody"``; see below.
        installed: modules of one's own that the runtime has, so that they go by name.
        on_output: called with the future, ``"stdout"`` or ``"stderr"``, and bytes, while calls print; a
            future has its result after the last of them. :func:`print_output` is one.
        patience_s: how long the coordinator may be away before the calls under way fail.
        options: what each call asks for, unless :meth:`with_options` says otherwise.

    A result is a pickle, and loading a pickle can run anything. From one's own machines any object is taken;
    from machines of others only data: numbers, texts, lists, dates, arrays and tables, and the classes that
    went out with the call. ``trust`` names whose machines may send more.

    Raises:
        ConfigError: it is not known where the grid is.
        InvalidField: an option has a bad value, or an input file is missing.
    """

    def __init__(
        self,
        coordinator: str | None = None,
        *,
        user: str | None = None,
        token: str | None = None,
        trust: Collection[str] | Literal["everybody"] = (),
        installed: Collection[str] = (),
        on_output: OnOutput | None = None,
        patience_s: float = PATIENCE_S,
        **options: Unpack[Options],
    ) -> None:
        if isinstance(trust, str) and trust != "everybody":
            raise InvalidField(f"trust: {trust!r} is not a list of users.", f"Write trust=[{trust!r}].")
        everybody = trust == "everybody"
        users = frozenset() if everybody else frozenset(name.casefold() for name in trust)
        self._session = Session(
            opener(coordinator, user=user, token=token),
            patience_s=patience_s,
            trust=Trust(users, everybody),
        )
        self._installed = frozenset(installed)
        self._on_output = on_output
        self._given: Options = {}
        self._job = JobSpec(code="")
        self._inputs: InputPaths | None = None
        self._take_options(options)
        self._end = weakref.finalize(self, self._session.shut, cancel=False)
        self._end.atexit = False

    def with_options(self, *, on_output: OnOutput | None = None, **options: Unpack[Options]) -> Executor:
        """A view of this executor whose calls ask for something else; a shutdown of either is one of both.

        Raises:
            InvalidField: an option has a bad value, or an input file is missing.
        """
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        view._on_output = on_output or self._on_output
        view._take_options({**self._given, **options})
        # The calls end when neither is needed any more, so a view keeps what it is a view of.
        view.__dict__["_of"] = self
        return view

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> GridFuture[T]:
        """Run ``fn(*args, **kwargs)`` on the grid.

        What cannot be pickled is a failed future, as with the standard library's process pool.

        Raises:
            RuntimeError: the executor was shut down.
        """
        future: GridFuture[T] = GridFuture(self._session)
        self._take(future, fn, lambda: (self._pickled((fn, args, kwargs)), None))
        return future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """``map(fn, *iterables)``, the calls at the same time, the results in order.

        Args:
            timeout: seconds from now, after which the next result raises TimeoutError.
            chunksize: calls in one job; more of them make short calls cheaper.
            buffersize: jobs that are submitted ahead of the results that were taken; None: all, at once.

        The first exception ends the iteration and cancels what waits.

        Raises:
            RuntimeError: the executor was shut down.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        self._session.check_open()
        end = None if timeout is None else time.monotonic() + timeout
        chunks = _chunks(zip(*iterables, strict=False), chunksize)
        # One pickle for all calls: what the function carries along is sent once.
        function: list[Pickled] = []

        def submit(chunk: list[tuple[Any, ...]]) -> GridFuture[list[T]]:
            def both() -> tuple[Pickled, Pickled]:
                if not function:
                    function.append(self._pickled(fn, apart=False))
                return self._pickled(chunk), function[0]

            future: GridFuture[list[T]] = GridFuture(self._session)
            self._take(future, fn, both)
            return future

        futures = collections.deque(map(submit, itertools.islice(chunks, buffersize)))
        return _results(futures, chunks, submit if buffersize is not None else None, end)

    def places(self) -> int:
        """How many calls like these the connected machines could run at once, if they were idle.

        Raises:
            GridError: what the coordinator said, or Unreachable.
        """
        job, me = self._job, self._session.ask(lambda grid: grid.me()).username
        return sum(_fits(job, worker, me) for worker in self._session.ask(lambda grid: grid.workers()))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; ``wait`` for the end of those there are.

        ``cancel_futures`` cancels what has not begun to run.
        """
        self._session.shut(cancel=cancel_futures)
        if wait:
            self._session.join()

    def _take(
        self,
        future: GridFuture[Any],
        fn: Callable[..., Any],
        pickles: Callable[[], tuple[Pickled, Pickled | None]],
    ) -> None:
        self._session.check_open()
        try:
            call, function = pickles()
            code, classes, parcels = pack(call, function, self._session.parcels.keep)
        except Exception as error:
            future._end(None, error)
            return
        job = self._job
        if not job.name:
            job = msgspec.structs.replace(job, name=_name(fn))
        self._session.take(
            Call(future, job, code, classes, parcels, inputs=self._inputs, on_output=self._on_output)
        )

    def _pickled(self, value: Any, *, apart: bool = True) -> Pickled:
        return pickled(value, installed=self._installed, apart=apart)

    def _take_options(self, options: Options) -> None:
        if "inputs" in options:
            options = {**options, "inputs": tuple(options["inputs"])}
        fields: dict[str, Any] = {"python": THIS_PYTHON, **options}
        unknown = set(fields) - set(Options.__annotations__)
        if unknown:
            raise TypeError(f"there is no option {', '.join(sorted(unknown))}")
        inputs = fields.pop("inputs", ())
        paths = [Path(path) for path in inputs]
        for path in paths:
            if not path.exists():
                raise InvalidField(f"inputs: there is no {path}.", "Check the path.", field="inputs")
        for name in ("outputs", "env"):
            if name in fields:
                fields[name] = dict(fields[name]) if name == "env" else list(fields[name])
        # What the coordinator would refuse is refused here, by the same rules.
        job = messages.decode(messages.encode({"code": "", **fields}), JobSpec)
        if "outputs" in fields:
            job = msgspec.structs.replace(job, outputs=[*job.outputs, "gridx-result"])
        if inputs != self._given.get("inputs", ()):
            self._inputs = InputPaths(paths) if paths else None
        self._given = options
        self._job = job

    def __reduce__(self) -> Any:
        raise TypeError("An Executor stays in its program: a call cannot have one, or use a global one.")

    def __enter__(self) -> Self:
        return self


def print_output(future: GridFuture[Any], stream: str, data: bytes) -> None:
    """An ``on_output`` that prints what calls print, made safe for a terminal."""
    file = sys.stderr if stream == "stderr" else sys.stdout
    file.write(safetext.decode(data))
    file.flush()


def _fits(job: JobSpec, worker: Worker, me: str) -> int:
    """How many of such jobs fit into a worker."""
    offer = worker.offer
    if worker.state != "online" or offer is None:
        return 0
    if worker.owner != me and (
        offer.own_jobs_only or not offer.isolated or (offer.only_users and me not in offer.only_users)
    ):
        return 0
    if not any(
        job.python in (None, runtime.python) and job.runtime in (None, runtime.name)
        for runtime in offer.runtimes
    ):
        return 0
    fits = min(offer.cpu_millis // round(job.cpus * 1000), offer.memory_mb // job.memory_mb)
    return min(fits, len(offer.gpus) // job.gpus) if job.gpus else fits


def _name(fn: Callable[..., Any]) -> str:
    name = getattr(fn, "__qualname__", None) or getattr(fn, "__name__", None) or type(fn).__name__
    return safetext.line(str(name), limit=200)


def _chunks(calls: Iterator[tuple[Any, ...]], size: int) -> Iterator[list[tuple[Any, ...]]]:
    while chunk := list(itertools.islice(calls, size)):
        yield chunk


def _results(
    futures: collections.deque[GridFuture[list[T]]],
    chunks: Iterator[list[tuple[Any, ...]]],
    submit: Callable[[list[tuple[Any, ...]]], GridFuture[list[T]]] | None,
    end: float | None,
) -> Iterator[T]:
    """Results in order; whatever ends this early cancels the rest."""
    try:
        while futures:
            left = None if end is None else end - time.monotonic()
            values = futures[0].result(left)
            futures.popleft()
            if submit is not None and (chunk := next(chunks, None)) is not None:
                futures.append(submit(chunk))
            values.reverse()
            while values:
                yield values.pop()
    finally:
        for future in futures:
            future.cancel()
