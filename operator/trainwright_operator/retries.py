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
from trainwright_operator.groups import TOGETHER, Groups, group_to_repeat, next_group
from trainwright_operator.names import AttemptOutcome, JobKey
from trainwright_operator.times import parse_time

Object = dict[str, Any]

LONGEST_BACKOFF = timedelta(minutes=6)
NODE_RECHECK_SECONDS = 15  # nothing tells of a node's taint while its pod is in doubt
MOST_DOUBLINGS = 16  # of the pause; an unlimited budget would otherwise make a time that can't be held

BUDGETS: Mapping[str, int] = {
    "outOfMemory": 2,
    "hang": 1,
    "preemption": -1,
    "infrastructure": 3,
    "publishing": 5,
    "unknown": 1,
}
"""Built-in number of further attempts, by the member of `spec.retry` that sets it; -1 is no limit."""

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
    Cause.UNSCHEDULABLE: "infrastructure",
    Cause.KILLED: "infrastructure",
    Cause.SUPERSEDED: "infrastructure",
    Cause.PUBLISHING: "publishing",
    Cause.INTERNAL: "unknown",
    Cause.UNKNOWN: "unknown",
}
"""The budget each cause is taken from; causes that are not here have none: a retry would end the same way."""


class Action(StrEnum):
    """What is to be done about a run's attempts."""

    START = "Start"  # the next attempt, now
    WAIT = "Wait"  # an attempt goes on, or the next one may not start yet
    STOP = "Stop"  # the attempt that goes on must end
    RETIRE = "Retire"  # the attempt was given up: once that is written its Job must go
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
    warning: str = ""  # what the attempt that goes on will be given up for, unless it mends

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
    if last is None:
        return Decision(Action.REST) if observation.stop_wanted else Decision(Action.START, 1, groups[0])
    if last.outcome is None:
        return _decide_open(observation, last)
    if observation.is_to_retire(last.job):
        return Decision(Action.RETIRE, last.number, wait_seconds=0)
    following = next_group(groups, last)
    succeeded = last.outcome is AttemptOutcome.SUCCEEDED
    if observation.stop_wanted and not (succeeded and following is None):
        return Decision(Action.REST, last.number)
    if succeeded:
        return Decision(Action.START if following else Action.SUCCEED, last.number, following)
    decision = _next_attempt(last)
    if last.outcome is AttemptOutcome.FAILED:
        decision = _decide_retry(observation, attempts, last, retry, backoff_seconds)
    waits = decision.action is Action.START and observation.may_still_write(last.job)
    return Decision(Action.WAIT, last.number) if waits else decision


def _decide_open(observation: Observation, last: Attempt) -> Decision:
    """Return what to do while an attempt goes on."""
    verdict = observation.verdict(last.job)
    wait = (verdict.due - observation.now).total_seconds() if verdict else None
    if wait is None and last.node in observation.nodes:
        wait = NODE_RECHECK_SECONDS
    action = Action.STOP if observation.stop_wanted or last.stopping else Action.WAIT
    return Decision(action, last.number, wait_seconds=wait, warning=verdict.warn() if verdict else "")


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
    budget = find_budget(cause, retry)
    failures = count_against_budget(cause, count_failures(observation.status, attempts))
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


def find_budget(cause: Cause, retry: Mapping[str, int]) -> int:
    """Return how many further attempts a cause may cost; `retry` is the effective `spec.retry`."""
    field = BUDGET_FIELDS.get(cause)
    return int(retry.get(field, BUDGETS[field])) if field else 0


def count_against_budget(cause: Cause, failures: Mapping[str, int]) -> int:
    """Return how many attempts have failed for this cause, or for another one that shares its budget."""
    field = BUDGET_FIELDS.get(cause)
    shared = [each for each in Cause if BUDGET_FIELDS.get(each) == field] if field else [cause]
    return sum(failures.get(each, 0) for each in shared)


def count_failures(status: Object, attempts: Sequence[Attempt]) -> Counter[str]:
    """Return how many attempts failed for each cause, those included that the status no longer lists."""
    counts: Counter[str] = Counter(status.get("failures", {}))
    told = status.get("attempts", ()) if "failures" in status else ()
    counted = {record["job"] for record in told if "outcome" in record}
    counts.update(str(a.cause) for a in attempts if a.cause and a.job not in counted)
    return counts
