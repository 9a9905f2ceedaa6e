"""The tables as Tortoise models: what the reads are written in.

The SQL in ``migrations/`` makes the tables, because the ledger rests on CHECK constraints, partial indexes
and triggers that no ORM's generator writes. A test compares both. Nothing is written through the models.
"""

from __future__ import annotations

from tortoise import fields
from tortoise.models import Model

# Tortoise's fields are descriptors whose types a checker sees through ``Field[T]``; foreign keys are declared
# by name because of the circle between jobs and attempts.


class User(Model):
    """Who has an account."""

    id = fields.BigIntField(primary_key=True)
    username = fields.CharField(64, unique=True)
    role = fields.TextField()
    password_hash = fields.TextField()
    disabled = fields.BooleanField(default=False)
    created_at = fields.BigIntField()

    class Meta:
        table = "users"


class Token(Model):
    """A sign-in; of the secret only the SHA-256."""

    id = fields.BigIntField(primary_key=True)
    user: fields.ForeignKeyRelation[User] = fields.ForeignKeyField("grid.User", related_name="tokens")
    digest = fields.BinaryField()
    label = fields.TextField()
    created_at = fields.BigIntField()
    expires_at = fields.BigIntField()
    last_used_at = fields.BigIntField(null=True)

    class Meta:
        table = "tokens"


class Worker(Model):
    """A machine that has joined, by its owner and identity."""

    id = fields.BigIntField(primary_key=True)
    user: fields.ForeignKeyRelation[User] = fields.ForeignKeyField("grid.User", related_name="workers")
    identity = fields.TextField()
    name = fields.TextField()
    version = fields.TextField()
    joined_at = fields.BigIntField()
    paused = fields.BooleanField(default=False)
    earned = fields.BigIntField(default=0)

    class Meta:
        table = "workers"
        unique_together = (("user", "identity"),)


class Job(Model):
    """A job without its payload; ``attempt`` is the current one, or the last."""

    id = fields.BigIntField(primary_key=True)
    user: fields.ForeignKeyRelation[User] = fields.ForeignKeyField("grid.User", related_name="jobs")
    state = fields.TextField()
    reason = fields.TextField(default="")
    language = fields.TextField()
    name = fields.TextField()
    cpu_millis = fields.BigIntField()
    memory_mb = fields.BigIntField()
    gpus = fields.BigIntField()
    timeout_s = fields.BigIntField()
    priority = fields.BigIntField()
    max_attempts = fields.BigIntField()
    runtime = fields.TextField(null=True)
    python = fields.TextField(null=True)
    core_hour = fields.BigIntField()
    gib_hour = fields.BigIntField()
    gpu_hour = fields.BigIntField()
    fee_ppm = fields.BigIntField()
    hold = fields.BigIntField()
    charge = fields.BigIntField(default=0)
    attempts = fields.BigIntField(default=0)
    faults = fields.BigIntField(default=0)
    attempt: fields.ForeignKeyNullableRelation[Attempt] = fields.ForeignKeyField(
        "grid.Attempt", related_name="job_of_last", null=True
    )
    worker: fields.ForeignKeyNullableRelation[Worker] = fields.ForeignKeyField(
        "grid.Worker", related_name="jobs", null=True
    )
    created_at = fields.BigIntField()
    started_at = fields.BigIntField(null=True)
    ended_at = fields.BigIntField(null=True)
    exit_code = fields.BigIntField(null=True)
    signal = fields.BigIntField(null=True)
    peak_memory_bytes = fields.BigIntField(null=True)
    retry_of: fields.ForeignKeyNullableRelation[Job] = fields.ForeignKeyField(
        "grid.Job", related_name="retried_as", null=True, source_field="retry_of"
    )
    array: fields.ForeignKeyNullableRelation[Array] = fields.ForeignKeyField(
        "grid.Array", related_name="elements", null=True
    )
    array_index = fields.BigIntField(null=True)
    retries = fields.BigIntField(default=0)
    retry_delay_s = fields.BigIntField(default=0)
    failures = fields.BigIntField(default=0)
    not_before = fields.BigIntField(null=True)
    files = fields.BigIntField(default=0)
    file_bytes = fields.BigIntField(default=0)

    class Meta:
        table = "jobs"


class JobPayload(Model):
    """The program, its arguments and environment (JSON), apart from what listings read."""

    job: fields.OneToOneRelation[Job] = fields.OneToOneField(
        "grid.Job", related_name="payload", primary_key=True
    )
    code = fields.TextField()
    args = fields.TextField()
    env = fields.TextField()
    inputs = fields.TextField(default="[]")
    outputs = fields.TextField(default='["*"]')

    class Meta:
        table = "job_payloads"


