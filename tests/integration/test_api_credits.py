"""Credits over HTTP: one's own, given away once, and everybody's for an admin."""

from __future__ import annotations

import asyncio
import sqlite3


async def test_credits_are_given_to_another_user(grid):
    ann, bob = await grid.person("ann"), await grid.person("bob")
    answer = await ann.post("/credits/transfer", {"to": "Bob", "amount": 1_500_000, "note": "for lunch"})
    assert answer.status == 200
    assert (answer.json["user"], answer.json["balance"]) == ("ann", 98_500_000)
    assert (await bob.get("/credits/bob")).json["balance"] == 101_500_000
    entry = (await bob.get("/credits/bob/entries?limit=1")).json["entries"][0]
    assert (entry["kind"], entry["amount"], entry["note"]) == ("transfer", 1_500_000, "for lunch")


async def test_a_transfer_that_is_sent_again_moves_nothing_again(grid):
    ann = await grid.person("ann")
    await grid.person("bob")
    body, headers = {"to": "bob", "amount": 1_000_000}, {"Idempotency-Key": "k"}
    answers = await asyncio.gather(*(ann.post("/credits/transfer", body, headers=headers) for _ in range(5)))
    assert [answer.status for answer in answers] == [200] * 5
    assert (await ann.get("/credits/ann")).json["balance"] == 99_000_000
    other = await ann.post("/credits/transfer", {**body, "amount": 2}, headers=headers)
    assert other.status == 409
    grants = [await grid.admin.post("/credits/grant", body, headers=headers) for _ in range(2)]
    assert [grant.json["balance"] for grant in grants] == [102_000_000] * 2


async def test_what_cannot_be_transferred(grid):
    ann = await grid.person("ann")
    await grid.person("bob")
    answer = await ann.post("/credits/transfer", {"to": "bob", "amount": 100_000_001})
    assert (answer.status, answer.error["code"]) == (402, "insufficient_credits")
    assert answer.error["details"]["shortfall"] == 1
    assert (await ann.post("/credits/transfer", {"to": "nobody", "amount": 1})).status == 404
    assert (await ann.post("/credits/transfer", {"to": "ann", "amount": 1})).status == 409
    assert (await ann.post("/credits/transfer", {"to": "bob", "amount": 1, "from": "bob"})).status == 422


async def test_spends_at_once_never_overdraw(grid):
    ann, bob = await grid.person("ann"), await grid.person("bob")
    body = {"to": "bob", "amount": 60_000_000}
    answers = await asyncio.gather(*(ann.post("/credits/transfer", body) for _ in range(20)))
    assert sorted(answer.status for answer in answers) == [200] + [402] * 19
    assert (await bob.get("/credits/bob")).json["balance"] == 160_000_000


async def test_an_account_of_another_is_as_if_it_were_missing(grid):
    ann = await grid.person("ann")
    await grid.person("bob")
    for path in ("/credits/{}", "/credits/{}/entries"):
        theirs, missing = await ann.get(path.format("bob")), await ann.get(path.format("bub"))
        assert theirs.status == missing.status == 404
        assert theirs.content.replace(b"bob", b"bub") == missing.content
        assert (await grid.admin.get(path.format("bob"))).status == 200
        assert (await ann.get(path.format("ANN"))).status == 200


async def test_entries_go_by_pages_newest_first(grid):
    ann = await grid.person("ann")
    await grid.person("bob")
    for amount in (1, 2, 3, 4):
        await ann.post("/credits/transfer", {"to": "bob", "amount": amount})
    seen, path = [], "/credits/ann/entries?limit=2"
    while path:
        page = (await ann.get(path)).json
        seen.append([entry["amount"] for entry in page["entries"]])
        path = f"/credits/ann/entries?limit=2&before={page['next']}" if page["next"] else ""
    assert seen == [[-4, -3], [-2, -1], [100_000_000]]


async def test_an_admin_sees_that_all_adds_up_and_takes_a_copy(grid, tmp_path, until):
    ann = await grid.person("ann")
    await ann.submit()
    assert [user["username"] for user in (await grid.admin.get("/users")).json["users"]] == ["admin", "ann"]
    assert (await grid.admin.get("/admin/audit")).json["ok"]
    answer = await grid.admin.get("/admin/backup")
    assert answer.status == 200
    copy = tmp_path / "copy.db"
    copy.write_bytes(answer.content)
    with sqlite3.connect(copy) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("SELECT count(*) FROM jobs").fetchone() == (1,)
    database.close()
    folder = grid.settings.db_path.parent
    await until(lambda: not list(folder.glob(".backup-*")), "the backup's folder to be removed")
