"""The coordinator's database: the only part that knows SQL and Tortoise, and the only way to write."""

from gridx.services.coordinator.store.store import Store

__all__ = ["Store"]
