"""The whole API as its document describes it, asked at random for a bounded time: no 500, no surprise."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

SECONDS = int(os.environ.get("GRIDX_TEST_FUZZ_S", "20"))
SEED = os.environ.get("GRIDX_TEST_FUZZ_SEED", "1")
COORDINATOR = {
    # Wrong sign-ins are among what is tried: they are not to end with being turned away for their number.
    "GRIDX_AUTH_LOGIN_FAILURES": "10000",
    "GRIDX_CREDITS_SIGNUP_GRANT": "100000",
}
WITHOUT = (
    # What the types allow may be refused for other reasons: no credits, two fields that exclude each other.
    "positive_data_acceptance",
    # GET /credits/grant is what the user "grant" has, GET /jobs/batch a job without such an id; the document
    # cannot say so of POST /credits/grant and POST /jobs/batch.
    "allow_header_conformance",
    "unsupported_method",
)


async def test_the_document_and_the_page_need_no_sign_in_and_load_nothing_from_elsewhere(grid):
    import aiohttp

    async with aiohttp.ClientSession() as session:
        async with session.get(grid.url + "/openapi.json") as answer:
            assert answer.status == 200
            told = await answer.json()
        async with session.get(grid.url + "/docs") as answer:
            assert answer.status == 200
            policy = answer.headers["Content-Security-Policy"]
            page = await answer.text()
    assert told["openapi"].startswith("3.1")
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert not re.search(r"<script|<img|<link|<iframe|src=|@import|url\(|https?://| on[a-z]+=", page)
    for path in told["paths"]:
        assert f" {path}</code>" in page, path


@pytest.mark.parametrize("name", ["ann", "admin"])
async def test_whatever_is_asked_the_answer_is_one_that_the_document_describes(grid, name, tmp_path):
    """In a process of its own, signed in by password: tokens do not survive this."""
    password = grid.standing.processes.admin_password if name == "admin" else "correct horse"
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("schemathesis")),
        *("run", f"{grid.url}/openapi.json", "--auth", f"{name}:{password}", "--no-color"),
        *("--phases", "coverage,fuzzing", "--max-time", str(SECONDS), "--seed", SEED),
        *("--checks", "all", "--exclude-checks", ",".join(WITHOUT), "--generation-database", "none"),
        # Two that work as they are told to: a worker leaves, the attacker changes the password and is out.
        *("--exclude-operation-id", "post_workers_id_drain", "--exclude-operation-id", "patch_users_name"),
        # To wait for a job may take as long as is asked for.
        *("--max-response-time", "90", "--request-timeout", "100"),
        cwd=tmp_path,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    await grid.sign_in()
    await grid.admin.resume_worker((await grid.admin.workers())[0].id)
    assert process.returncode == 0, said.decode(errors="replace")[-8000:]
    tried = re.search(rb"(\d+) generated", said)
    assert tried, said
    assert int(tried[1]) > 45, "hardly an operation was tried"
