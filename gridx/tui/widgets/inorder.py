"""Keys in the order in which they were typed, in fields of text.

Textual inserts a letter when the field gets it, but runs a key with a binding (Backspace, the arrows, Escape)
only after the key went up through all containers. When several arrive at once, as over a slow line, "ab",
Backspace, "c" would become "ab", and what was typed after Escape would still go into the field. So fields run
bindings at once, and hand on what they get after they lost the focus. Over such a line Escape and the next
key also come as one, which is what Alt and that key look like.
"""

from __future__ import annotations

from textual import events
from textual.widget import Widget


async def act_at_once(field: Widget, event: events.Key) -> None:
    """Take a key in order: to whom it belongs by now, or by the binding that is in force."""
    if await _taken(field, event):
        event.stop()
        event.prevent_default()


async def _taken(field: Widget, event: events.Key) -> bool:
    """Whether the key was dealt with here; otherwise it goes the usual way."""
    active = field.screen.active_bindings.get(event.key)
    alt = event.key.startswith("alt+")
    if field.app.focused is not field:
        field.app.post_message(events.Key(event.key, event.character))
        return True
    if alt and active is None:
        field.app.post_message(events.Key("escape", None))
        field.app.post_message(events.Key(_without_alt(event), event.character))
        return True
    if not alt and field.check_consume_key(event.key, event.character):
        return False
    return active is not None and await field.app.run_action(active.binding.action, active.node)


def _without_alt(event: events.Key) -> str:
    key = event.key.removeprefix("alt+")
    return event.character if key.startswith("shift+") and event.character else key
