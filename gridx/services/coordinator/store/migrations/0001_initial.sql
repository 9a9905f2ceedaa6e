-- Times are microseconds since 1970 in UTC. Amounts are microcredits. States are the words of gridx.messages.

CREATE TABLE users (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    username      TEXT    NOT NULL COLLATE NOCASE UNIQUE,
    role          TEXT    NOT NULL CHECK (role IN ('user', 'admin')),
    password_hash TEXT    NOT NULL,
    disabled      INTEGER NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1)),
    created_at    INTEGER NOT NULL
);

CREATE TABLE tokens (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id      INTEGER NOT NULL REFERENCES users (id),
    digest       BLOB    NOT NULL UNIQUE,
    label        TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    last_used_at INTEGER
);
CREATE INDEX tokens_by_user ON tokens (user_id);
CREATE INDEX tokens_by_expiry ON tokens (expires_at);

CREATE TABLE workers (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id   INTEGER NOT NULL REFERENCES users (id),
    identity  TEXT    NOT NULL,
    name      TEXT    NOT NULL,
    version   TEXT    NOT NULL,
    joined_at INTEGER NOT NULL,
    paused    INTEGER NOT NULL DEFAULT 0 CHECK (paused IN (0, 1)),
    earned    INTEGER NOT NULL DEFAULT 0 CHECK (typeof(earned) = 'integer' AND earned >= 0),
    UNIQUE (user_id, identity)
);

