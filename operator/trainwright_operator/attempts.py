"""Which attempts a run had, and why each ended. Pure: objects in, records out.

An attempt is one Job, or one for each group of stages where a run has them apart. What is recorded of it in
the run's status is only ever completed, never changed; what the status does not say yet is read from the Job,
its pod and the pod's last report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from trainwright.contract import Adjustments, Cause, ExitCode, Stage, StageGroup
from trainwright_operator.admission import NO_WAIT, Wait, follow_queue
from trainwright_operator.causes import classify
from trainwright_operator.names import (
    ADJUSTMENTS_ANNOTATION,
    ATTEMPT_LABEL,
    GPUS_ANNOTATION,
    GROUP_LABEL,
    RETRY_REQUEST_ANNOTATION,
    AttemptOutcome,
    job_name,
)
from trainwright_operator.reports import Ending, read_ending, read_live
from trainwright_operator.times import format_time, parse_time
from trainwright_operator.verdicts import Patience, Verdict, judge_image, judge_node

Object = dict[str, Any]

UNCHANGED = Adjustments()
KEPT = 10
"""So many attempts, the newest, are kept in a run's status."""

MESSAGE_CHARACTERS = 200
"""Of an attempt's message are kept so many in the status; the last one's is in `status.failure` in full."""


@dataclass(frozen=True)
class Attempt:
    """One attempt as the run's status records it; without `outcome` it goes on.

    Where stages are apart, each group of them has a record, and a number may have up to three.
    """

    number: int
    job: str
    start_time: str
    group: StageGroup | None = None
    retry_request: str = ""
    pod: str = ""
    node: str = ""
    image: str = ""
    gpus: int = 0
    pod_seconds: int = 0  # of pods whose accounts are closed
    lost_seconds: int = 0  # those of them whose work has to be done again
    end_time: str = ""
    outcome: AttemptOutcome | None = None
    ending: Cause | None = None  # what it will have failed for, when the pod that is asked to end has ended
    cause: Cause | None = None
    exit_code: int | None = None
    stage: Stage | None = None  # the one a failed attempt says it ended in
    resumed_from_epoch: int | None = None
    message: str = ""
    adjustments: Adjustments = UNCHANGED
    wait: Wait = NO_WAIT

    @classmethod
    def from_status(cls, record: Object) -> Attempt:
        """Return the attempt that a record of `status.attempts` describes."""
        return cls(
            number=record["number"],
            job=record["job"],
            start_time=record["startTime"],
            group=StageGroup(record["group"]) if record.get("group") else None,
            retry_request=record.get("retryRequest", ""),
            pod=record.get("pod", ""),
            node=record.get("node", ""),
            image=record.get("image", ""),
            gpus=record.get("gpus", 0),
            pod_seconds=record.get("podSeconds", 0),
            lost_seconds=record.get("lostSeconds", 0),
            end_time=record.get("endTime", ""),
            outcome=AttemptOutcome(record["outcome"]) if record.get("outcome") else None,
            ending=Cause(record["ending"]) if record.get("ending") else None,
            cause=Cause(record["cause"]) if record.get("cause") else None,
            exit_code=record.get("exitCode"),
            stage=Stage(record["stage"]) if record.get("stage") else None,
            resumed_from_epoch=record.get("resumedFromEpoch"),
            message=record.get("message", ""),
            adjustments=Adjustments.model_validate(record.get("adjustments", {})),
            wait=Wait.from_status(record),
        )

    def to_status(self) -> Object:
        """Return the record for `status.attempts`."""
        record = {
            "number": self.number,
            "group": self.group,
            "job": self.job,
            "startTime": self.start_time,
            "retryRequest": self.retry_request,
            "pod": self.pod,
            "node": self.node,
            "image": self.image,
            "gpus": self.gpus or None,
            "gpuSeconds": self.gpus * self.pod_seconds or None,
            "podSeconds": self.pod_seconds or None,
            "lostSeconds": self.lost_seconds or None,
            "endTime": self.end_time,
            "outcome": self.outcome,
            "ending": self.ending,
            "cause": self.cause,
            "exitCode": self.exit_code,
            "stage": self.stage,
            "resumedFromEpoch": self.resumed_from_epoch,
            "message": self.message[:MESSAGE_CHARACTERS],
            "adjustments": self.adjustments.model_dump(by_alias=True, exclude_none=True),
        }
        return {
            key: value for key, value in record.items() if value not in (None, "", {})
        } | self.wait.to_status()


