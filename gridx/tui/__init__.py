"""The dashboard: the grid on one screen, and everything can be done from it.

It reaches the grid through :mod:`gridx.client` alone, so it shows a coordinator in the same process and one
elsewhere with the same code. This package itself imports no Textual; ``gridx.tui.app`` does.
"""
