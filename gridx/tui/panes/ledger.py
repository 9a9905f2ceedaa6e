"""One's credits: what one has and what is held, every entry with its reason; for admins every account."""

from __future__ import annotations

import asyncio
from datetime import date
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
from gridx.messages import Balance, Entry, EntryPage, User
from gridx.tui import account_deeds, describe, figures
from gridx.tui.accountbook import PAGE, REASONS, AccountBook, by_day
from gridx.tui.commands import bindings
from gridx.tui.messages import JobOpened
from gridx.tui.panes.pane import Finder, Pane
from gridx.tui.screens.form import FormField, FormScreen
from gridx.tui.state import Changes
from gridx.tui.widgets.bars import Part
from gridx.tui.widgets.note import Note
from gridx.tui.widgets.readout import Readout
from gridx.tui.widgets.table import Cell, Column, GridTable, Key, Row

ACCOUNTS: Final = 200
READ_DELAY_S: Final = 0.5
ENTRIES: Final = (
    Column("at", "when", 8),
    Column("kind", "kind", 8),
    Column("amount", "credits", 10, right=True),
    Column("job", "job", 5, rank=1, right=True),
    Column("note", "reason", 12, rank=2, stretch=True),
)
USERS: Final = (
    Column("user", "user", 12, stretch=True),
    Column("role", "role", 6, rank=4),
    Column("balance", "balance", 12, right=True),
    Column("held", "held", 9, rank=1, right=True),
    Column("earned", "earned", 10, rank=2, right=True),
    Column("spent", "spent", 10, rank=5, right=True),
    Column("joined", "joined", 10, rank=3, right=True),
)


