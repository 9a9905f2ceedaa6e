"""Sandboxes: the isolated places in which attempts run."""
