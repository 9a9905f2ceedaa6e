"""Input files on their way in: what fits, in words, and their bytes in pieces."""

from __future__ import annotations

import pytest

from gridx.errors import SandboxBroken
from gridx.messages import InputFile
from gridx.services.worker.sandbox.container import limits_of, tmpfs, unfit
from gridx.services.worker.sandbox.inflow import PIECE_BYTES, names, pieces, room_bytes

MIB = 1 << 20


def announced(path: str, size: int) -> InputFile:
    return InputFile(path=path, sha256="0" * 64, size=size)


def test_what_does_not_fit_into_the_memory_is_refused_in_words():
    large = [announced("large", 900 * MIB)]
    assert unfit(large, 2048) == ""
    assert unfit(large, 512) == (
        "The inputs take 900 MiB and the job has 512 MiB of memory, in which they lie; ask for more "
        "memory_mb: at least 1,029, and what the program itself needs."
    )
    assert unfit(large, 1029) == ""
    assert "2,000 files and folders" in unfit([announced(str(n), 0) for n in range(2000)], 32)


@pytest.mark.parametrize("memory_mb", [32, 100, 512, 4096])
def test_the_folder_of_a_job_holds_whatever_is_not_refused(memory_mb):
    for size_mb in range(1, memory_mb, max(1, memory_mb // 64)):
        inputs = [announced("data", size_mb * MIB)]
        limits = limits_of(memory_mb, 1000, 64, inputs)
        if not unfit(inputs, memory_mb):
            assert size_mb < limits.job_mb <= memory_mb
            assert f"size={limits.job_mb}m" in tmpfs(limits)["/job"]
        if size_mb * 16 < memory_mb * 3 // 4:
            assert limits == limits_of(memory_mb, 1000, 64)


def test_room_is_counted_in_pages_and_names_with_their_folders():
    files = [announced("a/b/c", 1), announced("a/b/d", 4096), announced("a/e", 0)]
    assert room_bytes(files) == 8192
    assert names(files) == 5


async def test_files_come_one_after_the_other_in_pieces(tmp_path):
    contents = {"a": b"", "b": b"x" * 100, "c": b"y" * (2 * MIB + 5), "d": b"z" * 65536, "e": b"!"}
    inputs = []
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        inputs.append((announced(name, len(content)), tmp_path / name))
    parts = [part async for part in pieces(inputs)]
    assert b"".join(parts) == b"".join(contents.values())
    assert max(map(len, parts)) <= PIECE_BYTES


@pytest.mark.parametrize("size", [20, 200_000])
async def test_a_file_that_is_not_as_announced_is_the_machine_s_fault(tmp_path, size):
    (tmp_path / "short").write_bytes(b"x" * 10)
    with pytest.raises(SandboxBroken, match="short is not whole"):
        [part async for part in pieces([(announced("short", size), tmp_path / "short")])]
    with pytest.raises(SandboxBroken, match="cannot be read"):
        [part async for part in pieces([(announced("gone", size), tmp_path / "gone")])]