class LedgerPane(Pane):
    """Balance, totals by day, entries; or every account."""

    NAME = "ledger"
    BINDINGS = bindings("ledger")

    def __init__(self) -> None:
        super().__init__()
        self.book = AccountBook()
        self.balances: dict[str, Balance] = {}
        self.users: dict[str, User] = {}
        self.words: tuple[str, ...] = ()
        self._accounts = False
        self._verdict: Content | None = None
        self._timer: Timer | None = None
        self._readout = Readout(id="balance")
        self._entry_table = GridTable(ENTRIES, self._cells, empty="Reading ...", sticky=False)
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
        self._accounts = self.grid.role == "coordinator"  # whoever looks from there sees to all of them
        self._user_table.display = self._accounts
        self._entry_table.display = not self._accounts
        self._said.display = False

    @property
    def entries(self) -> dict[int, Entry]:
        """One's newest entries, newest first."""
        return self.book.entries

    @property
    def user(self) -> User | None:
        """The account under the cursor, where the accounts are shown."""
        key = self._user_table.key
        return self.users.get(key) if self._accounts and isinstance(key, str) else None

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

    def on_resize(self) -> None:
        self.call_after_refresh(self._summary)

    def _read_soon(self) -> None:
        if self._timer is None:
            self._timer = self.set_timer(READ_DELAY_S, self._read_now)

    def _read_now(self) -> None:
        self._timer = None
        if self.state.link.connected:
            self.run_worker(self._read(), exclusive=True, group="ledger")

    async def _read(self) -> None:
        try:
            await self.book.read(self._page, self._today())
            if self._accounts and self.state.admin:
                await self._read_accounts()
        except GridError as error:
            self.grid.tell_error(error)
            return
        self._fill()

    async def _page(self, before: int | None) -> EntryPage:
        return await self.grid.client.entries(limit=PAGE, before=before)

    async def _read_accounts(self) -> None:
        users = await self.grid.client.users()
        users = sorted(users, key=lambda user: user.created_at, reverse=True)[:ACCOUNTS]
        gate = asyncio.Semaphore(8)

        async def read(name: str) -> Balance:
            async with gate:
                return await self.grid.client.balance(name)

        balances = await asyncio.gather(*(read(user.username) for user in users))
        self.balances = {balance.user: balance for balance in balances}
        self.users = {user.username: user for user in users}

    def _today(self) -> date:
        return self.grid.clock.now().astimezone().date()

    # -- showing -----------------------------------------------------------------------------------------

    def _fill(self) -> None:
        shown = [entry.id for entry in self.entries.values() if self._passes(entry)]
        self._entry_table.show(shown)
        self._entry_table.empty = "No entry has these words." if self.words else "No entries yet."
        self._user_table.show([name for name in self.users if self._named(name)])
        self._summary()

    def _passes(self, entry: Entry) -> bool:
        text = f"{entry.kind} {entry.job_id or ''} {_reason(entry)}".casefold()
        return all(word in text for word in self.words)

    def _named(self, name: str) -> bool:
        return all(word in f"{name} {self.users[name].role}".casefold() for word in self.words)

    def _summary(self) -> None:
        balance = self.state.balance
        if balance is None:
            return
        self.title(f"{len(self.users)} accounts" if self._accounts else f"of {safetext.line(balance.user)}")
        width = self._readout.size.width or self.size.width - 2
        self._readout.show([*_totals(balance), *self._plots(width)])

    def _plots(self, width: int) -> list[list[Part]]:
        """What came in and went out, a column a day."""
        today = self._today()
        days = self.book.days(today)
        sums = by_day(list(self.entries.values()), today, days)
        words = [
            f" most {describe.credits_short(max(values))} a day" if any(values) else "" for values in sums
        ]
        room = width - 6
        if room - max(map(len, words)) < min(days, 10):
            words = ["", ""]
        days = max(1, min(days, room - max(map(len, words))))
        lines = []
        for label, values, most in zip(("in ", "out"), sums, words, strict=True):
            drawn = figures.graph([float(value) for value in values], days, float(max([*values, 1])))
            lines.append([Part(f" {label} ", "muted"), Part(drawn, "primary"), Part(most, "muted")])
        return lines

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
            Cell(_reason(entry), "muted"),
        )

    def _user_cells(self, key: Key) -> Row | None:
        balance = self.balances.get(str(key))
        if balance is None:
            return None
        user = self.users.get(balance.user)
        if user is None:
            return None
        return (
            Cell(safetext.line(balance.user) + (" (closed)" if user.disabled else "")),
            Cell(user.role, "muted"),
            Cell(describe.credits_short(balance.balance)),
            Cell(describe.credits_short(balance.held), "muted"),
            Cell(describe.credits_short(balance.earned), "muted"),
            Cell(describe.credits_short(balance.spent), "muted"),
            Cell(user.created_at.astimezone().strftime("%Y-%m-%d"), "muted"),
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
        self.refresh_bindings()
        self._read_now()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """What is done to an account is done where the accounts are, by administrators."""
        if action in ("grant", "new_user", "disable", "password"):
            return self._accounts and self.state.admin
        return True

    def action_grant(self) -> None:
        """Make credits for the chosen user."""
        if self.user is not None:
            account_deeds.grant(self.grid, self.user, self._read_soon)

    def action_new_user(self) -> None:
        """Make an account."""
        account_deeds.create(self.grid, self._read_soon)

    def action_disable(self) -> None:
        """Close the chosen account, or open it again."""
        if self.user is not None:
            account_deeds.toggle(self.grid, self.user, self._read_soon)

    def action_password(self) -> None:
        """Set another password for the chosen user."""
        if self.user is not None:
            account_deeds.password(self.grid, self.user, self._read_soon)

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
        at = f"{self.grid.clock.now().astimezone():%H:%M:%S}"
        counted = f"{report.accounts} accounts, {report.transactions} transactions, {report.jobs} jobs"
        if report.ok:
            self._say(
                Content.assemble(("The audit finds no difference", "$success"), f" at {at}: {counted}.")
            )
            return
        found = "; ".join(safetext.line(f.message) for f in report.findings[:5])
        self._say(
            Content.assemble(
                (f"The audit finds {len(report.findings)} differences", "$error"), f" at {at}: {found}"
            )
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


def _totals(balance: Balance) -> list[list[Part]]:
    """What one has, in two lines of the same columns."""
    cells = [format_credits(amount) for amount in (balance.balance, balance.earned)]
    width = max(map(len, cells))
    return [
        [
            Part(" balance ", "muted"),
            Part(f"{cells[0]:<{width}}", "strong"),
            Part("  held  ", "muted"),
            Part(format_credits(balance.held)),
        ],
        [
            Part(" earned  ", "muted"),
            Part(f"{cells[1]:<{width}}", "success"),
            Part("  spent ", "muted"),
            Part(format_credits(balance.spent)),
        ],
    ]


def _reason(entry: Entry) -> str:
    """What an entry is for."""
    return safetext.line(entry.note) or REASONS[entry.kind]
