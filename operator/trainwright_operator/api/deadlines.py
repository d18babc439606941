"""`spec.deadlines` and `spec.budget`: how long a run may wait and work, and what it may use up."""

from __future__ import annotations

from pydantic import Field

from trainwright_operator.api.section import Section

LONGEST_SECONDS = 10 * 365 * 86400  # of any time a run may set: ten years


class Deadlines(Section):
    """How long a run may wait, work, and stand still. They may be changed at any time."""

    built_in = {"stalledSeconds": 1800}  # noqa: RUF012

    queued_seconds: int | None = Field(
        default=None,
        ge=1,
        le=LONGEST_SECONDS,
        description="Seconds an attempt may wait at a time until its pod runs: for a queue, for capacity,"
        " for an image. Then the run fails. Default: no limit.",
    )
    active_seconds: int | None = Field(
        default=None,
        ge=1,
        le=LONGEST_SECONDS,
        description="Seconds the run's pods may run in all its attempts together. Suspending does not reset"
        " them. Then the run fails. Default: no limit.",
    )
    stalled_seconds: int | None = Field(
        default=None,
        ge=0,
        le=LONGEST_SECONDS,
        description="Seconds without a step (a batch, an image read) after which an attempt fails for cause"
        " Hang and is tried again within retry.hang; 0 is no limit. It holds for the stages Dataset,"
        " Training and Evaluation, and for a pod that has told of a step.",
    )


class Budget(Section):
    """What a run may use up in all its attempts together. It may be changed at any time."""

    gpu_seconds: int | None = Field(
        default=None,
        ge=1,
        le=64 * LONGEST_SECONDS,
        description="GPU-seconds at which the pod is asked to save and end, and the run fails."
        " Default: no limit.",
    )
    cost: float | None = Field(
        default=None,
        ge=0.01,
        le=1_000_000_000,
        description="The same in the platform's currency; needs the platform's price of a GPU-hour."
        " Default: no limit.",
    )
