"""``gridx credits`` and ``transfer``: what one has, where it came from and went, and giving it away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from gridx.commands import printing
from gridx.commands.grid import json_option, with_grid
from gridx.commands.quantities import CREDITS, JOB_ID
from gridx.credits import format_credits
from gridx.errors import EXIT_OK
from gridx.messages import Balance

if TYPE_CHECKING:
    from gridx.client import Client


@click.command("credits", short_help="Show a balance or its movements.")
@click.argument("user", required=False)
@click.option("--entries", is_flag=True, help="Every movement of the account, newest first.")
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True, help="How many entries.")
@click.option("--before", type=JOB_ID, metavar="ID", help="Only entries older than this one: the next page.")
@json_option
@with_grid
async def credits(
    grid: Client, user: str | None, entries: bool, limit: int, before: int | None, as_json: bool
) -> int:
    """Show a balance: one's own, or as an administrator that of USER."""
    if not entries:
        return show_balance(await grid.balance(user), as_json)
    page = await grid.entries(user, limit=limit, before=before)
    if as_json:
        printing.as_json(page)
        return EXIT_OK
    printing.table(
        ("ID", "WHEN", "KIND", "AMOUNT", "JOB", "NOTE"),
        [
            (
                str(entry.id),
                printing.when(entry.at),
                entry.kind,
                ("+" if entry.amount > 0 else "") + format_credits(entry.amount),
                str(entry.job_id or ""),
                entry.note,
            )
            for entry in page.entries
        ],
        right=("ID", "AMOUNT", "JOB"),
    )
    if page.next is not None:
        whose = f"{user} " if user else ""
        printing.note(f"There are more: gridx credits {whose}--entries --before {page.next}")
    return EXIT_OK


@click.command("transfer")
@click.argument("to", metavar="USER")
@click.argument("amount", type=CREDITS)
@click.option("--note", default="", metavar="TEXT", help="What it is for; both see it.")
@json_option
@with_grid
async def transfer(grid: Client, to: str, amount: int, note: str, as_json: bool) -> int:
    """Give AMOUNT of your credits to USER."""
    balance = await grid.transfer(to, amount, note)
    if not as_json:
        printing.out(printing.one_line(f"{format_credits(amount)} credits went to {to}."))
    return show_balance(balance, as_json)


def show_balance(balance: Balance, as_json: bool) -> int:
    """Print what an account has."""
    if as_json:
        printing.as_json(balance)
        return EXIT_OK
    printing.fields(
        [
            ("user", balance.user),
            ("balance", f"{format_credits(balance.balance)} credits"),
            ("held", f"{format_credits(balance.held)} credits, for jobs that have not ended"),
            ("earned", f"{format_credits(balance.earned)} credits"),
            ("spent", f"{format_credits(balance.spent)} credits"),
        ]
    )
    return EXIT_OK


COMMANDS: Final = (credits, transfer)
