"""The sections of a run that its profile and the operator's settings may set for it."""

from __future__ import annotations

from pydantic import Field

from trainwright_operator.api.checkpoint import Checkpoint
from trainwright_operator.api.compute import Compute, Queue, Retry
from trainwright_operator.api.deadlines import LONGEST_SECONDS, Budget, Deadlines
from trainwright_operator.api.section import Section
from trainwright_operator.api.training import Export, Gate, Training


class RunSettings(Section):
    """How a run is carried out: its own word wins over its profile's, that over the operator's settings."""

    training: Training | None = None
    export: Export | None = None
    gate: Gate | None = None
    checkpoint: Checkpoint | None = None
    compute: Compute | None = None
    queue: Queue | None = None
    retry: Retry | None = None
    deadlines: Deadlines | None = None
    budget: Budget | None = None
    ttl_seconds_after_finished: int | None = Field(
        default=None,
        ge=0,
        le=LONGEST_SECONDS,
        description="Seconds after its end at which the run's Jobs, pods and workspace are deleted. It stays,"
        " with its plan and its status; a failed one can't be retried any more. Default: they are kept.",
    )
