"""A worker's identity: stable for a machine and a data folder, and one process at a time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from gridx.errors import SetupError
from gridx.services.worker import identity
from gridx.services.worker.identity import DataLock


def test_it_is_stable_and_has_the_form_of_an_identity(tmp_path):
    first = identity.load(tmp_path / "data")
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert identity.load(tmp_path / "data") == first


def test_another_folder_or_another_machine_is_another_worker(tmp_path):
    here = identity.load(tmp_path / "a", machine="m1")
    assert identity.load(tmp_path / "b", machine="m1") != here
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "worker.id").write_bytes((tmp_path / "a" / "worker.id").read_bytes())
    assert identity.load(tmp_path / "copy", machine="m1") == here
    assert identity.load(tmp_path / "copy", machine="m2") != here


def test_its_file_and_folder_are_private(tmp_path):
    identity.load(tmp_path / "data")
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "data" / "worker.id").stat().st_mode & 0o777 == 0o600


def test_made_by_many_at_once_it_is_one(tmp_path):
    with ThreadPoolExecutor(8) as threads:
        found = set(threads.map(lambda _: identity.load(tmp_path / "data"), range(32)))
    assert len(found) == 1
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["worker.id"]


@pytest.mark.parametrize("damage", [b"", b"abc", b"z" * 32, b"\xff" * 32])
def test_a_damaged_file_is_named_and_not_replaced(tmp_path, damage):
    (tmp_path / "worker.id").write_bytes(damage)
    with pytest.raises(SetupError, match="is damaged"):
        identity.load(tmp_path)
    assert (tmp_path / "worker.id").read_bytes() == damage


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="cannot be made"):
        identity.load(tmp_path / "file" / "data")


def test_the_machine_is_the_first_id_that_is_there(tmp_path):
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "id").write_text("0123\n")
    files = [tmp_path / "missing", tmp_path / "empty", tmp_path / "id"]
    assert identity.machine_id(files) == "0123"


def test_a_folder_is_one_workers_alone_until_it_lets_go(tmp_path):
    lock = DataLock.take(tmp_path)
    with pytest.raises(SetupError, match="Another worker uses the data folder") as caught:
        DataLock.take(tmp_path)
    assert "--data-dir" in caught.value.hint
    lock.release()
    lock.release()
    DataLock.take(tmp_path).release()


def test_the_system_lets_go_for_a_process_that_was_killed(tmp_path):
    code = (
        "import pathlib, sys, time\n"
        "from gridx.services.worker.identity import DataLock\n"
        f"lock = DataLock.take(pathlib.Path({str(tmp_path)!r}))\n"
        "print('held', flush=True)\n"
        "time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(SetupError):
            DataLock.take(tmp_path)
        os.kill(process.pid, 9)
    DataLock.take(tmp_path).release()
