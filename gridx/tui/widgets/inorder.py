"""Keys in the order in which they were typed, in fields of text.

Textual inserts a letter when the field gets it, but runs a key with a binding (Backspace, the arrows, Escape)
only after the key went up through all containers. When several arrive at once, as over a slow line, "ab",
Backspace, "c" would become "ab", and what was typed after Escape would still go into the field. So fields run
bindings at once, and hand on what they get after they lost the focus.
"""

from __future__ import annotations

from textual import events
from textual.widget import Widget


async def act_at_once(field: Widget, event: events.Key) -> None:
    """Take a key in order: to whom it belongs by now, or by the binding that is in force."""
    if field.app.focused is not field:
        field.app.post_message(events.Key(event.key, event.character))
    elif field.check_consume_key(event.key, event.character):
        return
    else:
        active = field.screen.active_bindings.get(event.key)
        if active is None or not await field.app.run_action(active.binding.action, active.node):
            return
    event.stop()
    event.prevent_default()