@dataclass(frozen=True)
class Observation:
    """What is there now: the run, its Jobs with their pods (oldest first), and the time."""

    run: Object
    jobs: Mapping[str, Object]
    pods: Mapping[str, list[Object]]
    now: datetime
    outlived: frozenset[str] = frozenset()  # Jobs that are gone, of which a pod still runs
    nodes: Mapping[str, Object | None] = field(default_factory=dict)  # those that were asked for
    patience: Patience = field(default_factory=Patience)

    @property
    def status(self) -> Object:
        """The run's status as it was last written."""
        status: Object = self.run.get("status") or {}
        return status

    @property
    def stop_wanted(self) -> bool:
        """Whether nothing of this run may go on."""
        return bool(self.run["spec"].get("suspend") or self.run["spec"].get("cancel"))

    def pod(self, job: str) -> Object | None:
        """Return the newest pod of a Job."""
        pods = self.pods.get(job)
        return pods[-1] if pods else None

    def verdict(self, job: str) -> Verdict | None:
        """Return what an attempt whose Job goes on is given up for, if not now then later."""
        pod = self.pod(job)
        if pod is None:
            return None
        return self._judge_node(pod) or judge_image(pod, self.patience)

    def is_unfinished(self, job: str) -> bool:
        """Whether a Job is there that has not ended."""
        found = self.jobs.get(job)
        ended = found is None or find_condition(found, "Complete") or find_condition(found, "Failed")
        return not ended

    def is_to_retire(self, job: str) -> bool:
        """Whether the Job or the pod of an attempt that ended is still there, and nobody has seen to it."""
        if job in self.outlived:
            return True
        return self.is_unfinished(job) and not self.jobs[job]["metadata"].get("deletionTimestamp")

    def may_still_write(self, job: str) -> bool:
        """Whether a pod that was given up may be at work: not on a node that is out of reach."""
        pod = self.pod(job)
        verdict = self._judge_node(pod) if pod else None
        lost = verdict is not None and verdict.due <= self.now
        return self.is_unfinished(job) and not lost

    def _judge_node(self, pod: Object) -> Verdict | None:
        labels = pod["metadata"].get("labels", {})
        live = self.status.get("trainer") or {}
        ours = str(live.get("attempt")) == labels.get(ATTEMPT_LABEL)
        heard = live.get("heartbeatTime") if ours else None
        reported = parse_time(heard) if heard else None
        return judge_node(pod, self.nodes, reported, self.now, self.patience)


def group_of(job: Object) -> StageGroup | None:
    """Return the group of stages a Job carries out, or None if it does all of them."""
    label = job["metadata"]["labels"].get(GROUP_LABEL)
    return StageGroup(label) if label in set(StageGroup) else None


def place_of(group: StageGroup | None) -> int:
    """Return which of an attempt's Jobs one of this group is, counted from zero."""
    return list(StageGroup).index(group) if group else 0


def read_history(observation: Observation) -> list[Attempt]:
    """Return the attempts, oldest first: what the status records, completed by what is there now."""
    attempts = {
        (attempt.number, place_of(attempt.group)): attempt
        for attempt in map(Attempt.from_status, observation.status.get("attempts", ()))
    }
    oldest = min(attempts, default=(0, 0))
    for name, job in observation.jobs.items():
        number, group = int(job["metadata"]["labels"].get(ATTEMPT_LABEL, 0)), group_of(job)
        if (number, place_of(group)) < oldest:
            continue  # ended, counted, and cut off from the status
        if name != job_name(observation.run["metadata"]["name"], number, group):
            continue  # a copy of one of our Jobs that somebody made under another name
        attempts.setdefault((number, place_of(group)), begin_attempt(job))
    return [_follow(attempts[key], observation) for key in sorted(attempts)]


def _follow(attempt: Attempt, observation: Observation) -> Attempt:
    """Return the attempt as it is now; one that had ended stays as it was recorded."""
    if attempt.outcome is not None:
        return attempt
    sentence = attempt.message  # of an attempt that goes on: why its pod is asked to end
    if job := observation.jobs.get(attempt.job):
        attempt = replace(attempt, wait=follow_queue(attempt.wait, job, observation.now))
    attempt = _complete(attempt, observation)
    if attempt.ending and attempt.outcome is AttemptOutcome.FAILED:
        attempt = replace(attempt, cause=attempt.ending, message=sentence)
    return replace(attempt, wait=attempt.wait.end(attempt.end_time)) if attempt.outcome else attempt


def begin_attempt(job: Object) -> Attempt:
    """Return the attempt that a Job is the beginning of."""
    metadata = job["metadata"]
    annotations = metadata.get("annotations", {})
    return Attempt(
        number=int(metadata["labels"][ATTEMPT_LABEL]),
        job=metadata["name"],
        group=group_of(job),
        start_time=metadata["creationTimestamp"],
        retry_request=annotations.get(RETRY_REQUEST_ANNOTATION, ""),
        gpus=int(annotations.get(GPUS_ANNOTATION, 0)),
        adjustments=_read_adjustments(annotations.get(ADJUSTMENTS_ANNOTATION, "{}")),
    )


