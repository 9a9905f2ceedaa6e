"""Numbered SQL files; ``migrate`` applies each whole or not at all."""
