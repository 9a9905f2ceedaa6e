"""What hostile programs leave in their ``out`` folder, and what they look for in that of others."""

from __future__ import annotations

import json

import aiohttp
import pytest
from kit.attacks import CONTAINERS, ended

from gridx.errors import GridError, InvalidField
from gridx.messages import JobSpec, JobState

pytestmark = pytest.mark.engine

WORKER = CONTAINERS
COORDINATOR = {"GRIDX_FILES_OUT_MB": "8", "GRIDX_FILES_OUT_FILES": "50", "GRIDX_FILES_OUT_DEPTH": "4"}
KEPT = 32


async def run(grid, code: str, **fields):
    """Run one program as a stranger's: how it ended, what came back and what stayed."""
    usual = {"cpus": 0.5, "memory_mb": 256, "timeout_s": 60}
    job = await grid.bob.submit(JobSpec(**{"code": code, **usual, **fields}))
    over = await ended(grid.bob, job.id)
    files = await grid.bob.files(job.id)
    return over, files, {one.path: one.why for one in files.left}


NO_PATHS = [
    *("../x", "/etc/passwd", "a/../../x", "./a", "a//b", "a/", "", "C:x", "a\\b", "x" * 300),
    *("a\0b", "a\nb", "a\ud800b", "a\u202eb"),
    *("job.py", "out", "out/x"),
]


