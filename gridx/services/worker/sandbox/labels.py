"""The labels on what a worker makes in a container engine; only what has its own identity is touched."""

from __future__ import annotations

from typing import Final

LABEL_WORKER: Final = "gridx.worker"
"""The worker's identity. Only containers that carry one's own are ever touched."""
LABEL_JOB: Final = "gridx.job"
LABEL_ATTEMPT: Final = "gridx.attempt"
LABEL_KIND: Final = "gridx.kind"
