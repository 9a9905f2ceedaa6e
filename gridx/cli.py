"""``gridx-tui``: flags to settings, then the node.

Nothing heavy is imported before the flags are read, so that ``--help`` answers at once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from gridx import __version__, privatefiles
from gridx.exits import complain, ending

ROLES = ("standalone", "coordinator", "worker", "viewer")


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--role",
    type=click.Choice(ROLES),
    help="What to start. standalone (the default): coordinator, worker and dashboard in one process, for "
    "this machine alone. viewer: a dashboard for a coordinator elsewhere.",
)
@click.option("--no-ui", is_flag=True, help="Run without the dashboard; the log goes to stderr.")
@click.option(
    "--coordinator-ip",
    metavar="HOST",
    help="The coordinator's machine, for a worker or a viewer; HOST:PORT works.",
)
@click.option("--coordinator", metavar="URL", help="The same as a URL: http://HOST:8081.")
@click.option("--user", metavar="NAME", help="Whose machine this is, or who looks. A new name is registered.")
@click.option(
    "--password-file", type=click.Path(path_type=Path), metavar="FILE", help="Its first line is the password."
)
@click.option(
    "--password", metavar="PASSWORD", help="Others on this machine can read it: prefer --password-file."
)
@click.option(
    "--config", type=click.Path(path_type=Path), metavar="FILE", help="Settings file (config.toml)."
)
@click.option("--host", metavar="ADDRESS", help="Address on which the coordinator listens.")
@click.option(
    "--http-port", type=int, metavar="N", help="The coordinator's port for users (8081; 0: any free one)."
)
@click.option(
    "--ws-port", type=int, metavar="N", help="The coordinator's port for workers (8080; 0: any free one)."
)
@click.option(
    "--tls",
    metavar="off|auto|CERT,KEY",
    help="Encrypt what the coordinator speaks: auto makes a certificate and prints its fingerprint; CERT,KEY "
    "are files of your own.",
)
@click.option("--db", metavar="PATH", help="The coordinator's database file.")
@click.option("--data-dir", metavar="FOLDER", help="Folder for database, log and a worker's results.")
@click.option(
    "--log-level", type=click.Choice(("debug", "info", "warning", "error")), help="Which lines to log."
)
@click.option("--log-format", type=click.Choice(("text", "json")), help="How a line of the log looks.")
@click.option("--ascii", "ascii_only", is_flag=True, help="Draw the dashboard with ASCII characters alone.")
@click.version_option(__version__, "-V", "--version", message="Grid-X %(version)s")
def command(**flags: Any) -> int:
    """Share the machines you have: run a coordinator, a worker, or everything on this machine.

    \b
    gridx-tui                                            everything, on this machine alone
    gridx-tui --role coordinator --no-ui                 the machine that coordinates
    gridx-tui --role worker --no-ui --user alice --coordinator-ip 192.168.1.10
    gridx-tui --role viewer --coordinator-ip 192.168.1.10
    """
    from gridx import node

    settings = settings_from(flags)
    screen = not flags["no_ui"]
    if screen and not _has_terminal():
        from gridx.errors import SetupError

        raise SetupError("There is no terminal to draw the dashboard on.", "To run without it use --no-ui.")
    return node.run(
        settings,
        screen=screen,
        ascii_only=flags["ascii_only"],
        password=node.Password(
            _given_password(flags),
            user=settings.worker.user or settings.client.user,
            may_ask=sys.stdin.isatty(),
        ),
    )


def settings_from(flags: dict[str, Any]) -> Any:
    """The settings that these flags, the environment and the file make together.

    Raises:
        ConfigError: a bad value, or flags that do not belong together.
    """
    from gridx import config
    from gridx.address import HTTP_PORT, WS_PORT, named, ws_url
    from gridx.errors import ConfigError

    values: dict[tuple[str, ...], Any] = {
        ("role",): flags["role"],
        ("data_dir",): flags["data_dir"],
        ("worker", "user"): flags["user"],
        ("client", "user"): flags["user"],
        ("coordinator", "host"): flags["host"],
        ("coordinator", "http_port"): flags["http_port"],
        ("coordinator", "ws_port"): flags["ws_port"],
        ("coordinator", "tls"): flags["tls"],
        ("coordinator", "db_path"): flags["db"],
        ("log", "level"): flags["log_level"],
        ("log", "format"): flags["log_format"],
    }
    if flags["coordinator"] and flags["coordinator_ip"]:
        raise ConfigError("--coordinator and --coordinator-ip say the same thing.", "Give one of them.")
    where = flags["coordinator"] or flags["coordinator_ip"]
    settings = config.load(flags["config"], flags=values)
    if where:
        # The ports of the coordinator's own settings are the ones to look for when the address names none.
        ports = settings.coordinator
        values["worker", "coordinator_http"] = named(where, ports.http_port or HTTP_PORT)
        values["worker", "coordinator_ws"] = ws_url(
            where, flags["ws_port"] or (ports.ws_port if ports.ws_port != WS_PORT else None)
        )
        values["client", "coordinator"] = values["worker", "coordinator_http"]
        settings = config.load(flags["config"], flags=values)
    if where and settings.role in ("standalone", "coordinator"):
        raise ConfigError(
            f"The role {settings.role} runs a coordinator of its own and joins no other.",
            "Add --role worker to offer this machine, or --role viewer to look.",
        )
    return settings


def _given_password(flags: dict[str, Any]) -> str | None:
    """The password from where it was given, if it was; never from a prompt."""
    if flags["password"] is not None:
        complain(
            "Warning: others on this machine can read --password in the list of processes.",
            "Use --password-file FILE, GRIDX_PASSWORD or the prompt instead.",
        )
        return str(flags["password"])
    if flags["password_file"] is not None:
        return read_password_file(flags["password_file"])
    return os.environ.get("GRIDX_PASSWORD")


def read_password_file(path: Path) -> str:
    """The first line of a file.

    Raises:
        SetupError: it cannot be read, or holds no text.
    """
    from gridx.errors import SetupError

    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SetupError(
            f"The password file {path} cannot be read: {error.strerror}.", "Check its name, owner and mode."
        ) from None
    except UnicodeDecodeError:
        raise SetupError(f"The password file {path} is not UTF-8.", "Save it as UTF-8.") from None
    if not lines or not lines[0]:
        raise SetupError(f"The password file {path} is empty.", "Write the password into its first line.")
    return lines[0]


def _has_terminal() -> bool:
    return (
        all(
            stream is not None and stream.isatty()
            for stream in (sys.__stdin__, sys.__stdout__, sys.__stderr__)
        )
        and os.environ.get("TERM", "") != "dumb"
    )


def main() -> None:
    """Entry point of ``gridx-tui``."""
    privatefiles.guard()
    sys.exit(ending(lambda: command.main(prog_name="gridx-tui", standalone_mode=False) or 0))


if __name__ == "__main__":
    main()
