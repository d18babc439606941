"""Whether a run gets another attempt. Pure: history in, decision out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

from trainwright.contract import Cause, StageGroup
from trainwright_operator.attempts import Attempt, Observation
from trainwright_operator.conditions import MESSAGE_CHARACTERS
from trainwright_operator.groups import TOGETHER, Groups, group_to_repeat, next_group
from trainwright_operator.names import AttemptOutcome, JobKey
from trainwright_operator.reports import Ending
from trainwright_operator.times import parse_time

Object = dict[str, Any]

LONGEST_BACKOFF = timedelta(minutes=6)
MOST_DOUBLINGS = 16  # of the pause; an unlimited budget would otherwise make a time that can't be held

BUDGETS: Mapping[Cause, int] = {
    Cause.USER_CONFIG: 0,
    Cause.DATA: 0,
    Cause.NAN: 0,
    Cause.SHM_EXHAUSTED: 2,
    Cause.HOST_OOM: 2,
    Cause.CUDA_OOM: 2,
    Cause.HANG: 1,
    Cause.GPU_FAULT: 3,
    Cause.PREEMPTED: -1,
    Cause.NODE_LOST: 3,
    Cause.STORAGE: 3,
    Cause.NETWORK: 3,
    Cause.IMAGE_PULL: 3,
    Cause.UNSCHEDULABLE: 0,
    Cause.KILLED: 3,
    Cause.PUBLISHING: 5,
    Cause.SUPERSEDED: 3,
    Cause.INTERNAL: 1,
    Cause.UNKNOWN: 1,
}
"""Built-in number of further attempts after one failed for this cause; -1 is no limit."""

BUDGET_FIELDS: Mapping[Cause, str] = {
    Cause.SHM_EXHAUSTED: "outOfMemory",
    Cause.HOST_OOM: "outOfMemory",
    Cause.CUDA_OOM: "outOfMemory",
    Cause.HANG: "hang",
    Cause.GPU_FAULT: "infrastructure",
    Cause.PREEMPTED: "preemption",
    Cause.NODE_LOST: "infrastructure",
    Cause.STORAGE: "infrastructure",
    Cause.NETWORK: "infrastructure",
    Cause.IMAGE_PULL: "infrastructure",
    Cause.KILLED: "infrastructure",
    Cause.SUPERSEDED: "infrastructure",
    Cause.PUBLISHING: "publishing",
    Cause.INTERNAL: "unknown",
    Cause.UNKNOWN: "unknown",
}
"""The member of `spec.retry` that sets a cause's budget."""


class Action(StrEnum):
    """What is to be done about a run's attempts."""

    START = "Start"  # the next attempt, now
    WAIT = "Wait"  # an attempt goes on, or the next one may not start yet
    STOP = "Stop"  # the attempt that goes on must end
    SUCCEED = "Succeed"  # all is done
    FAIL = "Fail"  # no attempt is left
    REST = "Rest"  # suspended or cancelled, and nothing goes on


@dataclass(frozen=True)
class Decision:
    """The action, the attempt it is about, and why."""

    action: Action
    number: int = 0
    group: StageGroup | None = None
    budget_spent: bool = False
    wait_seconds: float | None = None

    @property
    def key(self) -> JobKey:
        """The Job it is about."""
        return JobKey(self.number, self.group)


def decide(
    observation: Observation,
    attempts: list[Attempt],
    retry: Mapping[str, int],
    backoff_seconds: float,
    groups: Groups = TOGETHER,
) -> Decision:
    """Return what to do next; `retry` is the effective `spec.retry`."""
    last = attempts[-1] if attempts else None
    if last and last.outcome is None:
        return Decision(Action.STOP if observation.stop_wanted else Action.WAIT, last.number)
    following = next_group(groups, last) if last else None
    succeeded = last is not None and last.outcome is AttemptOutcome.SUCCEEDED
    if last and succeeded and following is None:
        return Decision(Action.SUCCEED, last.number)
    if observation.stop_wanted:
        return Decision(Action.REST, last.number if last else 0)
    if last is None:
        return Decision(Action.START, 1, groups[0])
    if last.outcome is AttemptOutcome.FAILED:
        return _decide_retry(observation, attempts, last, retry, backoff_seconds)
    return Decision(Action.START, last.number, following) if succeeded else _next_attempt(last)


