-- Arrays, dependencies, retries of the program's own failures, and files.

-- An array has a number of the jobs' own sequence, so that one word names either; its elements are jobs with
-- the numbers after it, the first of which stands for what all ask of a machine. The counts are of its elements.
-- "held" is what lies in escrow for all of them; "unit" is what one may cost; "open_charge" is what elements that
-- have not ended were charged so far, "running_charge" those of them that have a machine. "stop" says
-- why no element starts any more. "changes" grows with every change.
CREATE TABLE arrays (
    id          INTEGER PRIMARY KEY,
    user_id     INTEGER NOT NULL REFERENCES users (id),
    name        TEXT    NOT NULL,
    count       INTEGER NOT NULL CHECK (count >= 1),
    first_index INTEGER NOT NULL CHECK (first_index >= 0),
    total_count INTEGER NOT NULL,
    max_fails   INTEGER CHECK (max_fails >= 0),
    max_credits INTEGER CHECK (max_credits >= 0),
    unit        INTEGER NOT NULL CHECK (typeof(unit) = 'integer' AND unit >= 0),
    hold        INTEGER NOT NULL CHECK (typeof(hold) = 'integer' AND hold >= 0),
    held        INTEGER NOT NULL CHECK (typeof(held) = 'integer' AND held BETWEEN 0 AND hold),
    charge      INTEGER NOT NULL DEFAULT 0 CHECK (typeof(charge) = 'integer' AND charge BETWEEN 0 AND hold),
    open_charge INTEGER NOT NULL DEFAULT 0 CHECK (typeof(open_charge) = 'integer' AND open_charge BETWEEN 0 AND charge),
    running_charge INTEGER NOT NULL DEFAULT 0
                CHECK (typeof(running_charge) = 'integer' AND running_charge BETWEEN 0 AND open_charge),
    queued      INTEGER NOT NULL CHECK (queued >= 0),
    running     INTEGER NOT NULL DEFAULT 0 CHECK (running >= 0),
    succeeded   INTEGER NOT NULL DEFAULT 0 CHECK (succeeded >= 0),
    failed      INTEGER NOT NULL DEFAULT 0 CHECK (failed >= 0),
    cancelled   INTEGER NOT NULL DEFAULT 0 CHECK (cancelled >= 0),
    state       TEXT    NOT NULL CHECK (state IN ('queued', 'running', 'cancelling', 'succeeded', 'failed', 'cancelled')),
    reason      TEXT    NOT NULL DEFAULT '',
    stop        TEXT    NOT NULL DEFAULT '' CHECK (stop IN ('', 'cancel', 'fails', 'budget', 'parent')),
    changes     INTEGER NOT NULL DEFAULT 0,
    created_at  INTEGER NOT NULL,
    started_at  INTEGER,
    ended_at    INTEGER,
    retry_of    INTEGER REFERENCES arrays (id),
    CHECK (queued + running + succeeded + failed + cancelled = count),
    CHECK (held + charge <= hold),
    CHECK (ended_at IS NULL OR held = 0),
    CHECK ((ended_at IS NULL) = (queued + running > 0)),
    CHECK ((ended_at IS NULL) = (state IN ('queued', 'running', 'cancelling')))
);
CREATE INDEX arrays_by_user ON arrays (user_id);
CREATE INDEX arrays_by_state ON arrays (state);
CREATE INDEX arrays_open ON arrays (id) WHERE ended_at IS NULL;

-- What the elements share, apart from the counts, which are written again and again.
CREATE TABLE array_payloads (
    array_id INTEGER PRIMARY KEY REFERENCES arrays (id),
    code     TEXT    NOT NULL,
    args     TEXT    NOT NULL,
    env      TEXT    NOT NULL,
    inputs   TEXT    NOT NULL DEFAULT '[]',
    outputs  TEXT    NOT NULL DEFAULT '["*"]'
);

-- What an element has of its own; an element that differs by its index alone has no row.
CREATE TABLE array_elements (
    id       INTEGER PRIMARY KEY,
    array_id INTEGER NOT NULL REFERENCES arrays (id),
    position INTEGER NOT NULL,
    args     TEXT    NOT NULL,
    inputs   TEXT    NOT NULL DEFAULT '[]',
    UNIQUE (array_id, position)
);

