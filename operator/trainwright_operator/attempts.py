"""An attempt as a run's status records it, and all that is observed of a run at one moment. Pure.

An attempt is one Job, or one for each group of stages where a run has them apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from trainwright.contract import Adjustments, Cause, Stage, StageGroup
from trainwright_operator.admission import NO_WAIT, Wait
from trainwright_operator.names import (
    ADJUSTMENTS_ANNOTATION,
    ATTEMPT_LABEL,
    GPUS_ANNOTATION,
    GROUP_LABEL,
    RETRY_REQUEST_ANNOTATION,
    AttemptOutcome,
)
from trainwright_operator.times import parse_time
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
    stopping: bool = False  # asked to end because the run was suspended or cancelled, perhaps no longer
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
            stopping=record.get("stopping", False),
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
            "stopping": self.stopping or None,
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


def find_condition(job: Object, type_: str) -> Object | None:
    """Return a condition of a Job, if it holds."""
    for condition in job.get("status", {}).get("conditions", ()):
        if condition["type"] == type_ and condition["status"] == "True":
            found: Object = condition
            return found
    return None
