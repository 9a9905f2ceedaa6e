"""The life of a job, from submit to receipt: what waits, where it runs, what became of it."""

from gridx.services.coordinator.jobs.service import Jobs, OutputPart

__all__ = ["Jobs", "OutputPart"]