-- job_id and parent_id are numbers of jobs or of arrays. "met": the parent has ended as it was needed to.
CREATE TABLE dependencies (
    id        INTEGER PRIMARY KEY,
    job_id    INTEGER NOT NULL,
    parent_id INTEGER NOT NULL,
    needs     TEXT    NOT NULL CHECK (needs IN ('success', 'end')),
    met       INTEGER NOT NULL CHECK (met IN (0, 1)),
    UNIQUE (job_id, parent_id)
);
CREATE INDEX dependencies_by_parent ON dependencies (parent_id) WHERE NOT met;
CREATE INDEX dependencies_by_met ON dependencies (met);

-- The table of jobs anew: elements of arrays, retries, and charges that come before the end.
CREATE TABLE jobs_anew (
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
    array_id          INTEGER REFERENCES arrays (id),
    array_index       INTEGER,
    retries           INTEGER NOT NULL DEFAULT 0 CHECK (retries >= 0),
    retry_delay_s     INTEGER NOT NULL DEFAULT 0 CHECK (retry_delay_s >= 0),
    failures          INTEGER NOT NULL DEFAULT 0 CHECK (failures BETWEEN 0 AND retries AND failures <= attempts),
    not_before        INTEGER,
    files             INTEGER NOT NULL DEFAULT 0 CHECK (files >= 0),
    file_bytes        INTEGER NOT NULL DEFAULT 0 CHECK (file_bytes >= 0),
    CHECK ((ended_at IS NULL) = (state IN ('queued', 'assigned', 'running', 'cancelling'))),
    CHECK (attempt_id IS NOT NULL OR state NOT IN ('assigned', 'running', 'cancelling')),
    CHECK (charge = 0 OR ended_at IS NOT NULL OR failures > 0),
    CHECK ((array_id IS NULL) = (array_index IS NULL))
);
INSERT INTO jobs_anew (id, user_id, state, reason, language, name, cpu_millis, memory_mb, gpus, timeout_s, priority,
    max_attempts, runtime, python, core_hour, gib_hour, gpu_hour, fee_ppm, hold, charge, attempts, faults, attempt_id,
    worker_id, created_at, started_at, ended_at, exit_code, signal, peak_memory_bytes, retry_of)
SELECT id, user_id, state, reason, language, name, cpu_millis, memory_mb, gpus, timeout_s, priority,
    max_attempts, runtime, python, core_hour, gib_hour, gpu_hour, fee_ppm, hold, charge, attempts, faults, attempt_id,
    worker_id, created_at, started_at, ended_at, exit_code, signal, peak_memory_bytes, retry_of
