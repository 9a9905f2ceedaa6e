"""Grid-X: share the machines you have."""

__version__ = "0.1.0"
