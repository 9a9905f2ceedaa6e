"""``gridx`` as people type it: real processes against a real grid, with its exit codes and its JSON."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

SMALL = ("--cpus", "0.1", "--memory", "64M", "--timeout", "60s")


def submit(grid, code: str, *more: str, user: str = "ann") -> str:
    return grid.gridx("submit", "-c", code, *SMALL, "-q", *more, user=user).stdout.strip()


def as_json(done: subprocess.CompletedProcess[str]):
    return json.loads(done.stdout)


def start(grid, *args: str, user: str = "ann", **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gridx", *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=grid.shell_environ(user, **environ),
    )


def test_a_job_from_submit_to_receipt(standing, tmp_path):
    program = tmp_path / "six.py"
    program.write_text(
        "import os, sys\nprint(sys.argv[1:], os.environ['COLOUR'])\nprint('oh', file=sys.stderr)\n"
    )
    done = standing.gridx(
        "submit", str(program), *SMALL, "--env", "COLOUR=red", "--", "--deep", "7", user="ann"
    )
    assert "Held: " in done.stdout
    job = as_json(standing.gridx("jobs", "--limit", "1", "--json", user="ann"))["jobs"][0]
    assert job["name"] == "six.py"
    assert "six.py" in standing.gridx("wait", str(job["id"]), user="ann").stdout

    output = standing.gridx("output", str(job["id"]), user="ann")
    assert output.stdout == "['--deep', '7'] red\n"
    assert output.stderr == "oh\n"
    only = standing.gridx("output", str(job["id"]), "--stream", "stderr", user="ann")
    assert (only.stdout, only.stderr) == ("", "oh\n")

    shown = as_json(standing.gridx("show", str(job["id"]), "--json", user="ann"))
    assert shown["state"] == "succeeded"
    assert shown["spec"]["args"] == ["--deep", "7"]
    assert shown["receipt"]["hold"] == shown["receipt"]["charge"] + shown["receipt"]["released"]
    text = standing.gridx("show", str(job["id"]), user="ann").stdout
    assert "succeeded" in text
    assert "desk" in text


def test_a_program_may_come_from_stdin(standing):
    done = standing.gridx("run", "-", *SMALL, user="ann", stdin="print('from a pipe')")
    assert done.stdout == "from a pipe\n"


def test_run_streams_and_exits_as_the_program_does(standing):
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"
    done = standing.gridx("run", "-c", code, *SMALL, user="ann", check=False)
    assert done.returncode == 7
    assert done.stdout == "out\n"
    assert done.stderr.startswith("err\n")
    assert "failed" in done.stderr


def test_run_of_a_program_that_a_signal_ended(standing):
    code = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    done = standing.gridx("run", "-c", code, *SMALL, user="ann", check=False)
    assert done.returncode == 128 + signal.SIGSEGV


def test_run_of_a_program_that_takes_too_long(standing):
    done = standing.gridx("run", "-c", "while True: pass", *SMALL, "--timeout", "1s", user="ann", check=False)
    assert done.returncode == 1
    assert "ran out of time" in done.stderr


def test_ctrl_c_in_run_cancels_the_job(standing):
    code = "import time\nprint('begun', flush=True)\ntime.sleep(600)"
    run = start(standing, "run", "-c", code, *SMALL, "--name", "interrupted")
    assert run.stdout.readline() == "begun\n"
    run.send_signal(signal.SIGINT)
    _, stderr = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "Cancelling job" in stderr
    assert "Traceback" not in stderr
    found = as_json(standing.gridx("jobs", "--text", "interrupted", "--json", user="ann"))["jobs"]
    assert [job["state"] for job in found] == ["cancelled"]


def test_output_is_followed_while_the_job_runs(standing):
    job = submit(standing, "import time\nprint('first', flush=True)\ntime.sleep(600)")
    following = start(standing, "output", "-f", job)
    try:
        assert following.stdout.readline() == "first\n"
        state = as_json(standing.gridx("show", job, "--json", user="ann"))["state"]
        assert state == "running"
        standing.gridx("cancel", job, user="ann")
        assert following.wait(60) == 0
    finally:
        following.kill()
        following.communicate()


def test_no_escape_sequence_of_a_job_reaches_a_pipe_unless_asked_for(standing):
    code = r"import sys; sys.stdout.write('\x1b[2Ja\x1b]52;c;eA==\x07b\x9b6nc\u202ed\n')"
    job = submit(standing, code)
    standing.gridx("wait", job, user="ann")
    assert standing.gridx("output", job, user="ann").stdout == "abcd\n"
    assert standing.gridx("output", "-f", job, user="ann").stdout == "abcd\n"
    assert "\x1b[2J" in standing.gridx("output", "--raw", job, user="ann").stdout


def test_a_hostile_name_does_nothing_to_a_listing(standing):
    # No control character gets into a name; what looks like markup and what turns text around does.
    refused = standing.gridx("submit", "-c", "pass", "--name", "a\x1b[31mb", user="ann", check=False)
    assert refused.returncode == 2
    name = "[/b]\u202eevil\u200b[@click=app.quit]x[/]"
    submit(standing, "pass", "--name", name)
    table = standing.gridx("jobs", user="ann").stdout
    assert "[/b]evil[@click=app.quit]x[/]" in table
    assert "\u202e" not in table
    found = standing.gridx("jobs", "--json", user="ann").stdout
    assert found.isascii()
    assert any(job["name"] == name for job in json.loads(found)["jobs"])


def test_wait_says_whether_all_succeeded(standing):
    good, bad = submit(standing, "pass"), submit(standing, "raise SystemExit(3)")
    assert standing.gridx("wait", good, user="ann").returncode == 0
    done = standing.gridx("wait", good, bad, "--json", user="ann", check=False)
    assert done.returncode == 1
    assert [job["exit_code"] for job in as_json(done)["jobs"]] == [0, 3]


def test_wait_gives_up_in_time(standing):
    job = submit(standing, "import time; time.sleep(600)")
    done = standing.gridx("wait", job, "--timeout", "1s", user="ann", check=False)
    assert done.returncode == 1
    assert standing.gridx("cancel", job, user="ann").returncode == 0


def test_cancel_and_retry(standing):
    job = submit(standing, "import time; time.sleep(600)")
    standing.gridx("cancel", job, user="ann")
    assert "was cancelled" in standing.gridx("wait", job, user="ann", check=False).stdout
    again = as_json(standing.gridx("retry", job, "--json", user="ann"))
    assert again["retry_of"] == int(job)
    assert again["id"] != int(job)
    too_early = standing.gridx("retry", str(again["id"]), user="ann", check=False)
    assert too_early.returncode == 3
    cancelled = as_json(standing.gridx("cancel", str(again["id"]), "--json", user="ann"))["jobs"][0]
    assert cancelled["state"] in ("cancelled", "cancelling")


def test_of_several_jobs_those_that_can_be_cancelled_are(standing):
    ids = [
        standing.gridx(
            "submit", "-q", "-c", "x = 1", "--cpus", "900", "--timeout", "1s", user="ann"
        ).stdout.strip()
        for _ in range(2)
    ]
    done = standing.gridx("cancel", ids[0], "999999", ids[1], user="ann", check=False)
    assert done.returncode == 3
    assert "There is no job 999999" in done.stderr
    assert done.stdout.splitlines() == [f"Job {each} was cancelled by ann" for each in ids]


def test_another_persons_job_is_not_there(standing):
    job = submit(standing, "print('secret')")
    for command in (("show",), ("output",), ("cancel",), ("wait",)):
        done = standing.gridx(*command, job, user="bob", check=False)
        assert done.returncode == 3
        assert "secret" not in done.stdout


def test_workers_are_listed_paused_and_resumed_by_their_owner(standing):
    fleet = as_json(standing.gridx("workers", "--json", user="bob"))["workers"]
    assert [(worker["name"], worker["owner"]) for worker in fleet] == [("desk", "ann")]
    desk = str(fleet[0]["id"])
    assert "desk" in standing.gridx("workers", user="bob").stdout
    assert standing.gridx("workers", "pause", desk, user="bob", check=False).returncode == 3
    assert as_json(standing.gridx("workers", "pause", desk, "--json", user="ann"))["state"] == "paused"
    assert "online" in standing.gridx("workers", "resume", desk, user="ann").stdout


def test_what_no_machine_can_run_is_said_at_once(standing):
    done = standing.gridx("submit", "-c", "pass", "--gpus", "1", "--json", user="ann")
    job = as_json(done)
    assert "GPU" in job["reason"]
    assert "GPU" in standing.gridx("jobs", "--state", "queued", user="ann").stdout
    standing.gridx("cancel", str(job["id"]), user="ann")


def test_a_quote_says_what_is_held(standing):
    found = as_json(
        standing.gridx("quote", "-c", "pass", "--timeout", "1h", "--cpus", "1", "--json", user="ann")
    )
    assert found["hold"] >= found["lines"][0]["amount"] > 0
    text = standing.gridx("quote", "-c", "pass", "--timeout", "1h", user="ann").stdout
    assert "held" in text
    assert "cpu" in text


def test_too_little_credit_is_refused_with_what_is_missing(standing):
    done = standing.gridx("submit", "-c", "pass", "--timeout", "30d", user="bob", check=False)
    assert done.returncode == 3
    assert "missing" in done.stderr


def test_credits_move_and_every_movement_is_listed(standing):
    before = as_json(standing.gridx("credits", "--json", user="bob"))["balance"]
    after = as_json(standing.gridx("transfer", "bob", "1.5", "--note", "thanks", "--json", user="ann"))
    assert after["user"] == "ann"
    assert as_json(standing.gridx("credits", "--json", user="bob"))["balance"] == before + 1_500_000
    entry = as_json(standing.gridx("credits", "--entries", "--json", user="bob"))["entries"][0]
    assert (entry["amount"], entry["kind"]) == (1_500_000, "transfer")
    assert "+1.5" in standing.gridx("credits", "--entries", user="bob").stdout
    assert standing.gridx("transfer", "bob", "100000", user="ann", check=False).returncode == 3
    assert standing.gridx("transfer", "bob", "0", user="ann", check=False).returncode == 2


def test_admins_see_to_accounts(standing):
    def admin(*args: str, check: bool = True, stdin: str | None = None):
        return standing.gridx("admin", *args, user="admin", check=check, stdin=stdin)

    admin("create", "eve", stdin="first secret\n")
    balance = as_json(admin("grant", "eve", "2.5", "--json"))
    assert balance["user"] == "eve"
    assert {"admin", "ann", "bob", "eve"} <= {
        user["username"] for user in as_json(admin("users", "--json"))["users"]
    }
    assert "eve" in admin("users").stdout
    admin("password", "eve", stdin="second secret\n")

    def login(password: str) -> int:
        return standing.gridx("login", "eve", user="eve", check=False, GRIDX_PASSWORD=password).returncode

    assert login("first secret") == 3
    assert login("second secret") == 0
    admin("disable", "eve")
    assert standing.gridx("jobs", user="eve", check=False).returncode == 3
    admin("enable", "eve")
    assert as_json(admin("role", "eve", "admin", "--json"))["role"] == "admin"
    assert login("second secret") == 0
    assert "adds up" in standing.gridx("admin", "audit", user="eve").stdout


def test_the_audit_and_a_backup(standing, tmp_path):
    report = as_json(standing.gridx("admin", "audit", "--json", user="admin"))
    assert report["ok"]
    target = tmp_path / "copy.db"
    standing.gridx("admin", "backup", str(target), user="admin")
    assert target.read_bytes().startswith(b"SQLite format 3\0")
    assert target.stat().st_mode & 0o777 == 0o600
    assert standing.gridx("admin", "backup", str(target), user="admin", check=False).returncode == 2


def test_users_are_no_admins(standing):
    for args in (("audit",), ("users",), ("grant", "ann", "5"), ("disable", "bob")):
        done = standing.gridx("admin", *args, user="ann", check=False)
        assert done.returncode == 3
        assert done.stderr


def test_signing_out_ends_the_sign_in(standing):
    standing.gridx("login", "bob", user="leaver", GRIDX_PASSWORD="correct horse")
    assert standing.gridx("jobs", user="leaver").returncode == 0
    standing.gridx("logout", user="leaver")
    done = standing.gridx("jobs", user="leaver", check=False)
    assert done.returncode == 3
    assert "gridx login" in done.stderr


def test_the_environment_may_say_who_one_is(standing):
    done = standing.gridx("credits", "--json", GRIDX_USER="bob", GRIDX_PASSWORD="correct horse")
    assert as_json(done)["user"] == "bob"
    session = standing.folder / "shell-ann" / "session.json"
    token = next(iter(json.loads(session.read_text())["sign_ins"].values()))["token"]
    assert as_json(standing.gridx("credits", "--json", GRIDX_TOKEN=token))["user"] == "ann"
    assert standing.gridx("credits", GRIDX_TOKEN="wrong", check=False).returncode == 3


def test_where_one_signed_in_last_is_where_commands_go(standing):
    assert standing.gridx("jobs", user="ann", GRIDX_COORDINATOR="").returncode == 0


@pytest.mark.parametrize(
    ("args", "environ", "code", "words"),
    [
        (("jobs",), {"GRIDX_COORDINATOR": ""}, 2, "gridx login"),
        (("jobs",), {"GRIDX_COORDINATOR": "127.0.0.1:1", "GRIDX_TOKEN": "t"}, 4, "Nothing answers"),
        (("jobs",), {}, 3, "gridx login"),
        (("--coordinator", "not a host", "jobs"), {}, 2, "not the address"),
        (("show", "no-number"), {}, 2, "no-number"),
        (("submit",), {}, 2, "Which program"),
        (("submit", "missing.py"), {}, 2, "missing.py"),
        (("run", "-c", "pass", "--memory", "much"), {}, 2, "512M"),
        (("run", "-c", "pass", "--cpus", "-1"), {}, 2, "cpus"),
        (("jobs",), {"GRIDX_TYPO": "1"}, 2, "GRIDX_TYPO"),
        (("no-such-command",), {}, 2, "no-such-command"),
    ],
)
def test_what_goes_wrong_is_a_sentence_and_an_exit_code(standing, args, environ, code, words):
    done = standing.gridx(*args, check=False, **environ)
    assert done.returncode == code, done.stderr
    assert words in done.stderr


def test_a_reader_that_goes_away_is_no_error(standing):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as stdout:
        done = subprocess.run(
            [sys.executable, "-m", "gridx", "workers"],
            env=standing.shell_environ("ann"),
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 141
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr


def test_saved_sign_ins_are_for_their_owner_alone(standing):
    home = standing.folder / "shell-ann"
    assert home.stat().st_mode & 0o077 == 0
    for path in home.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
    assert (home / "session.json").is_file()