FROM jobs;
DROP TABLE jobs;
ALTER TABLE jobs_anew RENAME TO jobs;
-- Listings show an array as one line, so they walk the jobs that are in none.
CREATE INDEX jobs_alone ON jobs (id) WHERE array_id IS NULL;
CREATE INDEX jobs_by_user ON jobs (user_id) WHERE array_id IS NULL;
CREATE INDEX jobs_by_user_and_state ON jobs (user_id, state) WHERE array_id IS NULL;
CREATE INDEX jobs_by_state ON jobs (state);
CREATE INDEX jobs_by_end ON jobs (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX jobs_by_array ON jobs (array_id, state) WHERE array_id IS NOT NULL;

ALTER TABLE job_payloads ADD COLUMN inputs TEXT NOT NULL DEFAULT '[]';
ALTER TABLE job_payloads ADD COLUMN outputs TEXT NOT NULL DEFAULT '["*"]';

-- The table of transactions anew: an array is held for as one, and each attempt that is paid is settled.
CREATE TABLE transactions_anew (
    id         INTEGER PRIMARY KEY,
    kind       TEXT    NOT NULL CHECK (kind IN ('grant', 'transfer', 'hold', 'settle', 'release')),
    job_id     INTEGER REFERENCES jobs (id),
    attempt_id INTEGER REFERENCES attempts (id),
    array_id   INTEGER REFERENCES arrays (id),
    note       TEXT    NOT NULL DEFAULT '',
    at         INTEGER NOT NULL,
    CHECK ((kind IN ('hold', 'settle', 'release')) = (job_id IS NOT NULL OR array_id IS NOT NULL)),
    CHECK (kind <> 'settle' OR job_id IS NOT NULL),
    CHECK ((kind = 'settle') = (attempt_id IS NOT NULL))
);
INSERT INTO transactions_anew (id, kind, job_id, attempt_id, note, at)
SELECT id, kind, job_id, attempt_id, note, at FROM transactions;
DROP TABLE transactions;
ALTER TABLE transactions_anew RENAME TO transactions;
CREATE UNIQUE INDEX transactions_one_hold ON transactions (job_id) WHERE kind = 'hold' AND array_id IS NULL;
CREATE UNIQUE INDEX transactions_one_hold_of_an_array ON transactions (array_id) WHERE kind = 'hold';
CREATE UNIQUE INDEX transactions_one_settle ON transactions (attempt_id) WHERE kind = 'settle';
CREATE UNIQUE INDEX transactions_one_release ON transactions (job_id) WHERE kind = 'release';
-- Grants are found by their note; most transactions are a job's.
CREATE INDEX transactions_of_no_job ON transactions (kind, note) WHERE job_id IS NULL;
CREATE INDEX transactions_by_job ON transactions (job_id) WHERE job_id IS NOT NULL;
CREATE INDEX transactions_by_array ON transactions (array_id) WHERE array_id IS NOT NULL;
CREATE TRIGGER transactions_stay BEFORE UPDATE ON transactions
BEGIN SELECT RAISE (ABORT, 'transactions are never changed'); END;
CREATE TRIGGER transactions_remain BEFORE DELETE ON transactions
BEGIN SELECT RAISE (ABORT, 'transactions are never deleted'); END;

-- Files by their SHA-256; the bytes lie beside the database. A user sees a blob that he uploaded and no other,
-- so that nobody can find out what somebody else has.
CREATE TABLE blobs (
    id         INTEGER PRIMARY KEY,
    digest     BLOB    NOT NULL UNIQUE CHECK (length(digest) = 32),
    size       INTEGER NOT NULL CHECK (size >= 0),
    created_at INTEGER NOT NULL
);
CREATE TABLE uploads (
    id      INTEGER PRIMARY KEY,
    user_id INTEGER NOT NULL REFERENCES users (id),
    blob_id INTEGER NOT NULL REFERENCES blobs (id),
    used_at INTEGER NOT NULL,
    UNIQUE (user_id, blob_id)
);
CREATE INDEX uploads_by_blob ON uploads (blob_id);
CREATE INDEX uploads_by_use ON uploads (used_at);
-- Which inputs a job, or an array for all its elements, needs; job_id is the number of either.
CREATE TABLE input_uses (
    id      INTEGER PRIMARY KEY,
    job_id  INTEGER NOT NULL,
    blob_id INTEGER NOT NULL REFERENCES blobs (id),
    UNIQUE (job_id, blob_id)
);
CREATE INDEX input_uses_by_blob ON input_uses (blob_id);
-- Blobs that a worker sent for an attempt that has not ended yet.
CREATE TABLE sent_blobs (
    id         INTEGER PRIMARY KEY,
    attempt_id INTEGER NOT NULL REFERENCES attempts (id),
    blob_id    INTEGER NOT NULL REFERENCES blobs (id),
    UNIQUE (attempt_id, blob_id)
);
CREATE INDEX sent_blobs_by_blob ON sent_blobs (blob_id);
-- What an attempt gave back.
CREATE TABLE output_files (
    id         INTEGER PRIMARY KEY,
    attempt_id INTEGER NOT NULL REFERENCES attempts (id),
    path       TEXT    NOT NULL,
    blob_id    INTEGER NOT NULL REFERENCES blobs (id),
    UNIQUE (attempt_id, path)
);
CREATE INDEX output_files_by_blob ON output_files (blob_id);
CREATE TABLE left_files (
    id         INTEGER PRIMARY KEY,
    attempt_id INTEGER NOT NULL REFERENCES attempts (id),
    path       TEXT    NOT NULL,
    why        TEXT    NOT NULL
);
CREATE INDEX left_files_by_attempt ON left_files (attempt_id);

-- What each user's files take, so that a quota is known without adding up: uploads, and what jobs gave back or
-- their workers have sent. The audit adds it up again.
CREATE TABLE file_usage (
    id           INTEGER PRIMARY KEY,
    user_id      INTEGER NOT NULL UNIQUE REFERENCES users (id),
    inputs       INTEGER NOT NULL DEFAULT 0 CHECK (inputs >= 0),
    input_bytes  INTEGER NOT NULL DEFAULT 0 CHECK (input_bytes >= 0),
    outputs      INTEGER NOT NULL DEFAULT 0 CHECK (outputs >= 0),
    output_bytes INTEGER NOT NULL DEFAULT 0 CHECK (output_bytes >= 0)
);

-- When an attempt's printed output and files were deleted for their age.
ALTER TABLE attempts ADD COLUMN pruned_at INTEGER;
CREATE INDEX attempts_to_prune ON attempts (ended_at) WHERE ended_at IS NOT NULL AND pruned_at IS NULL;
CREATE INDEX jobs_with_files ON jobs (user_id, file_bytes) WHERE files > 0;
