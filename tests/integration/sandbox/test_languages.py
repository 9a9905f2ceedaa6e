"""Programs in every language, in real containers and as processes: output, exit codes, errors, limits."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys

import docker
import pytest
import pytest_asyncio

from gridx.services.worker.sandbox.engine import find_engine
from gridx.services.worker.sandbox.look import _seen, languages_of
from gridx.services.worker.sandbox.runtimes import DEFAULT_IMAGE, NODE_IMAGE

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(sys.platform != "linux", reason="sandboxes of Linux"),
]

ENGINE = pytest.mark.engine


def there(image: str) -> bool:
    try:
        client = docker.from_env()
    except docker.errors.DockerException:
        return False
    try:
        return bool(client.images.list(name=image))
    except docker.errors.DockerException:
        return False
    finally:
        client.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node_box(make_docker, make_box, containers_of):
    if not await asyncio.to_thread(there, NODE_IMAGE):
        pytest.skip(f"{NODE_IMAGE} is not here: scripts/build-runtime-image node makes it")
    sandbox = make_docker(runtimes=[NODE_IMAGE], warm=0)
    await sandbox.open()
    yield make_box(sandbox, "node")
    await sandbox.close()
    assert containers_of(sandbox) == []


@pytest.fixture(params=[pytest.param("box", marks=ENGINE), "process_box"])
def bash(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(params=[pytest.param("node_box", marks=ENGINE), "process_box"])
def node(request):
    if request.param == "process_box" and shutil.which("node") is None:
        pytest.skip("node is not installed here")
    return request.getfixturevalue(request.param)


# -- bash --------------------------------------------------------------------------------------------------


async def test_bash_runs_with_its_arguments_files_and_environment(bash, tmp_path):
    (tmp_path / "data").write_text("3\n1\n2\n")
    code = """
echo "$0 $# $1 $2 $MINE $GRIDX_JOB"
sort -n data.txt > out/sorted.txt
read -r line; echo "stdin: $? '$line'"
echo oops >&2
"""
    result = await bash.run(
        code,
        language="bash",
        args=("a b", "-c"),
        env={"MINE": "mine"},
        job_id=7,
        inputs={"data.txt": tmp_path / "data"},
    )
    assert result.ok().lines == ["job.sh 2 a b -c mine 7", "stdin: 1 ''"]
    assert (result.stderr, result.files) == (b"oops\n", {"sorted.txt": b"1\n2\n3\n"})


@pytest.mark.parametrize(
    ("code", "exit_code", "signal", "said"),
    [
        ("exit 3", 3, None, b""),
        ("false", 1, None, b""),
        ("if then", 2, None, b"syntax error"),
        ("no-such-program", 127, None, b"no-such-program: command not found"),
        ("kill -SEGV $$", None, 11, b""),
        ("set -e; false; echo never", 1, None, b""),
    ],
)
async def test_a_bash_program_that_fails_ends_with_its_own_status(bash, code, exit_code, signal, said):
    result = await bash.run(code, language="bash")
    outcome = result.outcome
    assert (outcome.outcome, outcome.exit_code, outcome.signal) == ("failed", exit_code, signal)
    assert said in result.stderr
    assert result.stdout == b""


async def test_a_broken_pipe_ends_a_bash_program_s_parts_as_it_does_elsewhere(bash):
    assert (await bash.run("yes | head -n 1; echo ${PIPESTATUS[0]}", language="bash")).ok().lines == [
        "y",
        "141",
    ]


async def test_tools_find_out_how_much_memory_there_is(bash):
    # Where that is refused, sort takes next to none, and more files than there may be.
    code = "seq 100000 | shuf > numbers; sort -n numbers | tail -n 1; getconf _PHYS_PAGES"
    last, pages = (await bash.run(code, language="bash", memory_mb=256)).ok().lines
    assert last == "100000"
    assert int(pages) == os.sysconf("SC_PHYS_PAGES")


async def test_bash_is_ended_with_all_that_it_started(bash):
    result = await bash.run("sleep 1000 & sleep 1000", language="bash", timeout_s=1)
    assert result.how == "timed_out"
    assert (await bash.run("sleep 1000 & echo done", language="bash")).ok().stdout == b"done\n"


async def test_a_bash_program_that_takes_too_much_memory_is_named_so(bash):
    code = "x=x; while true; do x=$x$x; done"
    assert (await bash.run(code, language="bash")).how in ("out_of_memory", "failed")


async def test_bytes_that_are_no_text_stay_what_they_are(bash):
    assert (await bash.run("printf '\\xff\\x00\\n'", language="bash")).ok().stdout == b"\xff\x00\n"


# -- javascript --------------------------------------------------------------------------------------------


async def test_javascript_runs_with_its_arguments_files_and_environment(node, tmp_path):
    (tmp_path / "data").write_text("[3, 1, 2]")
    code = """
