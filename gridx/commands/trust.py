"""``gridx trust``: the certificates of coordinators that this person knows."""

from __future__ import annotations

import asyncio
import sys
from typing import Final

import click

from gridx.commands import printing
from gridx.commands.grid import json_option
from gridx.errors import EXIT_OK, EXIT_REFUSED, ConfigError, Untrusted


@click.command("trust", short_help="Which coordinators' certificates are known.")
@click.argument("url", required=False)
@click.option("--fingerprint", metavar="SHA256", help="Know this one, and do not ask the coordinator.")
@click.option("--yes", is_flag=True, help="Take the certificate that is there now, without a question.")
@click.option("--forget", metavar="HOST:PORT", help="Know nothing of a coordinator any more.")
@json_option
def trust(url: str | None, fingerprint: str | None, yes: bool, forget: str | None, as_json: bool) -> int:
    """List the certificates of coordinators that are known, or know another one from now on.

    The first connection to a coordinator keeps its certificate; later ones to another are refused, and
    nothing is sent. Compare the fingerprint with what the coordinator prints at its start.
    """
    from gridx.known_coordinators import KnownCoordinators, digest, place, written
    from gridx.trust import certificate_at

    known = KnownCoordinators()
    if forget is not None:
        there = place(forget if "://" in forget else f"https://{forget}")
        printing.out(printing.one_line(f"{there} is {'forgotten' if known.forget(there) else 'not known'}."))
        return EXIT_OK
    if url is None:
        return _show(known.all(), as_json)
    there = place(url if "://" in url else f"https://{url}")
    if url.startswith("http://"):
        raise ConfigError(f"{url} has no certificate.", f"Type: gridx trust https://{there}")
    now = written(digest(fingerprint)) if fingerprint else asyncio.run(certificate_at(f"https://{there}"))
    before = known.find(there)
    if now == before:
        printing.out(printing.one_line(f"{there} is known by {now} already."))
        return EXIT_OK
    if not fingerprint:
        printing.out(printing.one_line(f"{there}"))
        printing.out(printing.one_line(f"  known: {before or 'nothing'}"))
        printing.out(printing.one_line(f"  now:   {now}"))
        if not yes and not sys.stdin.isatty():
            raise Untrusted(
                "Whether this certificate is right has to be said by a person.",
                f"If the coordinator prints the same, add --yes, or: --fingerprint {now}",
            )
        if not yes and not click.confirm("Does the coordinator print the same at its start?"):
            return EXIT_REFUSED
    known.keep(there, now)
    printing.out(printing.one_line(f"{there} is known by {now} from now on."))
    return EXIT_OK


def _show(known: dict[str, str], as_json: bool) -> int:
    if as_json:
        printing.as_json({"coordinators": known})
    elif known:
        printing.table(("COORDINATOR", "CERTIFICATE"), sorted(known.items()))
    else:
        printing.out("No coordinator's certificate is known yet; the first https connection keeps it.")
    return EXIT_OK


COMMANDS: Final = (trust,)
