"""Files into a sandbox and out of it again, for containers and for processes alike."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys

import psutil
import pytest

from gridx.errors import SandboxBroken
from gridx.messages import FileCaps, InputFile

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(sys.platform != "linux", reason="sandboxes of Linux"),
]

MIB = 1 << 20


@pytest.fixture(params=[pytest.param("box", marks=pytest.mark.engine), "process_box"])
def any_box(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def files(tmp_path):
    """Makes files for a job: names and contents to names and places."""

    def make(contents, *, executable=()):
        places = {}
        for number, (name, content) in enumerate(contents.items()):
            place = tmp_path / f"input-{number}"
            place.write_bytes(content)
            place.chmod(0o700 if name in executable else 0o600)
            places[name] = place
        return places

    return make


async def test_inputs_lie_in_the_job_s_folder_as_they_are_named(any_box, files):
    code = """
import os
print(open("data.csv").read(), open("deep/er/täble.txt").read(), os.path.getsize("empty"))
print(*(oct(os.stat(name).st_mode)[-3:] for name in ("tool", "data.csv")), os.path.exists("out"))
open("data.csv", "a").write("!")
"""
    inputs = files(
        {"data.csv": b"a,b", "deep/er/t\u00e4ble.txt": b"below", "empty": b"", "tool": b"#!"},
        executable=["tool"],
    )
    assert (await any_box.run(code, inputs=inputs)).ok().lines == ["a,b below 0", "755 644 True"]
    assert inputs["data.csv"].read_bytes() == b"a,b"


@pytest.mark.engine
async def test_a_table_is_read_as_it_is_at_home(box, files):
    code = 'import pandas as pd\npd.read_csv("data.csv").groupby("city").sum().to_csv("out/sums.csv")'
    table = b"city,people\nulm,1\nbonn,2\nulm,3\n"
    result = (await box.run(code, inputs=files({"data.csv": table}), memory_mb=512)).ok()
    assert result.files == {"sums.csv": b"city,people\nbonn,2\nulm,4\n"}


async def test_many_small_inputs_and_large_ones_arrive_whole_and_in_place(any_box, files):
    contents = {f"many/{number:04}": bytes([number % 256]) * (number * 7) for number in range(300)}
    contents["large"] = os.urandom(3 * MIB + 17)
    contents["many/zz"] = b"last"
    code = """
import hashlib, os
for folder, _, names in sorted(os.walk(".")):
    for name in sorted(names):
        if name != "job.py":
            path = os.path.relpath(os.path.join(folder, name))
            print(path, hashlib.sha256(open(path, "rb").read()).hexdigest())
"""
    result = await any_box.run(code, inputs=files(contents), memory_mb=256)
    wanted = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    assert dict(line.split() for line in result.ok().lines) == wanted


async def test_what_lies_in_out_comes_back_and_nothing_else(any_box):
    code = """
import os
os.makedirs("out/sub/below")
open("out/a.txt", "w").write("one")
open("out/sub/below/b.bin", "wb").write(bytes(range(256)) * 1000)
open("out/empty", "w")
open("beside", "w").write("stays")
"""
    result = (await any_box.run(code)).ok()
    assert result.files == {"a.txt": b"one", "sub/below/b.bin": bytes(range(256)) * 1000, "empty": b""}
    assert result.left == {}
    for file in result.outcome.files:
        assert file.sha256 == hashlib.sha256(result.files[file.path]).hexdigest()


async def test_patterns_choose_what_comes_back(any_box):
    code = """
import os
os.makedirs("out/sub")
for name in ("a.csv", "b.txt", "sub/c.csv", "sub/d.txt"):
    open("out/" + name, "w").write(name)