const fs = require("fs");
console.log(process.argv[1].split("/").pop(), process.argv.slice(2), process.env.MINE);
const data = JSON.parse(fs.readFileSync("data.json"));
fs.writeFileSync("out/sum.json", JSON.stringify({sum: data.reduce((a, b) => a + b)}));
setTimeout(() => console.error("later"), 10);
"""
    result = await node.run(
        code,
        language="javascript",
        args=("a b", "--x"),
        env={"MINE": "mine"},
        memory_mb=256,
        inputs={"data.json": tmp_path / "data"},
    )
    assert result.ok().lines == ["job.js [ 'a b', '--x' ] mine"]
    assert (result.stderr, result.files) == (b"later\n", {"sum.json": b'{"sum":6}'})


@pytest.mark.parametrize(
    ("code", "exit_code", "said"),
    [
        ("process.exit(3)", 3, b""),
        ("let = = 1", 1, b"SyntaxError"),
        ("throw new Error('mine')", 1, b"Error: mine"),
        ("Promise.reject(new Error('mine'))", 1, b"mine"),
        ("require('no-such-module')", 1, b"Cannot find module"),
    ],
)
async def test_a_javascript_program_that_fails_ends_with_its_own_status(node, code, exit_code, said):
    result = await node.run(code, language="javascript", memory_mb=256)
    assert (result.how, result.outcome.exit_code) == ("failed", exit_code)
    assert said in result.stderr


async def test_a_javascript_program_is_timed_out_and_its_memory_is_limited(node):
    assert (
        await node.run("while (true);", language="javascript", timeout_s=1, memory_mb=256)
    ).how == "timed_out"
    code = "const kept = []; while (true) kept.push(Buffer.alloc(4 << 20, 1));"
    assert (await node.run(code, language="javascript", memory_mb=256)).how == "out_of_memory"


async def test_work_in_javascript_s_threads_is_done(node):
    code = """
const {Worker, isMainThread, parentPort} = require("worker_threads");
if (isMainThread) new Worker(__filename).on("message", (text) => console.log(text));
else parentPort.postMessage("from a thread");
"""
    assert (await node.run(code, language="javascript", memory_mb=256)).ok().stdout == b"from a thread\n"


# -- what is spoken ----------------------------------------------------------------------------------------


@ENGINE
async def test_a_runtime_that_does_not_say_what_it_speaks_is_looked_into(containers_of, make_docker, until):
    sandbox = make_docker(warm=0)
    engine = await find_engine("")
    try:
        found = await engine.call(engine.client.inspect_image, DEFAULT_IMAGE)
        _seen.clear()
        spoken = await languages_of(engine, found["Id"], "/usr/bin/python3", sandbox._identity)
        assert spoken == ["python", "bash"]
        # What an image speaks is looked up once.
        assert await languages_of(engine, found["Id"], "/usr/bin/python3", sandbox._identity) is spoken
        assert await languages_of(engine, "sha256:" + "0" * 64, "python3", "") == ["python"]
        assert containers_of(sandbox) == []
    finally:
        _seen.clear()
        await engine.close()


@ENGINE
async def test_the_default_runtime_speaks_python_and_bash(box):
    [runtime] = (await box.sandbox.status()).runtimes
    assert runtime.languages == ["python", "bash"]


async def test_processes_speak_what_is_installed_here(process_box):
    [runtime] = (await process_box.sandbox.status()).runtimes
    wanted = ["python", *(["bash"] if shutil.which("bash") else [])]
    assert [language for language in runtime.languages if language != "javascript"] == wanted
