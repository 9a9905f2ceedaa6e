"""``gridx admin``: accounts, grants, the audit and backups, for administrators."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click

from gridx.commands import passwords, printing
from gridx.commands.account import password_file
from gridx.commands.credits import show_balance
from gridx.commands.grid import json_option, with_grid
from gridx.commands.quantities import CREDITS
from gridx.credits import format_credits
from gridx.errors import EXIT_JOB_FAILED, EXIT_OK
from gridx.messages import User, UserUpdate

if TYPE_CHECKING:
    from gridx.client import Client


@click.group("admin")
def admin() -> None:
    """See to accounts and the ledger, as an administrator."""


@admin.command("audit", short_help="Recompute the whole ledger.")
@json_option
@with_grid
async def audit(grid: Client, as_json: bool) -> int:
    """Recompute the whole ledger; exits with 1 when anything does not add up."""
    report = await grid.audit()
    if as_json:
        printing.as_json(report)
    else:
        for finding in report.findings:
            printing.out(printing.one_line(f"{finding.check}: {finding.message}"))
        verdict = "Everything adds up" if report.ok else f"{len(report.findings)} differences"
        printing.out(
            f"{verdict}: {report.accounts} accounts, {report.transactions} transactions, "
            f"{report.postings} postings, {report.jobs} jobs; "
            f"{format_credits(report.in_circulation)} credits in circulation, "
            f"{format_credits(report.held)} of them held."
        )
    return EXIT_OK if report.ok else EXIT_JOB_FAILED


@admin.command("grant")
@click.argument("to", metavar="USER")
@click.argument("amount", type=CREDITS)
@click.option("--note", default="", metavar="TEXT", help="What it is for; the user sees it.")
@json_option
@with_grid
async def grant(grid: Client, to: str, amount: int, note: str, as_json: bool) -> int:
    """Make AMOUNT credits for USER."""
    balance = await grid.grant(to, amount, note)
    if not as_json:
        printing.out(printing.one_line(f"{format_credits(amount)} credits were made for {balance.user}."))
    return show_balance(balance, as_json)


@admin.command("users")
@json_option
@with_grid
async def users(grid: Client, as_json: bool) -> int:
    """List all accounts."""
    found = await grid.users()
    if as_json:
        printing.as_json({"users": found})
        return EXIT_OK
    printing.table(
        ("ID", "USER", "ROLE", "STATE", "SINCE"),
        [
            (
                str(user.id),
                user.username,
                user.role,
                "disabled" if user.disabled else "",
                printing.when(user.created_at),
            )
            for user in found
        ],
        right=("ID",),
    )
    return EXIT_OK


@admin.command("create")
@click.argument("user")
@password_file
@json_option
@with_grid
async def create(grid: Client, user: str, password_file: Path | None, as_json: bool) -> int:
    """Make an account; also where registration is closed."""
    fresh = passwords.chosen(password_file, prompt=f"Password for {user}: ")
    return _tell(await grid.create_user(user, fresh), "has an account now", as_json)


@admin.command("password")
@click.argument("user")
@password_file
@json_option
@with_grid
async def password(grid: Client, user: str, password_file: Path | None, as_json: bool) -> int:
    """Set a new password; it ends the user's sign-ins. Asked for twice, or the first line of a pipe."""
    from gridx import credentials

    me = await grid.me()
    fresh = passwords.chosen(password_file, prompt=f"New password for {user}: ")
    changed = await grid.update_user(user, UserUpdate(password=fresh))
    if changed.id == me.id:
        # One's own sign-in ended with the old password.
        session = await grid.login(changed.username, fresh, label="gridx")
        grid.token = session.token
        credentials.remember(grid.url, session)
    return _tell(changed, "has a new password", as_json)


@admin.command("disable")
@click.argument("user")
@json_option
@with_grid
async def disable(grid: Client, user: str, as_json: bool) -> int:
    """Shut a user out at once; jobs and credits stay."""
    return _tell(await grid.update_user(user, UserUpdate(disabled=True)), "is shut out", as_json)


@admin.command("enable")
@click.argument("user")
@json_option
@with_grid
async def enable(grid: Client, user: str, as_json: bool) -> int:
    """Let a user in again."""
    return _tell(await grid.update_user(user, UserUpdate(disabled=False)), "may sign in again", as_json)


@admin.command("role")
@click.argument("user")
@click.argument("role", type=click.Choice(("user", "admin")))
@json_option
@with_grid
async def role(grid: Client, user: str, role: Literal["user", "admin"], as_json: bool) -> int:
    """Make somebody an administrator, or a user again."""
    return _tell(
        await grid.update_user(user, UserUpdate(role=role)),
        f"is {'an administrator' if role == 'admin' else 'a user'} now",
        as_json,
    )


@admin.command("backup", short_help="Save a copy of the database.")
@click.argument("file", type=click.Path(path_type=Path))
@with_grid
async def backup(grid: Client, file: Path) -> int:
    """Save a copy of the database to FILE, which must be new, while the coordinator runs."""
    count = await grid.backup(file)
    printing.out(printing.one_line(f"{printing.size(count)} are in {file}."))
    return EXIT_OK


def _tell(user: User, what: str, as_json: bool) -> int:
    if as_json:
        printing.as_json(user)
    else:
        printing.out(printing.one_line(f"{user.username} {what}."))
    return EXIT_OK


COMMANDS: Final = (admin,)