-- attempt_id is the current attempt while the job is assigned, running or cancelling, and the last one after.
CREATE TABLE jobs (
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id           INTEGER NOT NULL REFERENCES users (id),
    state             TEXT    NOT NULL CHECK (state IN ('queued', 'assigned', 'running', 'cancelling', 'succeeded',
                              'failed', 'timed_out', 'out_of_memory', 'cancelled', 'lost')),
    reason            TEXT    NOT NULL DEFAULT '',
    language          TEXT    NOT NULL,
    name              TEXT    NOT NULL,
    cpu_millis        INTEGER NOT NULL,
    memory_mb         INTEGER NOT NULL,
    gpus              INTEGER NOT NULL,
    timeout_s         INTEGER NOT NULL,
    priority          INTEGER NOT NULL,
    max_attempts      INTEGER NOT NULL CHECK (max_attempts >= 1),
    runtime           TEXT,
    python            TEXT,
    core_hour         INTEGER NOT NULL,
    gib_hour          INTEGER NOT NULL,
    gpu_hour          INTEGER NOT NULL,
    fee_ppm           INTEGER NOT NULL,
    hold              INTEGER NOT NULL CHECK (typeof(hold) = 'integer' AND hold >= 0),
    charge            INTEGER NOT NULL DEFAULT 0 CHECK (typeof(charge) = 'integer' AND charge BETWEEN 0 AND hold),
    attempts          INTEGER NOT NULL DEFAULT 0,
    faults            INTEGER NOT NULL DEFAULT 0 CHECK (faults BETWEEN 0 AND attempts),
    attempt_id        INTEGER REFERENCES attempts (id),
    worker_id         INTEGER REFERENCES workers (id),
    created_at        INTEGER NOT NULL,
    started_at        INTEGER,
    ended_at          INTEGER,
    exit_code         INTEGER,
    signal            INTEGER,
    peak_memory_bytes INTEGER,
    retry_of          INTEGER REFERENCES jobs (id),
    CHECK ((ended_at IS NULL) = (state IN ('queued', 'assigned', 'running', 'cancelling'))),
    CHECK (attempt_id IS NOT NULL OR state NOT IN ('assigned', 'running', 'cancelling')),
    CHECK (charge = 0 OR ended_at IS NOT NULL)
);
CREATE INDEX jobs_by_user ON jobs (user_id);
CREATE INDEX jobs_by_user_and_state ON jobs (user_id, state);
CREATE INDEX jobs_by_state ON jobs (state);
CREATE INDEX jobs_by_end ON jobs (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE job_payloads (
    job_id INTEGER PRIMARY KEY REFERENCES jobs (id),
    code   TEXT    NOT NULL,
    args   TEXT    NOT NULL,
    env    TEXT    NOT NULL
);

CREATE TABLE attempts (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id          INTEGER NOT NULL REFERENCES jobs (id),
    number          INTEGER NOT NULL,
    worker_id       INTEGER NOT NULL REFERENCES workers (id),
    state           TEXT    NOT NULL CHECK (state IN ('assigned', 'running', 'succeeded', 'failed', 'timed_out',
                            'out_of_memory', 'cancelled', 'broken', 'refused', 'released', 'lost')),
    gpus            TEXT    NOT NULL,
    runtime         TEXT    NOT NULL,
    assigned_at     INTEGER NOT NULL,
    assigned_mono_ms INTEGER NOT NULL,
    boot_id         TEXT    NOT NULL,
    started_at      INTEGER,
    ended_at        INTEGER,
    reason          TEXT    NOT NULL DEFAULT '',
    fault           INTEGER NOT NULL DEFAULT 0 CHECK (fault IN (0, 1)),
    charged_ms      INTEGER NOT NULL DEFAULT 0 CHECK (charged_ms >= 0),
    charge          INTEGER NOT NULL DEFAULT 0 CHECK (typeof(charge) = 'integer' AND charge >= 0),
    fee             INTEGER NOT NULL DEFAULT 0 CHECK (typeof(fee) = 'integer' AND fee BETWEEN 0 AND charge),
    stdout_bytes    INTEGER NOT NULL DEFAULT 0,
    stderr_bytes    INTEGER NOT NULL DEFAULT 0,
    UNIQUE (job_id, number),
    CHECK ((ended_at IS NULL) = (state IN ('assigned', 'running'))),
    CHECK (charge = 0 OR state NOT IN ('assigned', 'running', 'broken', 'refused', 'released', 'lost'))
);
CREATE UNIQUE INDEX attempts_one_live ON attempts (job_id) WHERE state IN ('assigned', 'running');

-- A stream's chunks follow each other without gap or overlap. Stream 1 is stdout, 2 is stderr.
CREATE TABLE output_chunks (
    id         INTEGER PRIMARY KEY,
    attempt_id INTEGER NOT NULL REFERENCES attempts (id),
    stream     INTEGER NOT NULL CHECK (stream IN (1, 2)),
    offset     INTEGER NOT NULL CHECK (offset >= 0),
    data       BLOB    NOT NULL,
    UNIQUE (attempt_id, stream, offset)
);

-- balance is the sum of the account's postings; held, earned and spent are sums and waiting is the number of queued
-- jobs, kept so that nobody has to add up or count. The audit does.
CREATE TABLE accounts (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    kind    TEXT    NOT NULL CHECK (kind IN ('user', 'mint', 'escrow', 'treasury')),
    user_id INTEGER UNIQUE REFERENCES users (id),
    balance INTEGER NOT NULL DEFAULT 0 CHECK (typeof(balance) = 'integer' AND (balance >= 0 OR kind = 'mint')),
    held    INTEGER NOT NULL DEFAULT 0 CHECK (typeof(held) = 'integer' AND held >= 0),
    earned  INTEGER NOT NULL DEFAULT 0 CHECK (typeof(earned) = 'integer' AND earned >= 0),
    spent   INTEGER NOT NULL DEFAULT 0 CHECK (typeof(spent) = 'integer' AND spent >= 0),
    waiting INTEGER NOT NULL DEFAULT 0 CHECK (typeof(waiting) = 'integer' AND waiting >= 0),
    CHECK ((kind = 'user') = (user_id IS NOT NULL))
);
CREATE UNIQUE INDEX accounts_one_of_the_house ON accounts (kind) WHERE kind <> 'user';

CREATE TABLE transactions (
    id         INTEGER PRIMARY KEY,
    kind       TEXT    NOT NULL CHECK (kind IN ('grant', 'transfer', 'hold', 'settle', 'release')),
    job_id     INTEGER REFERENCES jobs (id),
    attempt_id INTEGER REFERENCES attempts (id),
    note       TEXT    NOT NULL DEFAULT '',
    at         INTEGER NOT NULL,
    CHECK ((kind IN ('hold', 'settle', 'release')) = (job_id IS NOT NULL)),
    CHECK ((kind = 'settle') = (attempt_id IS NOT NULL))
);
CREATE UNIQUE INDEX transactions_one_hold ON transactions (job_id) WHERE kind = 'hold';
CREATE UNIQUE INDEX transactions_one_settle ON transactions (job_id) WHERE kind = 'settle';
CREATE UNIQUE INDEX transactions_one_release ON transactions (job_id) WHERE kind = 'release';

CREATE TABLE postings (
    id             INTEGER PRIMARY KEY,
    transaction_id INTEGER NOT NULL REFERENCES transactions (id),
    account_id     INTEGER NOT NULL REFERENCES accounts (id),
    amount         INTEGER NOT NULL CHECK (typeof(amount) = 'integer' AND amount <> 0),
    UNIQUE (transaction_id, account_id)
);
CREATE INDEX postings_by_account ON postings (account_id);

-- The ledger is added to and never changed; so ids of transactions and postings are never used again.
CREATE TRIGGER postings_stay BEFORE UPDATE ON postings
BEGIN SELECT RAISE (ABORT, 'postings are never changed'); END;
CREATE TRIGGER postings_remain BEFORE DELETE ON postings
BEGIN SELECT RAISE (ABORT, 'postings are never deleted'); END;
CREATE TRIGGER transactions_stay BEFORE UPDATE ON transactions
BEGIN SELECT RAISE (ABORT, 'transactions are never changed'); END;
CREATE TRIGGER transactions_remain BEFORE DELETE ON transactions
BEGIN SELECT RAISE (ABORT, 'transactions are never deleted'); END;

CREATE TABLE idempotency_keys (
    id         INTEGER PRIMARY KEY,
    user_id    INTEGER NOT NULL REFERENCES users (id),
    kind       TEXT    NOT NULL CHECK (kind IN ('submit', 'transfer', 'grant')),
    key        TEXT    NOT NULL,
    digest     BLOB    NOT NULL,
    result     TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    UNIQUE (user_id, kind, key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

INSERT INTO accounts (id, kind) VALUES (1, 'mint'), (2, 'escrow'), (3, 'treasury');
