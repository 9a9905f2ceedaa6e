"""From what a user wrote to a job that can be accepted: checks that need the fleet, and the price."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from msgspec.structs import replace

from gridx import filepaths, safetext
from gridx.errors import Forbidden, InvalidField, TooLarge, TooMany
from gridx.messages import MAX_CODE_BYTES, ArraySpec, InputFile, JobSpec, PriceLine
from gridx.services.coordinator import ledger
from gridx.services.coordinator.ledger import Prices
from gridx.services.coordinator.scheduler import Need
from gridx.services.coordinator.store.records import (
    ArrayRecord,
    JobRecord,
    NewArray,
    NewJob,
    Payload,
    UserRecord,
)


def check(spec: JobSpec, user: UserRecord, languages: Collection[str], max_array: int) -> None:
    """Refuse what could not be run for this user whatever the fleet becomes.

    Raises:
        Forbidden: it is submitted in another's name.
        TooLarge: the program is over the cap.
        InvalidField: no worker knows the language; inputs are in each other's way; an array says not once how
            many elements it has.
        TooMany: it has more of them than ``max_array``.
    """
    if spec.user_id is not None and spec.user_id not in (user.id, user.username):
        raise Forbidden(
            "user_id: jobs are submitted in one's own name only.",
            f"Leave user_id out, or set it to {user.username!r}.",
            field="user_id",
        )
    size = len(spec.code.encode())
    if size > MAX_CODE_BYTES:
        raise TooLarge(
            f"code: the program has {size:,} bytes, and {MAX_CODE_BYTES:,} are allowed.",
            "Let it read its data from elsewhere, or compute it.",
            field="code",
        )
    node = spec.language == "javascript"
    if spec.language not in languages:
        raise InvalidField(
            f"language: no worker of the fleet knows {spec.language}.",
            f"The fleet offers {', '.join(sorted(languages))}."
            + (" A worker's owner adds it with: gridx runtime build --node" if node else ""),
            field="language",
        )
    if spec.array is not None:
        _check_array(spec.array, max_array)
    _check_paths(spec)


def _check_array(array: ArraySpec, most: int) -> None:
    counts = [one for one in (array.count, array.args, array.inputs) if one is not None]
    if len(counts) != 1:
        raise InvalidField(
            "array: exactly one of count, args and inputs says how many elements there are.",
            "Give one of them; what all elements share goes into the job's own args and inputs.",
            field="array",
        )
    count = _count(array)
    if count > most:
        raise TooMany(
            f"array: it has {count:,} elements, and {most:,} are allowed.",
            "Let one element do the work of several, or submit several arrays.",
            limit=most,
        )


def _count(array: ArraySpec) -> int:
    return array.count or len(array.args or array.inputs or ())


def _check_paths(spec: JobSpec) -> None:
    """Refuse inputs that cannot lie beside each other in a job's folder."""
    shared = filepaths.Folder()
    _check_list(shared, spec.inputs, "inputs")
    for position, own in enumerate((spec.array and spec.array.inputs) or ()):
        _check_list(filepaths.Folder(shared), own, f"array.inputs[{position}]")


def _check_list(folder: filepaths.Folder, inputs: Sequence[InputFile], name: str) -> None:
    if (found := folder.put_all(one.path for one in inputs)) is not None:
        number, why = found
        field = f"{name}[{number}].path"
        path = safetext.name(inputs[number].path)
        raise InvalidField(f"{field}: {path} {why}.", "Give it another path.", field=field)


def cpu_millis(spec: JobSpec) -> int:
    """Thousandths of a core."""
    return round(spec.cpus * 1000)


def need(spec: JobSpec) -> Need:
    """What the job would ask of a machine."""
    return Need(cpu_millis(spec), spec.memory_mb, spec.gpus, spec.language, spec.runtime, spec.python)


def priced(spec: JobSpec, prices: Prices) -> NewJob:
    """The job with what is set aside for it."""
    millis = cpu_millis(spec)
    return NewJob(
        code=spec.code,
        language=spec.language,
        name=spec.name,
        args=spec.args,
        env=spec.env,
        cpu_millis=millis,
        memory_mb=spec.memory_mb,
        gpus=spec.gpus,
        timeout_s=spec.timeout_s,
        priority=spec.priority,
        max_attempts=spec.max_attempts,
        runtime=spec.runtime,
        python=spec.python,
        prices=prices,
        hold=ledger.hold(prices, millis, spec.memory_mb, spec.gpus, spec.timeout_s, spec.retries),
        inputs=spec.inputs,
        outputs=spec.outputs,
        retries=spec.retries,
        retry_delay_s=spec.retry_delay_s,
        after=spec.after,
        array=None if spec.array is None else _array(spec.array),
    )


def _array(spec: ArraySpec) -> NewArray:
    count = _count(spec)
    return NewArray(
        indices=range(spec.first, spec.first + count),
        total_count=count,
        args=spec.args,
        inputs=spec.inputs,
        max_fails=spec.max_fails,
        max_credits=spec.max_credits,
    )


def shared(job: NewJob) -> Payload:
    """What a worker needs of it; of an array, what its elements have in common."""
    count = None if job.array is None else job.array.total_count
    return Payload(job.code, job.args, job.env, list(job.inputs), list(job.outputs), count)


def again(job: JobRecord, payload: Payload, prices: Prices) -> NewJob:
    """The same job once more, at today's prices."""
    return NewJob(
        code=payload.code,
        language=job.language,
        name=job.name,
        args=payload.args,
        env=payload.env,
        cpu_millis=job.cpu_millis,
        memory_mb=job.memory_mb,
        gpus=job.gpus,
        timeout_s=job.timeout_s,
        priority=job.priority,
        max_attempts=job.max_attempts,
        runtime=job.runtime,
        python=job.python,
        prices=prices,
        hold=ledger.hold(prices, job.cpu_millis, job.memory_mb, job.gpus, job.timeout_s, job.retries),
        retry_of=job.id,
        inputs=payload.inputs,
        outputs=payload.outputs,
        retries=job.retries,
        retry_delay_s=job.retry_delay_s,
    )


def array_again(
    array: ArrayRecord,
    payload: Payload,
    failed: Sequence[JobRecord],
    own: Mapping[int, Payload],
    prices: Prices,
) -> NewJob:
    """Elements that did not succeed once more, as an array of their own with the indices that they had.

    Args:
        payload: what the elements share.
        own: by element, what it is given in all.
    """
    args = [own[job.id].args[len(payload.args) :] for job in failed]
    inputs = [own[job.id].inputs[len(payload.inputs) :] for job in failed]
    new = NewArray(
        indices=[job.array_index or 0 for job in failed],
        total_count=array.total_count,
        # Names of an element's inputs are arguments of its own anyway.
        args=[mine[: len(mine) - len(files)] for mine, files in zip(args, inputs, strict=True)]
        if any(args) or any(inputs)
        else None,
        inputs=inputs if any(inputs) else None,
        max_fails=array.max_fails,
        max_credits=None if array.max_credits is None else max(array.max_credits, array.unit),
        retry_of=array.id,
        retried=[job.id for job in failed],
    )
    return replace(again(array.model, payload, prices), retry_of=None, array=new)


def price_lines(new: NewJob) -> list[PriceLine]:
    """What the whole timeout of every run comes to, by resource."""
    one = ledger.lines(new.prices, new.cpu_millis, new.memory_mb, new.gpus, new.timeout_s * 1000)
    runs = (1 + new.retries) * (1 if new.array is None else len(new.array.indices))
    return [replace(line, amount=line.amount * runs) for line in one]
