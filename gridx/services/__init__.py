"""What runs in the background of a node: the coordinator, the worker, the monitor."""
