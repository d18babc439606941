"""What a run used, and how much of it has to be done again. Pure: objects in, figures out.

An account is closed when its pod has ended, in the write that says so: `closedTime` goes to the pod's end,
and only what lies behind it is ever counted. So nothing is counted twice, whatever is seen twice, and nothing
is written while time merely passes. Until then a pod's figures follow from its container's start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from trainwright.contract import Cause, RunReport
from trainwright_operator.attempts import Attempt, Observation
from trainwright_operator.names import AttemptOutcome
from trainwright_operator.reports import read_container, read_live
from trainwright_operator.times import format_time, parse_time

Object = dict[str, Any]

COST_DIGITS = 4
ENDED = ("Succeeded", "Failed")  # phases of a pod


@dataclass(frozen=True)
class Usage:
    """The figures of all accounts that are closed; GPU-seconds are useful, or lost to one of three."""

    gpu_seconds: int = 0
    useful: int = 0
    lost_to_preemption: int = 0
    lost_to_failure: int = 0
    lost_to_suspension: int = 0
    pod_seconds: int = 0
    lost_pod_seconds: int = 0
    queued_seconds: int = 0
    cost: float | None = None
    closed_time: str = ""

    @classmethod
    def from_status(cls, usage: Mapping[str, Any]) -> Usage:
        """Return what `status.usage` says."""
        return cls(**{name: usage[alias] for name, alias in ALIASES.items() if alias in usage})

    def to_status(self) -> Object:
        """Return `status.usage`."""
        figures = {alias: getattr(self, name) for name, alias in ALIASES.items()}
        return {alias: figure for alias, figure in figures.items() if figure not in (None, "")}


ALIASES = {
    "gpu_seconds": "gpuSeconds",
    "useful": "useful",
    "lost_to_preemption": "lostToPreemption",
    "lost_to_failure": "lostToFailure",
    "lost_to_suspension": "lostToSuspension",
    "pod_seconds": "podSeconds",
    "lost_pod_seconds": "lostPodSeconds",
    "queued_seconds": "queuedSeconds",
    "cost": "cost",
    "closed_time": "closedTime",
}


@dataclass(frozen=True)
class Terms:
    """What the figures of a run depend on beside its pods."""

    price: float | None = None  # of a GPU for an hour
    keeps_workspace: bool = True  # from one pod to the next: what is in its journal need not be done again


@dataclass(frozen=True)
class Pod:
    """The trainer's container of one pod: when it began, and ended if it has."""

    name: str
    uid: str
    start: datetime | None = None
    end: datetime | None = None
    ended: bool = False  # though nobody may know when
    leaving: bool = False  # it was asked to end
    last_word: RunReport | None = None


@dataclass(frozen=True)
class Accounts:
    """The closed figures, the attempts with theirs, and what is not closed yet."""

    usage: Usage
    attempts: list[Attempt]
    current_pod: Object | None = None
    open_pod: Pod | None = None  # began, and is not in the figures
    gpus: int = 0  # of the open pod
    waiting_since: datetime | None = None  # an attempt goes on without a container that runs

    def open_seconds(self, now: datetime) -> float:
        """Return the seconds that the open pod has run."""
        if self.open_pod is None or self.open_pod.start is None:
            return 0
        return max(((self.open_pod.end or now) - self.open_pod.start).total_seconds(), 0)


def close_accounts(observation: Observation, attempts: Sequence[Attempt], terms: Terms) -> Accounts:
    """Return the run's accounts: the written ones, and with them all pods that ended since."""
    before = observation.status
    settled = {record["job"] for record in before.get("attempts", ()) if "outcome" in record}
    accounts = Accounts(Usage.from_status(before.get("usage", {})), list(attempts), before.get("currentPod"))
    for index, attempt in enumerate(attempts):
        if attempt.job not in settled:
            accounts = _Ledger(observation, attempt, terms, accounts).close(index)
    return accounts