"""
    assert (await any_box.run(code, outputs=("*.csv",))).files.keys() == {"a.csv", "sub/c.csv"}
    assert (await any_box.run(code, outputs=("sub/*",))).files.keys() == {"sub/c.csv", "sub/d.txt"}
    assert (await any_box.run(code, outputs=())).files == {}


@pytest.mark.parametrize(
    ("end", "how"),
    [
        ("raise SystemExit(3)", "failed"),
        ("import time; time.sleep(1000)", "timed_out"),
        ("x = []\nwhile True: x.append(bytes(4 << 20))", "out_of_memory"),
        ("import os; os.kill(os.getpid(), 11)", "failed"),
        ("while True: print('x' * 100000)", "failed"),
    ],
    ids=["failed", "timed out", "out of memory", "segfault", "flood"],
)
async def test_what_was_written_comes_back_however_the_program_ends(any_box, end, how):
    result = await any_box.run(
        f"open('out/so-far', 'w').write('42')\n{end}", timeout_s=2, output_cap_bytes=1000
    )
    assert (result.how, result.files) == (how, {"so-far": b"42"})


async def test_nothing_comes_back_of_a_cancelled_program(any_box):
    cancel = asyncio.Event()
    code = "import time; open('out/a', 'w').write('x'); time.sleep(1000)"
    running = asyncio.create_task(any_box.run(code, cancel=cancel))
    await asyncio.wait_for(any_box.started.wait(), 60)
    cancel.set()
    assert ((await running).how, (await running).outcome.files) == ("cancelled", ())


async def test_only_regular_files_come_out_and_what_stays_is_named_with_why(any_box):
    code = """
import os, socket
os.symlink("/etc/passwd", "out/link")
os.symlink("/", "out/root")
os.mkfifo("out/fifo")
open("out/once", "w").write("x")
os.link("out/once", "out/twice")
socket.socket(socket.AF_UNIX).bind("out/socket")
try: os.mknod("out/device", 0o20666, os.makedev(1, 3))
except OSError as error: print("no device")
open("out/good", "w").write("good")
"""
    result = (await any_box.run(code)).ok()
    assert result.files == {"good": b"good"}
    assert result.left["link"] == result.left["root"] == "it is a symbolic link"
    assert result.left["fifo"] == "it is a FIFO"
    assert result.left["socket"] == "it is a socket"
    assert "hard link" in result.left["once"]
    assert "hard link" in result.left["twice"]
    assert result.left.get("device", "it is a device") == "it is a device"


async def test_an_out_folder_that_is_none_is_named(any_box):
    for code, why in (
        ("import os; os.rmdir('out'); os.symlink('/etc', 'out')", "as a folder"),
        ("import os; os.rmdir('out'); open('out', 'w').write('x')", "as a folder"),
    ):
        result = (await any_box.run(code)).ok()
        assert result.files == {}
        assert why in result.left["out"]
    assert (await any_box.run("import os; os.rmdir('out')")).ok().left == {}


async def test_names_that_confuse_are_left_and_shown_safely(any_box):
    code = """
import os
turned = "turn\\u202ened".encode()
for name in (b"new\\nline", b"not-utf8-\\xff", turned, b"back\\\\slash", b"c:on", b"\\x1b[2J"):
    open(b"out/" + name, "w").write("x")
open("out/\\u00e9t\\u00e9", "w").write("fine")
"""
    result = (await any_box.run(code)).ok()
    assert result.files == {"\u00e9t\u00e9": b"fine"}
    assert result.left.keys() == {
        "new\\nline",
        "not-utf8-\\xff",
        "turn\\u202ened",
        "back\\slash",
        "c:on",
        "\\x1b[2J",
    }
    assert set(result.left.values()) == {"its name is not allowed"}


async def test_more_files_bytes_and_folders_than_may_come_stay_and_are_counted(any_box):
    code = """
import os
for number in range(1000):
    open(f"out/{number:04}", "w").write("x")
