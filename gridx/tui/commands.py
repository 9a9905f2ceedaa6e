"""One registry of what can be done: it feeds the key bindings, the footer, the help and the palette.

A command belongs to a scope, the widget or screen whose focus makes it available. Its keys can be changed by
its name, ``SCOPE_NAME``, in the section ``[keys]`` of the configuration.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from textual.binding import Binding, BindingType
from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.content import Content

PANES: Final = (
    ("jobs", "Jobs"),
    ("submit", "Submit"),
    ("output", "Output"),
    ("monitor", "Monitor"),
    ("workers", "Workers"),
    ("ledger", "Ledger"),
    ("log", "Log"),
)
"""Panes in the order of their numbers: (name, title)."""


@dataclass(frozen=True, slots=True)
class Command:
    """One thing that can be done.

    ``label`` is for the footer, ``help`` a sentence for help and palette; ``show`` puts it into the footer.
    """

    scope: str
    name: str
    keys: str
    action: str
    label: str
    help: str
    show: bool = False
    priority: bool = False

    @property
    def id(self) -> str:
        """The name under which its keys can be changed."""
        return f"{self.scope}_{self.name}"

    def binding(self) -> Binding:
        """As Textual wants it."""
        return Binding(
            self.keys,
            self.action,
            self.label,
            show=self.show,
            priority=self.priority,
            tooltip=self.help,
            id=self.id,
        )


COMMANDS: Final[tuple[Command, ...]] = (
    # The whole application.
    Command("app", "quit", "q", "quit", "Quit", "Leave; asks first while jobs run here.", True),
    Command("app", "quit_always", "ctrl+q", "quit", "Quit", "Leave, also from a text field.", False, True),
    Command("app", "help", "question_mark,f1", "help", "Help", "Show every key that works here.", True),
    Command("app", "theme", "t", "next_theme", "Theme", "Change between dark and light."),
    # The dashboard.
    Command("desk", "submit", "f5,ctrl+j", "submit", "Run", "Submit the program in the editor.", True),
    *(
        Command("desk", f"pane_{name}", f"{n},alt+{n}", f"pane('{name}')", title, f"Go to the pane {title}.")
        for n, (name, title) in enumerate(PANES, 1)
    ),
    Command("desk", "next", "ctrl+right,alt+right", "turn(1)", "Next pane", "Go to the next pane."),
    Command("desk", "previous", "ctrl+left,alt+left", "turn(-1)", "Last pane", "Go to the pane before."),
    Command("desk", "zoom", "z", "zoom", "Zoom", "Give the pane the whole screen, and back.", True),
    Command("desk", "output", "l", "output", "Output", "Go to the output of the chosen job.", True),
    Command("desk", "freeze", "p", "freeze", "Pause", "Stop the screen from changing, and go on."),
    Command("desk", "back", "escape", "back", "Leave", "Leave a field, a filter or the zoom.", True),
    # Lists.
    Command("table", "up", "up,k", "move(-1)", "Up", "Go up a line."),
    Command("table", "down", "down,j", "move(1)", "Down", "Go down a line."),
    Command("table", "page_up", "pageup,ctrl+u", "page(-1)", "Page up", "Go up a screenful."),
    Command("table", "page_down", "pagedown,ctrl+d", "page(1)", "Page down", "Go down a screenful."),
    Command("table", "first", "home,g", "first", "First", "Go to the first line."),
    Command("table", "last", "end,G", "last", "Last", "Go to the last line."),
    Command("table", "open", "enter", "open", "Open", "Open the line under the cursor.", True),
    # Text that comes in.
    Command("lines", "up", "up,k", "scroll(-1)", "Up", "Go up a line."),
    Command("lines", "down", "down,j", "scroll(1)", "Down", "Go down a line."),
    Command("lines", "page_up", "pageup,ctrl+u", "scroll_pages(-1)", "Page up", "Go up a screenful."),
    Command("lines", "page_down", "pagedown,ctrl+d", "scroll_pages(1)", "Page down", "Go down a screenful."),
    Command("lines", "first", "home,g", "first", "First", "Go to the beginning."),
    Command("lines", "last", "end,G", "last", "Last", "Go to the end, and follow."),
    Command("lines", "follow", "f", "follow", "Follow", "Stay at the newest line, or stop there.", True),
    Command("lines", "search", "slash", "search", "Search", "Look for text.", True),
    Command("lines", "match", "n", "match(1)", "Next", "Go to the next place that was found."),
    Command("lines", "match_back", "N", "match(-1)", "Last", "Go to the place found before."),
    Command("lines", "copy", "y", "copy", "Copy", "Copy what is selected, or all of it.", True),
    # Panes.
    Command("jobs", "cancel", "c", "cancel", "Cancel", "Cancel the chosen job; asks first.", True),
    Command("jobs", "retry", "r", "retry", "Retry", "Submit an ended job anew, as it was."),
    Command("jobs", "edit", "e", "edit", "Edit", "Put the job into the editor, to change and submit it."),
    Command("jobs", "unfold", "u", "unfold", "Unfold", "Show an array's elements, and the list again.", True),
    Command("jobs", "filter", "slash", "filter", "Filter", "Filter: words, state:, owner:, worker:.", True),
    Command("jobs", "sort", "s", "sort", "Sort", "Sort by the next column."),
    Command("jobs", "reverse", "S", "reverse", "Reverse", "Turn the order around."),
    Command("jobs", "copy", "y", "copy", "Copy id", "Copy the job's id."),
    Command("jobs", "older", "right_square_bracket", "older", "Older", "Show the jobs before these."),
    Command("jobs", "newer", "left_square_bracket", "newer", "Newer", "Show the jobs after these."),
    Command("submit", "open", "ctrl+o", "open_file", "Open", "Read a program from a file.", True),
    Command("submit", "history", "f3", "history", "History", "Choose from what was submitted before.", True),
    Command("submit", "clear", "f4", "clear", "New", "Begin with an empty program.", True),
    Command("output", "stream", "o", "stream", "Streams", "Show both streams, or one of them.", True),
    Command("output", "save", "w", "save", "Save", "Write the output to a file.", True),
    Command("workers", "pause", "p", "pause", "Pause", "Give the worker nothing new; asks first.", True),
    Command(
        "workers",
        "give_back",
        "b",
        "give_back",
        "Give back",
        "Pause it and have its jobs run elsewhere.",
        True,
    ),
    Command("workers", "resume", "r", "resume", "Resume", "Give the worker jobs again.", True),
    Command("workers", "drain", "d", "drain", "Drain", "Let the worker finish and leave; asks first.", True),
    Command("workers", "sort", "s", "sort", "Sort", "Sort by the next column."),
    Command("workers", "reverse", "S", "reverse", "Reverse", "Turn the order around."),
    Command("workers", "copy", "y", "copy", "Copy id", "Copy the worker's id."),
    Command("ledger", "transfer", "x", "transfer", "Transfer", "Give credits to another user.", True),
    Command("ledger", "filter", "slash", "filter", "Filter", "Show the entries with these words.", True),
    Command("ledger", "accounts", "a", "accounts", "Accounts", "Entries, or every account (admins).", True),
    Command("ledger", "audit", "v", "audit", "Audit", "Recompute the whole ledger (admins)."),
    Command("ledger", "copy", "y", "copy", "Copy", "Copy the line."),
    Command("ledger", "grant", "m", "grant", "Grant", "Make credits for the chosen user (admins).", True),
    Command("ledger", "new_user", "n", "new_user", "New user", "Make an account (admins).", True),
    Command("ledger", "password", "w", "password", "Password", "Set the user's password (admins)."),
    Command("ledger", "disable", "d", "disable", "Close", "Close the account, or open it again (admins)."),
    Command("log", "level", "v", "level", "Level", "Show from the next level on.", True),
    # A job's own screen.
    Command("job", "back", "escape,q", "back", "Back", "Back to the dashboard.", True),
    Command("job", "output", "l", "output", "Output", "Go to its output.", True),
    Command("job", "cancel", "c", "cancel", "Cancel", "Cancel it; asks first.", True),
    Command("job", "retry", "r", "retry", "Retry", "Submit it anew, as it was.", True),
    Command("job", "edit", "e", "edit", "Edit", "Put it into the editor, to change and submit it.", True),
    Command("job", "copy", "y", "copy", "Copy id", "Copy its id."),
    Command("job", "files", "w", "files", "Files", "Show what it gave back, and save it.", True),
    Command("job", "unfold", "u", "unfold", "Unfold", "Show the elements of the array."),
)


def bindings(*scopes: str) -> list[BindingType]:
    """The bindings of some scopes, for ``BINDINGS``."""
    return [command.binding() for command in COMMANDS if command.scope in scopes]


class GridCommands(Provider):
    """The palette: what can be done where one is."""

    def _found(self) -> Iterator[tuple[str, str, partial[Any]]]:
        seen: set[str] = set()
        for active in self.screen.active_bindings.values():
            binding = active.binding
            if not binding.tooltip or not active.enabled or binding.action in seen:
                continue
            if not binding.show and str(binding.id).startswith(("table_", "lines_")):
                continue  # nobody goes up a line by typing its name
            seen.add(binding.action)
            yield (
                f"{binding.description} ({self.app.get_key_display(binding)})",
                binding.tooltip,
                partial(self.app.run_action, binding.action, active.node),
            )

    async def discover(self) -> Hits:
        """All of it, before anything is typed."""
        for title, help_text, run in self._found():
            yield DiscoveryHit(Content(title), run, text=title, help=help_text)

    async def search(self, query: str) -> Hits:
        """What matches."""
        matcher = self.matcher(query)
        for title, help_text, run in self._found():
            text = f"{title} {help_text}"
            if (score := matcher.match(text)) > 0:
                yield Hit(score, Content(title), run, text=title, help=help_text)
