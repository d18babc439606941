"""`status.failure`: why a run failed, and what its author can do about it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainwright.contract import Cause
from trainwright_operator.attempts import Attempt
from trainwright_operator.conditions import MESSAGE_CHARACTERS
from trainwright_operator.reports import Ending

Object = dict[str, Any]

AGAIN = "then set spec.retryRequest to a new value"

HINTS: Mapping[Cause, str] = {
    Cause.USER_CONFIG: "mend what the message names; what is trained is fixed, so settings need another run",
    Cause.DATA: f"mend the annotations that the message names, {AGAIN}",
    Cause.NAN: (
        "lower training.learningRate, or set training.mixedPrecision to false, in another run; or look for"
        " broken labels"
    ),
    Cause.SHM_EXHAUSTED: (
        "raise compute.sharedMemory and compute.resources.limits.memory, which it counts against, or lower"
        " training.workers, in another run"
    ),
    Cause.HOST_OOM: (
        "raise compute.resources.limits.memory, or lower training.workers or training.batchSize, in another"
        " run"
    ),
    Cause.CUDA_OOM: (
        "lower training.batchSize or training.imageSize in another run, or choose a GPU with more memory"
    ),
    Cause.HANG: f"look at the log tail for what it waited on (a GPU, a volume, a server), {AGAIN}",
    Cause.GPU_FAULT: f"look at the node's GPU, driver and device plug-in, {AGAIN}",
    Cause.PREEMPTED: f"raise retry.preemption, or give the run a higher priority; or wait for room, {AGAIN}",
    Cause.NODE_LOST: f"look at the node (kubectl describe node), {AGAIN}",
    Cause.STORAGE: (
        f"look at the volumes, {AGAIN}; a full workspace needs another run with a larger compute.workspace"
    ),
    Cause.NETWORK: f"look whether the server that the message names answers from the cluster, {AGAIN}",
    Cause.IMAGE_PULL: f"mend the image's name or its credentials (compute.imagePullSecrets), {AGAIN}",
    Cause.UNSCHEDULABLE: (
        "mend what the scheduler names: requests, nodeSelector, tolerations, affinity, claims;"
        f" where the cluster has to change, change it, {AGAIN}"
    ),
    Cause.KILLED: f"look at the events of the run's pods and nodes for who did it, {AGAIN}",
    Cause.PUBLISHING: (
        f"the model is sealed and kept: mend the account or the server, {AGAIN}; nothing is trained again"
    ),
    Cause.SUPERSEDED: f"look whether something else writes this run's status, {AGAIN}",
    Cause.DEADLINE_EXCEEDED: f"raise the deadline, which may be changed at any time, {AGAIN}",
    Cause.BUDGET_EXCEEDED: f"raise the budget, which may be changed at any time, {AGAIN}",
    Cause.INTERNAL: f"read the log tail; where it is no fault of the settings report it, {AGAIN}",
    Cause.UNKNOWN: f"look at the log tail and the pod's events, {AGAIN}",
}
"""What to do, where the trainer had no better word."""


def describe_failure(attempt: Attempt, ending: Ending) -> Object:
    """Return `status.failure` of a run whose last attempt is this one, and ended so."""
    failure = ending.failure
    told = failure.model_dump(mode="json", by_alias=True, exclude_none=True) if failure else {}
    cause = attempt.cause or Cause.UNKNOWN
    if failure and failure.cause is not cause:
        told.pop("hint", None)  # it is about something else
    body = {
        "logTail": ending.log_tail,
        **told,
        "cause": cause,
        "message": attempt.message[:MESSAGE_CHARACTERS],
        "exitCode": attempt.exit_code,
    }
    body["hint"] = body.get("hint") or HINTS[cause]
    return {key: value for key, value in body.items() if value not in (None, "")}
