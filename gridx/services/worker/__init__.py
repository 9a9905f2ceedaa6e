"""The worker: an agent on a machine that offers compute."""
