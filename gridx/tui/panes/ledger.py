"""One's credits: what one has and what is held, every entry with its reason; for admins every account."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Final

from textual import on
from textual.app import ComposeResult
from textual.content import Content
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Input

from gridx import safetext
from gridx.credits import format_credits, parse_credits
from gridx.errors import GridError, InvalidField
from gridx.messages import Balance, Entry
from gridx.tui import describe, figures
from gridx.tui.commands import bindings
from gridx.tui.messages import JobOpened
from gridx.tui.panes.pane import Finder, Pane
from gridx.tui.screens.form import FormField, FormScreen
from gridx.tui.state import Changes
from gridx.tui.widgets.bars import Part
from gridx.tui.widgets.note import Note
from gridx.tui.widgets.readout import Readout
from gridx.tui.widgets.table import Cell, Column, GridTable, Key, Row

PAGE: Final = 300
ACCOUNTS: Final = 200
READ_DELAY_S: Final = 0.5
DAYS: Final = 30
ENTRIES: Final = (
    Column("at", "when", 8),
    Column("kind", "kind", 8),
    Column("amount", "credits", 10, right=True),
    Column("job", "job", 5, rank=1, right=True),
    Column("note", "reason", 12, rank=2, stretch=True),
)
USERS: Final = (
    Column("user", "user", 12, stretch=True),
    Column("role", "role", 6, rank=3),
    Column("balance", "balance", 12, right=True),
    Column("held", "held", 9, rank=1, right=True),
    Column("earned", "earned", 10, rank=2, right=True),
    Column("spent", "spent", 10, rank=4, right=True),
)


def by_day(entries: Sequence[Entry], last: date, days: int) -> tuple[list[int], list[int]]:
    """What came in and what went out on each of the ``days`` up to ``last``, in microcredits.

    What was held and given back nets to what was spent.
    """
    gained: dict[date, int] = defaultdict(int)
    spent: dict[date, int] = defaultdict(int)
    for entry in entries:
        day = entry.at.astimezone().date()
        if entry.kind in ("hold", "release") or (entry.kind == "transfer" and entry.amount < 0):
            spent[day] -= entry.amount
        else:
            gained[day] += entry.amount
    span = [last - timedelta(days=n) for n in range(days - 1, -1, -1)]
    return [max(0, gained[day]) for day in span], [max(0, spent[day]) for day in span]


class LedgerPane(Pane):
    """Balance, totals by day, entries; or every account."""

    NAME = "ledger"
    BINDINGS = bindings("ledger")

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[int, Entry] = {}
        self.balances: dict[str, Balance] = {}
        self.roles: dict[str, str] = {}
        self.words: tuple[str, ...] = ()
        self._accounts = False
        self._verdict: Content | None = None
        self._timer: Timer | None = None
        self._readout = Readout(id="balance")
        self._entry_table = GridTable(ENTRIES, self._cells, empty="No entries yet.", sticky=False)
        self._user_table = GridTable(USERS, self._user_cells, empty="No accounts.")
        self.finder = Finder("filter", "words of kind, job and reason")
        self._said = Note(id="verdict")

    def compose(self) -> ComposeResult:
        yield self._readout
        yield self._entry_table
        yield self._user_table
        yield self.finder
        yield self._said

    def on_mount(self) -> None:
        self._user_table.display = False
        self._said.display = False

    @property
    def table(self) -> GridTable:
        """The list that is shown."""
        return self._user_table if self._accounts else self._entry_table

    @property
    def entry(self) -> Widget:
        return self.table

    # -- reading -----------------------------------------------------------------------------------------

    def apply(self, changes: Changes) -> None:
        if changes.balance or changes.reread:
            self._summary()
            self._read_soon()

    def shown(self) -> None:
        self._summary()
        self._read_soon()

    def _read_soon(self) -> None:
        if self._timer is None:
            self._timer = self.set_timer(READ_DELAY_S, self._read_now)

    def _read_now(self) -> None:
        self._timer = None
        if self.state.link.connected:
            self.run_worker(self._read(), exclusive=True, group="ledger")

    async def _read(self) -> None:
        try:
            page = await self.grid.client.entries(limit=PAGE)
            self.entries = {entry.id: entry for entry in page.entries}
            if self._accounts:
                await self._read_accounts()
        except GridError as error:
            self.grid.tell_error(error)
            return
        self._fill()

    async def _read_accounts(self) -> None:
        users = (await self.grid.client.users())[:ACCOUNTS]
        gate = asyncio.Semaphore(8)

        async def read(name: str) -> Balance:
            async with gate:
                return await self.grid.client.balance(name)

        balances = await asyncio.gather(*(read(user.username) for user in users))
        self.balances = {balance.user: balance for balance in balances}
        self.roles = {user.username: user.role for user in users}

    # -- showing -----------------------------------------------------------------------------------------

    def _fill(self) -> None:
        shown = [entry.id for entry in self.entries.values() if self._passes(entry)]
        self._entry_table.show(shown)
        names = sorted(self.balances, key=str.casefold)
        self._user_table.show(names)
        self._summary()

    def _passes(self, entry: Entry) -> bool:
        text = f"{entry.kind} {entry.job_id or ''} {entry.note}".casefold()
        return all(word in text for word in self.words)

    def _summary(self) -> None:
        balance = self.state.balance
        if balance is None:
            return
        self.title(
            f"{len(self.balances)} accounts" if self._accounts else f"of {safetext.line(balance.user)}"
        )
        width = self._readout.size.width or self.size.width - 2
        lines = [
            [
                Part(" balance ", "muted"),
                Part(format_credits(balance.balance), "strong"),
                Part("  held ", "muted"),
                Part(format_credits(balance.held)),
            ],
            [
                Part(" earned  ", "muted"),
                Part(format_credits(balance.earned), "success"),
                Part("  spent ", "muted"),
                Part(format_credits(balance.spent)),
            ],
        ]
        days = min(DAYS, max(1, width - 24))
        gained, spent = by_day(list(self.entries.values()), self.grid.clock.now().astimezone().date(), days)
        for label, values in (("in ", gained), ("out", spent)):
            drawn = figures.graph([float(value) for value in values], days, float(max([*values, 1])))
            most = f" most {describe.credits_short(max(values))} a day" if any(values) else ""
            lines.append([Part(f" {label} ", "muted"), Part(drawn, "primary"), Part(most, "muted")])
        self._readout.show(lines)

    def _cells(self, key: Key) -> Row | None:
        entry = self.entries.get(key) if isinstance(key, int) else None
        if entry is None:
            return None
        at = entry.at.astimezone()
        today = at.date() == self.grid.clock.now().astimezone().date()
        sign = "+" if entry.amount > 0 else ""
        return (
            Cell(at.strftime("%H:%M:%S") if today else at.strftime("%d %b"), "muted"),
            Cell(entry.kind),
            Cell(f"{sign}{describe.credits_short(entry.amount)}", "success" if entry.amount > 0 else ""),
            Cell(str(entry.job_id or ""), "muted"),
            Cell(safetext.line(entry.note), "muted"),
        )

    def _user_cells(self, key: Key) -> Row | None:
        balance = self.balances.get(str(key))
        if balance is None:
            return None
        return (
            Cell(safetext.line(balance.user)),
            Cell(self.roles.get(balance.user, ""), "muted"),
            Cell(describe.credits_short(balance.balance)),
            Cell(describe.credits_short(balance.held), "muted"),
            Cell(describe.credits_short(balance.earned), "muted"),
            Cell(describe.credits_short(balance.spent), "muted"),
        )

    # -- acting ------------------------------------------------------------------------------------------

    def action_filter(self) -> None:
        """Type a filter."""
        self.finder.open()

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        self.words = tuple(event.value.casefold().split())
        self._fill()

    @on(Input.Submitted)
    def _entered(self, event: Input.Submitted) -> None:
        event.stop()
        self.table.focus()

    @on(GridTable.Moved)
    def _moved(self, event: GridTable.Moved) -> None:
        event.stop()

    @on(GridTable.Opened)
    def _opened(self, event: GridTable.Opened) -> None:
        event.stop()
        entry = self.entries.get(event.key) if isinstance(event.key, int) else None
        if entry is not None and entry.job_id is not None:
            self.post_message(JobOpened(entry.job_id))
        elif isinstance(event.key, str):
            self._transfer_to(event.key)

    def action_transfer(self) -> None:
        """Give credits to another user."""
        self._transfer_to("")

    def _transfer_to(self, name: str) -> None:
        balance = self.state.balance
        have = format_credits(balance.balance) if balance is not None else "?"
        fields = [
            FormField("to", "to user", name, "ann"),
            FormField("amount", "credits", "", "2.5"),
            FormField("note", "note", "", "what it is for"),
        ]
        self.app.push_screen(
            FormScreen(
                "Transfer credits",
                f"You have {have}. It cannot be taken back.",
                fields,
                "Transfer",
                self._send,
            ),
            lambda said: self.grid.tell(said) if said else None,
        )

    async def _send(self, values: dict[str, str]) -> str:
        amount = parse_credits(values["amount"])
        to = values["to"].strip()
        if not to:
            raise InvalidField("Who is to get the credits?", "Give a user name.", field="to")
        balance = await self.grid.client.transfer(to, amount, values["note"].strip())
        self.state.put_balance(balance)
        self.grid.changed()
        return f"{format_credits(amount)} credits went to {safetext.line(to)}."

    def action_accounts(self) -> None:
        """Show every account, or one's own entries again."""
        if not self.state.admin:
            self.grid.tell("Only an administrator sees all accounts.", severity="warning")
            return
        self._accounts = not self._accounts
        self._user_table.display = self._accounts
        self._entry_table.display = not self._accounts
        self.table.focus()
        self._read_now()

    def action_audit(self) -> None:
        """Recompute the whole ledger and show the verdict."""
        if not self.state.admin:
            self.grid.tell("Only an administrator can have the ledger audited.", severity="warning")
            return
        self._say(Content("auditing ..."))
        self.run_worker(self._audit(), exclusive=True, group="audit")

    async def _audit(self) -> None:
        try:
            report = await self.grid.client.audit()
        except GridError as error:
            self._say(Content(safetext.line(str(error), limit=300)))
            return
        counted = f"{report.accounts} accounts, {report.transactions} transactions, {report.jobs} jobs"
        if report.ok:
            self._say(Content.assemble(("The audit finds no difference", "$success"), f": {counted}."))
            return
        found = "; ".join(safetext.line(f.message) for f in report.findings[:5])
        self._say(
            Content.assemble((f"The audit finds {len(report.findings)} differences", "$error"), f": {found}")
        )

    def _say(self, text: Content) -> None:
        self._said.display = True
        self._said.say(text)

    def action_copy(self) -> None:
        """Copy the line under the cursor."""
        key = self.table.key
        row = None if key is None else (self._user_cells(key) if self._accounts else self._cells(key))
        if row is not None:
            self.grid.copy("  ".join(cell.text for cell in row if cell.text), "the line")