async def test_18_an_input_s_name_that_is_none_is_refused(grid):
    upload = await grid.bob.upload(b"content")
    headers = {"Authorization": f"Bearer {grid.bob.token}", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(headers=headers) as http:
        for path in NO_PATHS:
            body = {
                "code": "pass",
                "inputs": [{"path": path, "sha256": upload.sha256, "size": upload.size}],
            }
            async with http.post(f"{grid.url}/jobs", data=json.dumps(body)) as response:
                answer = await response.text()
            assert 400 <= response.status < 500, (path, answer)
            message = json.loads(answer)["error"]["message"]
            assert not {"\0", "\n", "\x1b", "\u202e", "\ud800"} & set(message)


async def test_18_names_of_outputs_that_are_none_stay_and_are_shown_safely(grid):
    code = r"""
import os
turned = "turn\u202ened".encode()
for name in (b"new\nline", b"not-utf8-\xff", turned, b"back\\slash", b"\x1b]52;c;x\x07", b"x" * 255):
    open(b"out/" + name, "w").write("x")
"""
    over, files, left = await run(grid, code)
    over.ok()
    assert [file.path for file in files.files] == ["x" * 255]
    assert set(left.values()) == {"its name is not allowed"}
    assert len(left) == 5
    assert not {"\n", "\x1b", "\u202e", "\udcff"} & set("".join(left))


async def test_19_links_pipes_devices_and_sockets_stay_and_are_named(grid, tmp_path):
    code = """
import os, socket
os.symlink("/etc/passwd", "out/passwd")
os.symlink("/proc/1/environ", "out/environ")
os.symlink("/", "out/root")
os.symlink("out", "out/loop")
os.mkfifo("out/fifo")
open("out/one", "w").write("x"); os.link("out/one", "out/two")
os.link("job.py", "out/job")
socket.socket(socket.AF_UNIX).bind("out/socket")
for kind in (0o20666, 0o60666):
    try: os.mknod("out/device", kind, os.makedev(1, 3)); print("made a device")
    except OSError: pass
open("out/fine", "w").write("fine")
"""
    over, files, left = await run(grid, code)
    assert over.ok().lines == []
    assert [file.path for file in files.files] == ["fine"]
    assert left.keys() == {"passwd", "environ", "root", "loop", "fifo", "one", "two", "job", "socket"}
    assert [path.name for path in await grid.bob.fetch(over.job.id, tmp_path / "got")] == ["fine"]


async def test_19_an_out_folder_that_became_a_link_shows_nothing_of_the_machine(grid):
    over, files, left = await run(grid, "import os; os.rmdir('out'); os.symlink('/etc', 'out')")
    over.ok()
    assert files.files == []
    assert left.keys() == {"out"}


async def test_20_sparse_files_many_files_and_deep_folders_are_capped(grid):
    code = """
import os
for size in (1 << 50, 60 << 20):
    try:
        with open(f"out/sparse-{size}", "wb") as file: file.truncate(size)
    except OSError as error: os.unlink(f"out/sparse-{size}")
made = 0
try:
    for number in range(100_000):
        os.close(os.open(f"out/{number:06}", os.O_CREAT | os.O_WRONLY)); made += 1
except OSError as error:
    pass
for number in range(0, made, 2): os.unlink(f"out/{number:06}")
os.chdir("out")
try:
    for _ in range(1000):
        os.mkdir("deep"); os.chdir("deep")
except OSError as error: print(error)
print("made", made > 3000)
"""
    over, files, left = await run(grid, code, timeout_s=60)
    assert over.ok().lines == ["made True"]
    assert len(files.files) == 50
    assert len(left) == 100
    assert "more; these are not named" in left["…"]
    assert "50 files" in "".join(left.values())

    over, files, left = await run(grid, code.replace("range(100_000)", "range(10)"), memory_mb=512)
    assert "8,388,608 may come in all" in left[f"sparse-{60 << 20}"]
    assert left["deep/deep/deep/deep/deep/"].startswith("it lies below 4 folders")
    assert len(files.files) == 5


async def test_20_what_goes_on_writing_is_dead_before_anything_is_read(grid):
    code = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for fd in (0, 1, 2): os.close(fd)
        while True:
            with open("out/moving", "r+b") as file: file.write(os.urandom(100_000))
    os._exit(0)
open("out/moving", "wb").write(b"x" * 100_000)
time.sleep(0.3)
"""
    over, files, _ = await run(grid, code)
    over.ok()
    assert [(file.path, file.size) for file in files.files] == [("moving", 100_000)]
    assert len(await grid.bob.read_file(over.job.id, "moving")) == 100_000


async def test_the_next_job_finds_no_files_of_the_last(grid):
    upload = await grid.bob.upload(b"secret")
    inputs = [{"path": "in/secret", "sha256": upload.sha256, "size": upload.size}]
    look = "import os; print(sorted(os.path.join(f, n) for f, _, ns in os.walk('.') for n in ns))"
    first, files, _ = await run(
        grid,
        "open('out/mine', 'w').write(open('in/secret').read()); open('/tmp/kept', 'w').write('x')",
        inputs=inputs,
    )
    first.ok()
    assert [file.path for file in files.files] == ["mine"]
    for _ in range(3):
        over, _, _ = await run(grid, look)
        assert over.ok().lines == ["['./job.py']"]


async def test_files_of_another_are_not_there(grid):
    over, _, _ = await run(grid, "open('out/mine', 'w').write('x')")
    over.ok()
    for name in ("mine", "nothing"):
        with pytest.raises(GridError) as refused:
            await grid.ann.read_file(over.job.id, name)
        assert refused.value.status == 404
    with pytest.raises(GridError) as refused:
        await grid.ann.files(over.job.id)
    assert refused.value.status == 404
    # What another has uploaded cannot be named by its digest.
    secret = await grid.bob.upload(b"a secret of bob's")
    with pytest.raises(InvalidField, match="not uploaded"):
        await grid.ann.submit(
            JobSpec(
                code="print(open('x').read())",
                inputs=[{"path": "x", "sha256": secret.sha256, "size": secret.size}],
            )
        )


async def test_inputs_that_the_memory_cannot_hold_fail_in_words_and_cost_nothing(grid):
    upload = await grid.bob.upload(bytes(80 << 20))
    inputs = [{"path": "large", "sha256": upload.sha256, "size": upload.size}]
    over, _, _ = await run(grid, "print('never')", inputs=inputs, memory_mb=64)
    assert over.job.state is JobState.FAILED
    assert "The inputs take 80 MiB and the job has 64 MiB" in over.job.reason
    assert (over.stdout, over.job.charge) == (b"", 0)
