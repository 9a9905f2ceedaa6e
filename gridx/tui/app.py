"""The dashboard's application: screens, themes, what every screen can do.

``node.py`` calls :func:`run_dashboard`; everything else in this package is behind it.
"""

from __future__ import annotations

from collections.abc import Callable

from textual.app import App

from gridx.client import Client
from gridx.config import Role, Settings
from gridx.messages import Session
from gridx.tui.here import Here
from gridx.tui.logbook import Logbook


class GridApp(App[None]):
    """The dashboard of one coordinator as one user.

    Args:
        client: where the grid is; without a token the sign-in screen comes first.
        settings: the whole configuration.
        role: what this process is, which decides what is shown first.
        logbook: where the process's log lines are kept.
        here: what runs in this process, for the question before quitting.
        ascii_only: draw with ASCII alone (``--ascii``).
        remember: called with the address and the session after a sign-in, to save the token.
    """

    def __init__(
        self,
        client: Client,
        settings: Settings,
        *,
        role: Role,
        logbook: Logbook,
        here: Here | None = None,
        ascii_only: bool = False,
        remember: Callable[[str, Session], None] | None = None,
    ) -> None:
        super().__init__()
        self.client = client
        self.settings = settings
        self.role = role
        self.logbook = logbook
        self.here = here or Here()
        self.ascii_only = ascii_only
        self.remember = remember


async def run_dashboard(app: GridApp) -> int:
    """Show the dashboard until it is quit: 0, or 1 where the interface crashed (the services still run then).

    The caller has replaced handlers of ``logging`` that write to the terminal by the app's logbook, and ends
    the dashboard from outside with ``app.exit()``.
    """
    await app.run_async()
    return app.return_code or 0
