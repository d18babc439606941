"""Builders of Kubernetes objects for tests: each says only what the test is about."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Self

from trainwright.contract import (
    Cause,
    FailureReport,
    ModelReport,
    Outcome,
    Progress,
    RunReport,
    Stage,
    StageGroup,
)
from trainwright_operator.names import (
    API_VERSION,
    ATTEMPT_LABEL,
    GROUP_LABEL,
    RETRY_REQUEST_ANNOTATION,
    RUN_LABEL,
    job_name,
)

Object = dict[str, Any]

CREATED = "2026-01-02T03:04:05Z"
RUN_UID = "4f2a4f2a-0000-4000-8000-000000000001"
DIGEST = "sha256:" + "ab" * 32


class RunBuilder:
    """A TrainingRun as the API server would return it."""

    def __init__(self, name: str = "parts-1", namespace: str = "ml") -> None:
        self.body: Object = {
            "apiVersion": API_VERSION,
            "kind": "TrainingRun",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": RUN_UID,
                "generation": 1,
                "creationTimestamp": CREATED,
            },
            "spec": {"model": {"name": "parts"}, "dataset": {"source": {"sample": {}}}},
        }

    def spec(self, **fields: Any) -> Self:
        """Set fields of the spec."""
        self.body["spec"] |= fields
        return self

    def status(self, status: Object) -> Self:
        """Set the whole status."""
        self.body["status"] = status
        return self

    def reporting(self, report: RunReport) -> Self:
        """Add what a trainer reports of itself."""
        trainer = report.model_dump(mode="json", by_alias=True, exclude_none=True)
        self.body["status"] = {**self.body.get("status", {}), "trainer": trainer}
        return self

    def delivering(self, **changes: Any) -> Self:
        """Ask for delivery, with all that it needs."""
        self.body["spec"]["delivery"] = {
            "api": {"url": "https://api.example", "credentials": {"secretName": "publisher"}},
            "cdn": {"credentials": {"secretName": "cdn"}},
            "sealing": {
                "recipients": {"configMapName": "recipients"},
                "signingKey": {"secretName": "signing"},
            },
        } | changes
        return self

    def build(self) -> Object:
        """Return the object."""
        return self.body


def make_job(
    number: int,
    *,
    condition: str = "",
    retry_request: str = "",
    run: str = "parts-1",
    group: StageGroup | None = None,
) -> Object:
    """Return the Job of an attempt, ended by `condition` (Complete or Failed) if that is given."""
    conditions = [{"type": condition, "status": "True", "lastTransitionTime": CREATED}] if condition else []
    return {
        "kind": "Job",
        "metadata": {
            "name": job_name(run, number, group),
            "namespace": "ml",
            "uid": f"job-{number}",
            "creationTimestamp": CREATED,
            "labels": {ATTEMPT_LABEL: str(number), RUN_LABEL: run, **({GROUP_LABEL: group} if group else {})},
            "annotations": {RETRY_REQUEST_ANNOTATION: retry_request},
            "ownerReferences": [{"uid": RUN_UID, "controller": True}],
        },
        "status": {"conditions": conditions},
    }


def make_pod(number: int, *, run: str = "parts-1", phase: str = "Running", **status: Any) -> Object:
    """Return the pod of an attempt's Job."""
    return {
        "kind": "Pod",
        "metadata": {
            "name": f"{job_name(run, number)}-abcde",
            "namespace": "ml",
            "uid": f"pod-{number}",
            "creationTimestamp": CREATED,
            "labels": {RUN_LABEL: run},
            "ownerReferences": [{"uid": f"job-{number}", "controller": True}],
        },
        "spec": {"nodeName": "node-a"},
        "status": {"phase": phase, **status},
    }


def terminated(exit_code: int, message: str = "", reason: str = "Error") -> list[Object]:
    """Return container statuses of a trainer that ended."""
    state = {"exitCode": exit_code, "message": message, "reason": reason}
    return [{"name": "trainer", "image": "trainer:1", "imageID": "", "state": {"terminated": state}}]


def make_report(attempt: int = 1, **fields: Any) -> RunReport:
    """Return a report of a trainer in training."""
    known: Object = {
        "attempt": attempt,
        "heartbeat_time": datetime(2026, 1, 2, 3, 5, tzinfo=UTC),
        "progress": Progress(percent=40, stage=Stage.TRAINING, epoch=3, epochs=10),
    }
    return RunReport(**(known | fields))


def make_success(attempt: int = 1) -> RunReport:
    """Return the last report of a trainer that did everything."""
    return make_report(
        attempt,
        progress=Progress(percent=100, stage=Stage.PUBLISHING),
        finished_stages=dict.fromkeys(Stage, 2.0),
        model=ModelReport(name="parts", version="2026-01-02-4f2a4f2a", digest=DIGEST, size=10),
        outcome=Outcome.SUCCEEDED,
    )


def make_failure(attempt: int, cause: Cause, exit_code: int, message: str = "it broke") -> RunReport:
    """Return the last report of a trainer that failed."""
    failure = FailureReport(cause=cause, exit_code=exit_code, message=message, hint="mend it")
    return make_report(attempt, outcome=Outcome.FAILED, failure=failure)