"""
    result = (await any_box.run(code, out_files=FileCaps(total_bytes=MIB, files=10, depth=16))).ok()
    assert sorted(result.files) == [f"{number:04}" for number in range(10)]
    assert len(result.outcome.left) == 100
    assert result.outcome.left[0].why == "more than 10 files are not taken"
    assert "891 more" in result.outcome.left[-1].why

    code = "for name, size in (('a', 600), ('b', 600), ('c', 1)): open(f'out/{name}', 'w').write('x' * size)"
    result = (await any_box.run(code, out_files=FileCaps(total_bytes=1000, files=10, depth=16))).ok()
    assert result.files.keys() == {"a", "c"}
    assert "600 bytes; 1,000 may come" in result.left["b"]

    code = "import os\nos.makedirs('out/1/2/3')\nfor f in ('1', '1/2', '1/2/3'): open(f'out/{f}/f', 'w')"
    result = (await any_box.run(code, out_files=FileCaps(total_bytes=1000, files=10, depth=2))).ok()
    assert (result.files.keys(), result.left.keys()) == ({"1/f", "1/2/f"}, {"1/2/3/"})


async def test_a_hundred_megabytes_go_in_and_out_with_the_worker_s_memory_flat(any_box, tmp_path):
    place = tmp_path / "large"
    digest = hashlib.sha256()
    with place.open("wb") as file:
        for _ in range(100):
            piece = os.urandom(MIB)
            digest.update(piece)
            file.write(piece)
    code = "import os; os.replace('large.bin', 'out/large.bin')"
    before = psutil.Process().memory_info().rss
    result = (await any_box.run(code, inputs={"large.bin": place}, memory_mb=512)).ok()
    [file] = result.outcome.files
    assert (file.path, file.size, file.sha256) == ("large.bin", 100 * MIB, digest.hexdigest())
    assert psutil.Process().memory_info().rss - before < 24 * MIB


async def test_the_time_for_files_is_not_the_program_s(any_box, tmp_path):
    place = tmp_path / "large"
    with place.open("wb") as file:
        file.truncate(60 * MIB)
    result = (await any_box.run("pass", inputs={"large": place}, memory_mb=256)).ok()
    assert result.outcome.wall_ms < 2000


async def test_the_owner_s_next_job_finds_nothing_of_the_files(any_box, files):
    code = "import os; print(sorted(os.listdir('.')), os.listdir('out')); open('out/mine', 'w').write('x')"
    first = (await any_box.run(code, inputs=files({"deep/secret": b"x"}))).ok()
    second = (await any_box.run(code)).ok()
    assert first.lines == ["['deep', 'job.py', 'out'] []"]
    assert second.lines == ["['job.py', 'out'] []"]


async def test_inputs_that_cannot_be_written_are_the_machine_s_fault_where_they_lie_on_its_disk(
    process_box, files
):
    inputs = files({"a/b": b"x", "a": b"y"})
    with pytest.raises(SandboxBroken, match="could not be written on the worker: a: "):
        await process_box.run("print('never')", inputs=inputs)


@pytest.mark.engine
async def test_inputs_that_turn_out_not_to_fit_fail_in_words_before_the_program_starts(box, files):
    inputs = files({"a/b": b"x", "a": b"y"})
    result = await box.run("print('never')", inputs=inputs)
    assert (result.how, result.stdout, box.started.is_set()) == ("failed", b"", False)
    assert "could not be put into its folder: a: " in result.outcome.reason
    assert result.outcome.wall_ms == 0
    (await box.run("print('next')")).ok()


async def test_cancel_works_while_files_go_in(any_box, tmp_path):
    place = tmp_path / "large"
    with place.open("wb") as file:
        file.truncate(200 * MIB)
    cancel = asyncio.Event()
    cancel.set()
    result = await any_box.run("print('never')", inputs={"large": place}, memory_mb=512, cancel=cancel)
    assert (result.how, result.stdout) == ("cancelled", b"")


async def test_a_file_that_is_not_as_announced_is_the_machine_s_fault(any_box, tmp_path):
    place = tmp_path / "short"
    place.write_bytes(b"x" * 10)
    for size in (20, 200_000):
        file = InputFile(path="short", sha256="0" * 64, size=size)
        with pytest.raises(SandboxBroken, match="short is not whole"):
            await any_box.sandbox.run(
                any_box.request("pass", inputs=((file, place),)), _no_output, _nothing, asyncio.Event()
            )


async def _no_output(stream, data):
    return


async def _nothing():
    return


@pytest.mark.engine
async def test_a_folder_as_large_as_the_memory_allows_is_made_where_inputs_need_it(box, tmp_path):
    place = tmp_path / "large"
    with place.open("wb") as file:
        file.truncate(100 * MIB)
    code = "import os; print(os.path.getsize('large'))"
    result = await box.run(code, inputs={"large": place}, memory_mb=128)
    assert result.ok().lines == [str(100 * MIB)]
