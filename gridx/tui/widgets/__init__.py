"""Widgets that several panes are made of; they draw lines themselves, from text that is safe already."""
