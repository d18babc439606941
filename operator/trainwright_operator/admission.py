"""When a Job waited in its queue, and when that let it through. Pure: a Job in, times out.

A queue speaks through `spec.suspend` of the Job alone, and the Job controller notes when that changed. The
operator sets the field when it makes the Job, and never after that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from trainwright_operator.names import QUEUE_LABEL, WORKLOAD_JOB_LABEL
from trainwright_operator.times import format_time, parse_time

Object = dict[str, Any]


@dataclass(frozen=True)
class Wait:
    """How an attempt fared in its queue; all fields are empty where there was none."""

    queued_time: str = ""  # when the newest wait began
    admitted_time: str = ""  # when it ended; empty while it goes on
    queued_seconds: int = 0  # of all waits that ended
    preemptions: int = 0  # how often the queue took back what it had given

    @property
    def goes_on(self) -> bool:
        """Whether the Job waits now."""
        return bool(self.queued_time) and not self.admitted_time

    @classmethod
    def from_status(cls, record: Object) -> Wait:
        """Return what a record of `status.attempts` says."""
        return cls(
            queued_time=record.get("queuedTime", ""),
            admitted_time=record.get("admittedTime", ""),
            queued_seconds=record.get("queuedSeconds", 0),
            preemptions=record.get("preemptions", 0),
        )

    def to_status(self) -> Object:
        """Return what is recorded in `status.attempts`."""
        record = {
            "queuedTime": self.queued_time,
            "admittedTime": self.admitted_time,
            "queuedSeconds": self.queued_seconds if self.queued_time else self.queued_seconds or None,
            "preemptions": self.preemptions or None,
        }
        return {key: value for key, value in record.items() if value not in (None, "")}

    def end(self, time: str) -> Wait:
        """Return the same, with a wait that went on ended."""
        if not self.goes_on:
            return self
        seconds = max((parse_time(time) - parse_time(self.queued_time)).total_seconds(), 0)
        return replace(self, admitted_time=time, queued_seconds=self.queued_seconds + round(seconds))


def is_suspended(job: Object | None) -> bool:
    """Return whether a Job may have no pods now."""
    return bool(job and job.get("spec", {}).get("suspend"))


NO_WAIT = Wait()
"""Of an attempt that no queue holds."""


def follow_queue(wait: Wait, job: Object, now: datetime) -> Wait:
    """Return how the attempt of a Job fared in its queue up to now."""
    changed = _suspension(job)
    if is_suspended(job):
        return wait if wait.goes_on else _begin_wait(wait, job, changed, now)
    if changed is None or changed["status"] != "False":
        return wait  # it never waited, or the Job controller has yet to see that it may go on
    resumed = changed["lastTransitionTime"]
    if not wait.queued_time:
        wait = Wait(queued_time=job["metadata"]["creationTimestamp"])
    if wait.goes_on:
        return wait.end(resumed)
    if resumed != wait.admitted_time:  # it waited again, and nobody looked meanwhile
        return replace(wait, admitted_time=resumed, preemptions=wait.preemptions + 1)
    return wait


def _begin_wait(wait: Wait, job: Object, changed: Object | None, now: datetime) -> Wait:
    if not wait.queued_time:
        return Wait(queued_time=job["metadata"]["creationTimestamp"])
    noted = changed is not None and changed["status"] == "True"
    began = changed["lastTransitionTime"] if changed and noted else format_time(now)
    return replace(wait, queued_time=began, admitted_time="", preemptions=wait.preemptions + 1)


def _suspension(job: Object) -> Object | None:
    """Return the Job controller's condition that says since when the Job is suspended, or is not any more."""
    for condition in job.get("status", {}).get("conditions", ()):
        if condition["type"] == "Suspended":
            found: Object = condition
            return found
    return None


def queue_of(job: Object) -> str:
    """Return the name of the queue a Job waits in, or nothing."""
    return str(job["metadata"].get("labels", {}).get(QUEUE_LABEL, ""))


def describe_wait(job: Object, wait: Wait) -> str:
    """Return what a suspended Job waits for, and where to read why."""
    name, uid, queue = job["metadata"]["name"], job["metadata"]["uid"], queue_of(job)
    if not queue:
        return f"Job {name} is suspended since {wait.queued_time}, and names no queue: who suspended it?"
    how = f"waits in queue {queue!r} since {wait.queued_time}"
    if wait.preemptions:
        how = f"was preempted by queue {queue!r} at {wait.queued_time} ({wait.preemptions} in all), and waits"
    return f"Job {name} {how}; why: kubectl get workloads -l {WORKLOAD_JOB_LABEL}={uid} -o yaml"