class Array(Model):
    """Many jobs of one submission: where they are, and what is held for all of them."""

    id = fields.BigIntField(primary_key=True, generated=False)
    user: fields.ForeignKeyRelation[User] = fields.ForeignKeyField("grid.User", related_name="arrays")
    name = fields.TextField()
    count = fields.BigIntField()
    first_index = fields.BigIntField()
    total_count = fields.BigIntField()
    max_fails = fields.BigIntField(null=True)
    max_credits = fields.BigIntField(null=True)
    unit = fields.BigIntField()
    hold = fields.BigIntField()
    held = fields.BigIntField()
    charge = fields.BigIntField(default=0)
    open_charge = fields.BigIntField(default=0)
    running_charge = fields.BigIntField(default=0)
    queued = fields.BigIntField()
    running = fields.BigIntField(default=0)
    succeeded = fields.BigIntField(default=0)
    failed = fields.BigIntField(default=0)
    cancelled = fields.BigIntField(default=0)
    state = fields.TextField()
    reason = fields.TextField(default="")
    stop = fields.TextField(default="")
    changes = fields.BigIntField(default=0)
    created_at = fields.BigIntField()
    started_at = fields.BigIntField(null=True)
    ended_at = fields.BigIntField(null=True)
    retry_of: fields.ForeignKeyNullableRelation[Array] = fields.ForeignKeyField(
        "grid.Array", related_name="retried_as", null=True, source_field="retry_of"
    )

    class Meta:
        table = "arrays"


class ArrayPayload(Model):
    """What an array's elements share: the program, and as JSON what goes with it."""

    array: fields.OneToOneRelation[Array] = fields.OneToOneField(
        "grid.Array", related_name="payload", primary_key=True
    )
    code = fields.TextField()
    args = fields.TextField()
    env = fields.TextField()
    inputs = fields.TextField(default="[]")
    outputs = fields.TextField(default='["*"]')

    class Meta:
        table = "array_payloads"


class ArrayElement(Model):
    """What an element has of its own: arguments and inputs, as JSON."""

    id = fields.BigIntField(primary_key=True)
    array: fields.ForeignKeyRelation[Array] = fields.ForeignKeyField("grid.Array", related_name="own_parts")
    position = fields.BigIntField()
    args = fields.TextField()
    inputs = fields.TextField(default="[]")

    class Meta:
        table = "array_elements"
        unique_together = (("array", "position"),)


class Dependency(Model):
    """A job or array that waits for another; both by number, of a job or of an array."""

    id = fields.BigIntField(primary_key=True)
    job_id = fields.BigIntField()
    parent_id = fields.BigIntField()
    needs = fields.TextField()
    met = fields.BooleanField()

    class Meta:
        table = "dependencies"
        unique_together = (("job_id", "parent_id"),)


class Attempt(Model):
    """One execution of a job on one worker; ``gpus`` is a JSON list of UUIDs."""

    id = fields.BigIntField(primary_key=True)
    job: fields.ForeignKeyRelation[Job] = fields.ForeignKeyField("grid.Job", related_name="all_attempts")
    number = fields.BigIntField()
    worker: fields.ForeignKeyRelation[Worker] = fields.ForeignKeyField("grid.Worker", related_name="attempts")
    state = fields.TextField()
    gpus = fields.TextField()
    runtime = fields.TextField()
    assigned_at = fields.BigIntField()
    assigned_mono_ms = fields.BigIntField()
    boot_id = fields.TextField()
    started_at = fields.BigIntField(null=True)
    ended_at = fields.BigIntField(null=True)
    reason = fields.TextField(default="")
    fault = fields.BooleanField(default=False)
    charged_ms = fields.BigIntField(default=0)
    charge = fields.BigIntField(default=0)
    fee = fields.BigIntField(default=0)
    stdout_bytes = fields.BigIntField(default=0)
    stderr_bytes = fields.BigIntField(default=0)
    pruned_at = fields.BigIntField(null=True)

    class Meta:
        table = "attempts"
        unique_together = (("job", "number"),)


class OutputChunk(Model):
    """A piece of one stream; ``stream`` is 1 for stdout and 2 for stderr."""

    id = fields.BigIntField(primary_key=True)
    attempt: fields.ForeignKeyRelation[Attempt] = fields.ForeignKeyField(
        "grid.Attempt", related_name="chunks"
    )
    stream = fields.IntField()
    offset = fields.BigIntField()
    data = fields.BinaryField()

    class Meta:
        table = "output_chunks"
        unique_together = (("attempt", "stream", "offset"),)


class Account(Model):
    """A user's account, or one of the house's: mint, escrow, treasury."""

    id = fields.BigIntField(primary_key=True)
    kind = fields.TextField()
    user: fields.OneToOneNullableRelation[User] = fields.OneToOneField(
        "grid.User", related_name="account", null=True
    )
    balance = fields.BigIntField(default=0)
    held = fields.BigIntField(default=0)
    earned = fields.BigIntField(default=0)
    spent = fields.BigIntField(default=0)
    waiting = fields.BigIntField(default=0)

    class Meta:
        table = "accounts"