class _Ledger:
    """Closes the accounts of one attempt that went on when the status was last written."""

    def __init__(self, observation: Observation, attempt: Attempt, terms: Terms, accounts: Accounts) -> None:
        self._observation = observation
        self._attempt = attempt
        self._terms = terms
        self._accounts = accounts
        self._usage = accounts.usage
        self._noted = _read_noted(observation.status, attempt.job)
        self._seconds = self._lost = 0

    def close(self, index: int) -> Accounts:
        """Return the accounts with this attempt's, which is the one of this index."""
        attempt, current, open_pod = self._attempt, self._accounts.current_pod, None
        pods = self._open_pods()
        for pod in pods:
            is_newest = pod is pods[-1]
            self._note_wait(pod)
            end = self._end_of(pod, is_newest)
            if end is not None and pod.start is not None:
                self._close(pod, pod.start, end, is_newest)
            elif pod.start is not None:
                open_pod = pod
            if attempt.outcome is None or (self._noted and self._noted.uid == pod.uid):
                current = _describe(pod, end)
        if attempt.outcome and not any(pod.start for pod in pods):
            self._wait_until(parse_time(attempt.end_time))
        closed = replace(
            attempt,
            pod_seconds=attempt.pod_seconds + self._seconds,
            lost_seconds=attempt.lost_seconds + self._lost,
        )
        others = self._accounts.attempts
        waits = attempt.outcome is None and open_pod is None
        return Accounts(
            usage=self._usage,
            attempts=[*others[:index], closed, *others[index + 1 :]],
            current_pod=current,
            open_pod=open_pod,
            gpus=attempt.gpus,
            waiting_since=self._waiting_since() if waits else None,
        )

    def _open_pods(self) -> list[Pod]:
        """Return this attempt's pods whose accounts are open, oldest first; one that is gone comes first."""
        pods = [_read_pod(pod) for pod in self._observation.pods.get(self._attempt.job, ())]
        noted, closed = self._noted, self._usage.closed_time
        uids = [pod.uid for pod in pods]
        if noted and noted.uid in uids:
            place = uids.index(noted.uid)
            found = replace(pods[place], start=pods[place].start or noted.start)
            return [*([] if noted.ended else [found]), *pods[place + 1 :]]
        unseen = [pod for pod in pods if not (pod.end and closed and pod.end <= parse_time(closed))]
        if noted and noted.start and not noted.ended:
            gone = self._attempt.job not in self._observation.outlived
            return [replace(noted, ended=gone, leaving=True), *unseen]
        return unseen

    def _note_wait(self, pod: Pod) -> None:
        """Count the wait that ended with the start of this pod's container, once: when the start is new."""
        noted = self._noted
        if pod.start and not (noted and noted.uid == pod.uid and noted.start):
            self._wait_until(pod.start)

    def _wait_until(self, end: datetime) -> None:
        waited = _seconds_between(self._waiting_since(), end)
        self._usage = replace(self._usage, queued_seconds=self._usage.queued_seconds + waited)

    def _waiting_since(self) -> datetime:
        """Return since when this attempt waits for a container that runs, if none does."""
        start, closed = parse_time(self._attempt.start_time), self._usage.closed_time
        return max(start, parse_time(closed)) if closed else start

    def _end_of(self, pod: Pod, is_newest: bool) -> datetime | None:
        """Return when a pod ended whose account can be closed now.

        The end of the Job tells how the newest pod ended, and comes a moment after it; but a queue that takes
        a pod away suspends the Job, and there is no such end.
        """
        attempt = self._attempt
        job = self._observation.jobs.get(attempt.job, {})
        taken_away = pod.ended and job.get("spec", {}).get("suspend")
        if pod.start is None or not (attempt.outcome or taken_away or not is_newest):
            return None
        over = parse_time(attempt.end_time) if attempt.end_time else self._observation.now
        return pod.end or over

    def _close(self, pod: Pod, start: datetime, end: datetime, is_newest: bool) -> None:
        """Add what one pod used; what was done before `closed_time` is in the figures already."""
        usage, attempt = self._usage, self._attempt
        start = max(start, parse_time(usage.closed_time)) if usage.closed_time else start
        outcome = attempt.outcome if is_newest else None
        saved = end if outcome is AttemptOutcome.SUCCEEDED else self._saved_until(pod)
        seconds = _seconds_between(start, end)
        lost = seconds - (min(_seconds_between(start, saved), seconds) if saved else 0)
        self._seconds, self._lost = self._seconds + seconds, self._lost + lost
        figure, gpus = self._lost_to(outcome), attempt.gpus
        cost = usage.cost
        if self._terms.price is not None:
            cost = round((cost or 0) + seconds * gpus * self._terms.price / 3600, COST_DIGITS)
        changes: dict[str, Any] = {figure: getattr(usage, figure) + lost * gpus}
        self._usage = replace(
            usage,
            gpu_seconds=usage.gpu_seconds + seconds * gpus,
            useful=usage.useful + (seconds - lost) * gpus,
            pod_seconds=usage.pod_seconds + seconds,
            lost_pod_seconds=usage.lost_pod_seconds + lost,
            cost=cost,
            closed_time=format_time(max(end, start)),
            **changes,
        )

    def _lost_to(self, outcome: AttemptOutcome | None) -> str:
        """Return the figure for what is lost; a pod that was replaced within its attempt was preempted."""
        if outcome is None or self._attempt.cause is Cause.PREEMPTED:
            return "lost_to_preemption"
        return "lost_to_suspension" if outcome is AttemptOutcome.STOPPED else "lost_to_failure"

    def _saved_until(self, pod: Pod) -> datetime | None:
        """Return until when the work was done that another pod goes on from, as this one reported it."""
        attempt, keeps = self._attempt, self._terms.keeps_workspace
        report = pod.last_word or read_live(self._observation.status, attempt.number, attempt.group)
        if report is None:
            return None
        times = [report.stage_time] if keeps else []
        if report.checkpoint and (keeps or report.checkpoint.stored_epoch == report.checkpoint.epoch):
            times.append(report.checkpoint.time)
        return max(filter(None, times), default=None)


def _read_noted(status: Object, job: str) -> Pod | None:
    """Return the pod of an attempt that the status names; with `ended` its account is closed."""
    current = status.get("currentPod", {})
    recorded = next((a.get("pod") for a in status.get("attempts", ()) if a["job"] == job), None)
    if recorded is None or recorded != current.get("name"):
        return None
    start = current.get("startTime")
    return Pod(recorded, current["uid"], parse_time(start) if start else None, ended="endTime" in current)


def _read_pod(pod: Object) -> Pod:
    start, end, last_word = read_container(pod)
    return Pod(
        name=pod["metadata"]["name"],
        uid=pod["metadata"]["uid"],
        start=parse_time(start) if start else None,
        end=parse_time(end) if end else None,
        ended=bool(end) or pod.get("status", {}).get("phase") in ENDED,
        leaving="deletionTimestamp" in pod["metadata"],
        last_word=last_word,
    )


def _describe(pod: Pod, end: datetime | None) -> Object:
    """Return `status.currentPod`; with an end its account is closed."""
    times = {"startTime": pod.start, "endTime": end}
    return {"name": pod.name, "uid": pod.uid} | {k: format_time(v) for k, v in times.items() if v}


def _seconds_between(start: datetime, end: datetime) -> int:
    return max(int((end - start).total_seconds()), 0)