def _read_adjustments(text: str) -> Adjustments:
    """Return how a Job differs from the plan; what somebody else wrote there is no difference."""
    try:
        return Adjustments.model_validate_json(text)
    except ValidationError:
        return UNCHANGED


def _complete(attempt: Attempt, observation: Observation) -> Attempt:
    job = observation.jobs.get(attempt.job)
    pod = observation.pod(attempt.job)
    ending = read_ending(pod, read_live(observation.status, attempt.number, attempt.group), attempt.number)
    attempt = replace(
        attempt,
        pod=ending.pod or attempt.pod,
        node=ending.node or attempt.node,
        image=ending.image or attempt.image,
        adjustments=_what_was_used(attempt, ending),
        resumed_from_epoch=ending.resumed_from_epoch
        if ending.resumed_from_epoch is not None
        else attempt.resumed_from_epoch,
    )
    if job and (condition := find_condition(job, "Complete")):
        return replace(
            attempt,
            outcome=AttemptOutcome.SUCCEEDED,
            exit_code=0,
            end_time=condition["lastTransitionTime"],
        )
    if job and (condition := find_condition(job, "Failed")):
        return _fail(attempt, ending, observation, condition["lastTransitionTime"])
    verdict = observation.verdict(attempt.job)
    if verdict and verdict.due <= observation.now:
        return _give_up(attempt, verdict, observation)
    return attempt if job else _end_without_job(attempt, ending, observation)


def _what_was_used(attempt: Attempt, ending: Ending) -> Adjustments:
    """Return the attempt's adjustments, with the batch that the trainer itself came down to."""
    reported = ending.report.adjustments if ending.report else None
    if reported is None or reported.batch_size is None:
        return attempt.adjustments
    return attempt.adjustments.model_copy(update={"batch_size": reported.batch_size})


def _give_up(attempt: Attempt, verdict: Verdict, observation: Observation) -> Attempt:
    end_time = format_time(observation.now)
    if observation.stop_wanted:
        return replace(attempt, outcome=AttemptOutcome.STOPPED, end_time=end_time, message=verdict.message)
    return replace(
        attempt,
        outcome=AttemptOutcome.FAILED,
        cause=verdict.cause,
        end_time=end_time,
        message=verdict.message,
    )


def _end_without_job(attempt: Attempt, ending: Ending, observation: Observation) -> Attempt:
    """The Job is gone: a pod that finished its work before counts, else somebody took the Job away.

    A pod outlives its Job by its grace period, and until it has ended nobody else may use its workspace.
    """
    if attempt.job in observation.outlived:
        return attempt
    end_time = format_time(observation.now)
    if ending.finished:
        return replace(attempt, outcome=AttemptOutcome.SUCCEEDED, exit_code=0, end_time=end_time)
    if observation.stop_wanted:
        return replace(attempt, outcome=AttemptOutcome.STOPPED, end_time=end_time)
    told = ending.failure
    return replace(
        attempt,
        outcome=AttemptOutcome.FAILED,
        cause=told.cause if told else Cause.KILLED,
        end_time=end_time,
        message=(told and told.message) or f"the Job {attempt.job} was deleted",
    )


def _fail(attempt: Attempt, ending: Ending, observation: Observation, end_time: str) -> Attempt:
    if observation.stop_wanted and (ending.exit_code in (None, ExitCode.PREEMPTED, 143, 137)):
        return replace(attempt, outcome=AttemptOutcome.STOPPED, exit_code=ending.exit_code, end_time=end_time)
    cause = classify(ending)
    stage = ending.failure.stage if ending.failure else None
    return replace(
        attempt,
        outcome=AttemptOutcome.FAILED,
        cause=cause,
        exit_code=ending.exit_code,
        stage=stage,
        end_time=end_time,
        message=_tell(ending, cause) or f"the pod ended without a word (exit code {ending.exit_code})",
    )


def _tell(ending: Ending, cause: Cause) -> str:
    """Return why a pod ended: in the trainer's words if they are about this cause, else in the cluster's."""
    told = ending.failure.message if ending.failure else ""
    if ending.failure and ending.failure.cause is cause:
        return told
    return ending.message or told


def find_condition(job: Object, type_: str) -> Object | None:
    """Return a condition of a Job, if it holds."""
    for condition in job.get("status", {}).get("conditions", ()):
        if condition["type"] == type_ and condition["status"] == "True":
            found: Object = condition
            return found
    return None