class Transaction(Model):
    """What moved credits, and why; its postings sum to zero."""

    id = fields.BigIntField(primary_key=True)
    kind = fields.TextField()
    job: fields.ForeignKeyNullableRelation[Job] = fields.ForeignKeyField(
        "grid.Job", related_name="transactions", null=True
    )
    attempt: fields.ForeignKeyNullableRelation[Attempt] = fields.ForeignKeyField(
        "grid.Attempt", related_name="transactions", null=True
    )
    array: fields.ForeignKeyNullableRelation[Array] = fields.ForeignKeyField(
        "grid.Array", related_name="transactions", null=True
    )
    note = fields.TextField(default="")
    at = fields.BigIntField()

    class Meta:
        table = "transactions"


class Posting(Model):
    """What one transaction did to one account."""

    id = fields.BigIntField(primary_key=True)
    transaction: fields.ForeignKeyRelation[Transaction] = fields.ForeignKeyField(
        "grid.Transaction", related_name="postings"
    )
    account: fields.ForeignKeyRelation[Account] = fields.ForeignKeyField(
        "grid.Account", related_name="postings"
    )
    amount = fields.BigIntField()

    class Meta:
        table = "postings"
        unique_together = (("transaction", "account"),)


class IdempotencyKey(Model):
    """A request that was answered, so that its repeat gets the same answer."""

    id = fields.BigIntField(primary_key=True)
    user: fields.ForeignKeyRelation[User] = fields.ForeignKeyField("grid.User", related_name="keys")
    kind = fields.TextField()
    key = fields.TextField()
    digest = fields.BinaryField()
    result = fields.TextField()
    created_at = fields.BigIntField()

    class Meta:
        table = "idempotency_keys"
        unique_together = (("user", "kind", "key"),)


class Blob(Model):
    """The content of a file, by its SHA-256."""

    id = fields.BigIntField(primary_key=True)
    digest = fields.BinaryField()
    size = fields.BigIntField()
    created_at = fields.BigIntField()

    class Meta:
        table = "blobs"


class Upload(Model):
    """A blob that a user has sent, and may use."""

    id = fields.BigIntField(primary_key=True)
    user: fields.ForeignKeyRelation[User] = fields.ForeignKeyField("grid.User", related_name="uploads")
    blob: fields.ForeignKeyRelation[Blob] = fields.ForeignKeyField("grid.Blob", related_name="uploads")
    used_at = fields.BigIntField()

    class Meta:
        table = "uploads"
        unique_together = (("user", "blob"),)


class InputUse(Model):
    """A blob that a job or an array, by number, is given."""

    id = fields.BigIntField(primary_key=True)
    job_id = fields.BigIntField()
    blob: fields.ForeignKeyRelation[Blob] = fields.ForeignKeyField("grid.Blob", related_name="uses")

    class Meta:
        table = "input_uses"
        unique_together = (("job_id", "blob"),)


class SentBlob(Model):
    """A blob that a worker has sent for an attempt whose end has not been told yet."""

    id = fields.BigIntField(primary_key=True)
    attempt: fields.ForeignKeyRelation[Attempt] = fields.ForeignKeyField(
        "grid.Attempt", related_name="sent_blobs"
    )
    blob: fields.ForeignKeyRelation[Blob] = fields.ForeignKeyField("grid.Blob", related_name="sent_for")

    class Meta:
        table = "sent_blobs"
        unique_together = (("attempt", "blob"),)


class OutputFile(Model):
    """A file that an attempt gave back."""

    id = fields.BigIntField(primary_key=True)
    attempt: fields.ForeignKeyRelation[Attempt] = fields.ForeignKeyField("grid.Attempt", related_name="files")
    path = fields.TextField()
    blob: fields.ForeignKeyRelation[Blob] = fields.ForeignKeyField("grid.Blob", related_name="outputs")

    class Meta:
        table = "output_files"
        unique_together = (("attempt", "path"),)


class LeftFile(Model):
    """Something in ``out/`` that did not come back, and why."""

    id = fields.BigIntField(primary_key=True)
    attempt: fields.ForeignKeyRelation[Attempt] = fields.ForeignKeyField(
        "grid.Attempt", related_name="left_files"
    )
    path = fields.TextField()
    why = fields.TextField()

    class Meta:
        table = "left_files"


class FilesTaken(Model):
    """What one user's files take: uploads, and what jobs gave back."""

    id = fields.BigIntField(primary_key=True)
    user: fields.OneToOneRelation[User] = fields.OneToOneField("grid.User", related_name="files_taken")
    inputs = fields.BigIntField(default=0)
    input_bytes = fields.BigIntField(default=0)
    outputs = fields.BigIntField(default=0)
    output_bytes = fields.BigIntField(default=0)

    class Meta:
        table = "file_usage"
