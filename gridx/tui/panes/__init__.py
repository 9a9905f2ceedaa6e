"""The parts of the dashboard, one widget a module."""
