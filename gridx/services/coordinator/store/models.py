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
        "grid.Job", related_name="retries", null=True, source_field="retry_of"
    )

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

    class Meta:
        table = "job_payloads"


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