def _decide_retry(
    observation: Observation,
    attempts: list[Attempt],
    last: Attempt,
    retry: Mapping[str, int],
    backoff_seconds: float,
) -> Decision:
    cause = last.cause or Cause.UNKNOWN
    requested = observation.run["spec"].get("retryRequest", "")
    if requested and requested != last.retry_request:
        return _next_attempt(last)
    # A request grants one attempt more; it does not give a spent budget back.
    budget = int(retry.get(BUDGET_FIELDS.get(cause, ""), BUDGETS[cause]))
    failures = count_failures(observation.status, attempts)[cause]
    if 0 <= budget < failures:
        return Decision(Action.FAIL, last.number, budget_spent=budget > 0)
    if cause is Cause.PREEMPTED:
        return _next_attempt(last)
    doublings = min(failures - 1, MOST_DOUBLINGS)
    pause = min(timedelta(seconds=backoff_seconds) * 2**doublings, LONGEST_BACKOFF)
    left = (parse_time(last.end_time) + pause - observation.now).total_seconds()
    if left > 0:
        return Decision(Action.WAIT, last.number, wait_seconds=left)
    return _next_attempt(last)


def _next_attempt(last: Attempt) -> Decision:
    return Decision(Action.START, last.number + 1, group_to_repeat(last))


def count_failures(status: Object, attempts: Sequence[Attempt]) -> Counter[str]:
    """Return how many attempts failed for each cause, those included that the status no longer lists."""
    counts: Counter[str] = Counter(status.get("failures", {}))
    told = status.get("attempts", ()) if "failures" in status else ()
    counted = {record["job"] for record in told if "outcome" in record}
    counts.update(str(a.cause) for a in attempts if a.cause and a.job not in counted)
    return counts


def describe_failure(attempt: Attempt, ending: Ending) -> Object:
    """Return `status.failure` of a run whose last attempt is this one, and ended so."""
    failure = ending.failure
    told = failure.model_dump(mode="json", by_alias=True, exclude_none=True) if failure else {}
    body = {
        "logTail": ending.log_tail,
        **told,
        "cause": attempt.cause or Cause.UNKNOWN,
        "message": attempt.message[:MESSAGE_CHARACTERS],
        "exitCode": attempt.exit_code,
    }
    body["hint"] = body.get("hint") or HINTS.get(Cause(body["cause"]), "")
    return {key: value for key, value in body.items() if value not in (None, "")}


HINTS: Mapping[Cause, str] = {
    Cause.NAN: "lower training.learningRate, or set training.mixedPrecision to false: another run",
    Cause.SHM_EXHAUSTED: "raise compute.sharedMemory and the memory limit, or lower training.workers",
    Cause.HOST_OOM: "raise compute.resources.limits.memory, or lower training.workers or training.batchSize",
    Cause.CUDA_OOM: "lower training.batchSize or training.imageSize, or choose a GPU with more memory",
    Cause.HANG: "look at the log tail for what it waits on: a GPU, a volume or a server",
    Cause.GPU_FAULT: "look at the GPU and the driver of the node, then set spec.retryRequest to a new value",
    Cause.NODE_LOST: "look at the node, then set spec.retryRequest to a new value",
    Cause.STORAGE: "look at the volumes; a full workspace needs another run with a larger compute.workspace",
    Cause.NETWORK: "look whether the server that the message names answers, then set spec.retryRequest",
    Cause.IMAGE_PULL: "mend the image or compute.imagePullSecrets",
    Cause.UNSCHEDULABLE: "mend what the scheduler names: resources, node selectors, tolerations, claims",
    Cause.KILLED: "look at the events of the run's pods and nodes, then set spec.retryRequest to a new value",
    Cause.UNKNOWN: "look at the log tail and the pod's events, then set spec.retryRequest to a new value",
}
