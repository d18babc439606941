"""The status of a run, computed from what is. Pure: the same objects always give the same status."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trainwright.contract import Outcome, RunReport, Stage
from trainwright_operator.attempts import KEPT, Attempt, Observation
from trainwright_operator.conditions import Condition, holds, stamp
from trainwright_operator.names import (
    TRAINER_CONTAINER,
    AttemptOutcome,
    ConditionType,
    Phase,
    Reason,
    plan_name,
)
from trainwright_operator.reports import Ending, describe_waiting, read_ending, read_live
from trainwright_operator.retries import Action, Decision, describe_failure
from trainwright_operator.times import format_time, parse_time

Object = dict[str, Any]

STAGE_CONDITIONS = {
    ConditionType.DATASET_READY: Stage.DATASET,
    ConditionType.TRAINED: Stage.TRAINING,
    ConditionType.VERIFIED: Stage.VERIFICATION,
    ConditionType.PUBLISHED: Stage.PUBLISHING,
}
FINAL_PHASES = (Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED)


@dataclass(frozen=True)
class Acceptance:
    """Whether the run may be carried out; `problems` lists everything against it."""

    problems: tuple[str, ...] = ()
    reason: Reason = Reason.VALID
    plan_digest: str = ""

    @property
    def accepted(self) -> bool:
        """Whether there is nothing against it."""
        return not self.problems


@dataclass(frozen=True)
class Situation:
    """All that a status is computed from."""

    observation: Observation
    attempts: Sequence[Attempt]
    decision: Decision
    acceptance: Acceptance | None = None  # None: decided before, see the written status
    patience_seconds: float = 60  # how long a run that is not accepted may still be on its way


def is_final(run: Object) -> bool:
    """Return whether nothing but a new retryRequest can change this run any more."""
    status = run.get("status") or {}
    if holds(status, ConditionType.SUCCEEDED) or status.get("phase") == Phase.CANCELLED:
        return True
    request = run["spec"].get("retryRequest", "")
    cancelled = run["spec"].get("cancel", False)
    asked_again = request not in ("", status.get("retryRequest", ""))
    return holds(status, ConditionType.FAILED) and not asked_again and not cancelled


def compute_status(situation: Situation) -> Object:
    """Return all of `status` that the operator owns."""
    observation, attempts = situation.observation, situation.attempts
    run, before = observation.run, observation.status
    ending = _newest_ending(observation, attempts)
    report = ending.report
    phase = compute_phase(situation)
    conditions = stamp(
        _conditions(situation, phase, report),
        before.get("conditions", ()),
        run["metadata"]["generation"],
        observation.now,
    )
    last = attempts[-1] if attempts else None
    final = phase in FINAL_PHASES
    digest = situation.acceptance.plan_digest if situation.acceptance else ""
    plan = (
        {"configMap": plan_name(run["metadata"]["name"]), "digest": digest} if digest else before.get("plan")
    )
    status: Object = {
        "observedGeneration": run["metadata"]["generation"],
        "phase": str(phase),
        "stage": str(report.progress.stage) if report else before.get("stage"),
        "conditions": conditions,
        "plan": plan if digest else before.get("plan"),
        "attempt": last.number if last else 0,
        "attempts": [attempt.to_status() for attempt in attempts[-KEPT:]],
        "currentPod": _current_pod(observation, last) or before.get("currentPod"),
        "retryRequest": (last.retry_request if last else "") or before.get("retryRequest"),
        "startTime": attempts[0].start_time if attempts else None,
        "completionTime": (before.get("completionTime") or format_time(observation.now)) if final else None,
    }
    status["startTime"] = before.get("startTime") or status["startTime"]
    status |= _results(before, report)
    if phase is Phase.FAILED and last:
        status["failure"] = describe_failure(last, ending)
    return {key: value for key, value in status.items() if value is not None}


def compute_phase(situation: Situation) -> Phase:
    """Return the run's state in one word."""
    action, spec = situation.decision.action, situation.observation.run["spec"]
    if action is Action.SUCCEED:
        return Phase.SUCCEEDED
    if action is Action.FAIL:
        return Phase.FAILED
    if action is Action.REST:
        return Phase.CANCELLED if spec.get("cancel") else Phase.SUSPENDED
    last = situation.attempts[-1] if situation.attempts else None
    pod = situation.observation.pod(last.job) if last and last.outcome is None else None
    # A pod that has ended is Running until its Job says how: in between nothing else is known of the attempt.
    waits = pod is None or pod.get("status", {}).get("phase") in (None, "Pending")
    return Phase.PENDING if waits else Phase.RUNNING


def _newest_ending(observation: Observation, attempts: Sequence[Attempt]) -> Ending:
    """Return what the newest attempt's pod tells: its last word, else what it reported live."""
    if not attempts:
        return Ending()
    live = read_live(observation.status, attempts[-1].number)
    return read_ending(observation.pod(attempts[-1].job), live, TRAINER_CONTAINER)


def _results(before: Object, report: RunReport | None) -> Object:
    """Return dataset, model and metrics: what was reported once is kept when its pod is gone."""
    told = report.model_dump(mode="json", by_alias=True, exclude_none=True) if report else {}
    return {key: told.get(key) or before.get(key) for key in ("dataset", "model", "metrics")}


def _current_pod(observation: Observation, last: Attempt | None) -> Object | None:
    """Return the pod that may report: that of the newest attempt, found by controllers' uids."""
    pod = observation.pod(last.job) if last and last.outcome is None else None
    return {"name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]} if pod else None


# --- conditions -------------------------------------------------------------------------------------


def _conditions(situation: Situation, phase: Phase, report: RunReport | None) -> list[Condition]:
    accepted, admitted = _accepted(situation), _admitted(situation)
    return [
        accepted,
        admitted,
        *_stage_conditions(situation, report),
        *_ends(situation, phase, report),
        *_kstatus(situation, phase, accepted, admitted),
    ]


def _accepted(situation: Situation) -> Condition:
    acceptance = situation.acceptance
    if acceptance is None:
        for written in situation.observation.status.get("conditions", ()):
            if written["type"] == ConditionType.ACCEPTED:
                holds_ = {"True": True, "False": False}.get(written["status"])
                return Condition(
                    ConditionType.ACCEPTED, holds_, Reason(written["reason"]), written.get("message", "")
                )
        return Condition(ConditionType.ACCEPTED, None, Reason.NOT_REACHED)
    message = "; ".join(acceptance.problems) or "everything the run names exists"
    return Condition(ConditionType.ACCEPTED, acceptance.accepted, acceptance.reason, message)


def _admitted(situation: Situation) -> Condition:
    last = situation.attempts[-1] if situation.attempts else None
    if last is None:
        return Condition(ConditionType.ADMITTED, None, Reason.NOT_REACHED, "no pod was asked for yet")
    pod = situation.observation.pod(last.job)
    if pod is None:
        admitted = bool(last.pod)
        message = f"pod {last.pod} ran on node {last.node}" if admitted else f"Job {last.job} has no pod yet"
        return Condition(ConditionType.ADMITTED, admitted, Reason.CREATED, message)
    if waiting := describe_waiting(pod, TRAINER_CONTAINER):
        return Condition(ConditionType.ADMITTED, False, Reason.CREATED, f"pod {last.pod}: {waiting}")
    where = pod["spec"].get("nodeName")
    message = f"pod {pod['metadata']['name']} " + (f"is on node {where}" if where else "waits for a node")
    return Condition(ConditionType.ADMITTED, bool(where), Reason.SCHEDULED, message)


def _stage_conditions(situation: Situation, report: RunReport | None) -> list[Condition]:
    """A stage that was finished once stays so: its output is in the workspace and the journal."""
    finished = report.finished_stages if report else {}
    before, succeeded = situation.observation.status, situation.decision.action is Action.SUCCEED
    conditions = []
    for type_, stage in STAGE_CONDITIONS.items():
        if stage in finished:
            message = f"{stage} took {finished[stage]:.0f} s"
            conditions.append(Condition(type_, True, Reason.DONE, message))
        elif holds(before, type_):
            conditions.append(Condition(type_, True, Reason.DONE, _message(before, type_)))
        elif succeeded:
            conditions.append(Condition(type_, False, Reason.NOT_REQUESTED, "the run does not ask for it"))
        else:
            conditions.append(Condition(type_, None, Reason.NOT_REACHED))
    return conditions


def _message(status: Object, type_: ConditionType) -> str:
    return next((c.get("message", "") for c in status.get("conditions", ()) if c["type"] == type_), "")


def _ends(situation: Situation, phase: Phase, report: RunReport | None) -> list[Condition]:
    succeeded, failed = phase is Phase.SUCCEEDED, phase is Phase.FAILED
    running = "the run goes on" if phase not in FINAL_PHASES else f"the run is {phase.lower()}"
    dry = report is not None and report.outcome is Outcome.DRY_RUN
    reason, message = Reason.NOT_REACHED, running
    if succeeded:
        reason, message = Reason.SUCCEEDED, _success(report)
    if succeeded and dry:
        reason, message = Reason.DRY_RUN, "validated, and the dataset is built; nothing was trained (dryRun)"
    suspended = phase is Phase.SUSPENDED
    return [
        Condition(ConditionType.SUCCEEDED, succeeded, reason, message),
        _failed(situation, failed, running),
        Condition(
            ConditionType.SUSPENDED,
            suspended,
            Reason.SUSPENDED if suspended else Reason.NOT_REQUESTED,
            "spec.suspend is set: nothing runs" if suspended else "",
        ),
    ]


def _success(report: RunReport | None) -> str:
    model = report.model if report else None
    if model is None:
        return "the run is finished"
    where = "published" if model.parts else "verified; no delivery was asked for"
    return f"model {model.name}@{model.version} is {where}"


def _failed(situation: Situation, failed: bool, running: str) -> Condition:
    if not failed:
        return Condition(ConditionType.FAILED, False, Reason.NOT_REACHED, running)
    last = situation.attempts[-1]
    spent = situation.decision.budget_spent
    count = sum(attempt.cause is last.cause for attempt in situation.attempts)
    times = f"{count} attempts failed" if count > 1 else f"attempt {last.number} failed"
    message = f"{times} for cause {last.cause}: {last.message}"
    return Condition(
        ConditionType.FAILED, True, Reason.BUDGET_SPENT if spent else Reason.NOT_RETRYABLE, message
    )


def _kstatus(situation: Situation, phase: Phase, accepted: Condition, admitted: Condition) -> list[Condition]:
    """kstatus: a run is Ready when it is where it should be, Stalled when only a person can help."""
    created = situation.observation.run["metadata"]["creationTimestamp"]
    age = (situation.observation.now - parse_time(created)).total_seconds()
    refused = accepted.holds is False and phase is Phase.PENDING
    stalled = phase in (Phase.FAILED, Phase.CANCELLED) or (refused and age > situation.patience_seconds)
    ready = phase in (Phase.SUCCEEDED, Phase.SUSPENDED)
    reason, message = _progress(situation, phase, accepted, admitted)
    # Ready tells what goes on; the other two repeat it only when they hold: a status has to stay small.
    reconciling = not ready and not stalled
    return [
        Condition(ConditionType.READY, ready, reason, message),
        Condition(ConditionType.RECONCILING, reconciling, reason, message if reconciling else ""),
        Condition(ConditionType.STALLED, stalled, reason, message if stalled else ""),
    ]


RESTS = {
    Phase.SUCCEEDED: (Reason.SUCCEEDED, "the run is finished"),
    Phase.FAILED: (Reason.NOT_RETRYABLE, "the run failed: see the condition Failed"),
    Phase.CANCELLED: (Reason.CANCELLED, "spec.cancel is set: nothing runs"),
    Phase.SUSPENDED: (Reason.SUSPENDED, "spec.suspend is set: nothing runs"),
}
"""What is said of a run that is at rest."""


def _progress(
    situation: Situation, phase: Phase, accepted: Condition, admitted: Condition
) -> tuple[Reason, str]:
    """Return what the run is doing now, and why, in a sentence."""
    if phase in RESTS:
        return RESTS[phase]
    last = situation.attempts[-1] if situation.attempts else None
    if accepted.holds is False:
        return accepted.reason, accepted.message
    if situation.decision.action is Action.STOP:
        return Reason.SUSPENDED, "the pod is asked to save and end"
    if last and last.outcome is AttemptOutcome.FAILED:
        return Reason.RETRYING, f"attempt {last.number} failed for cause {last.cause}: {last.message}"
    if phase is Phase.RUNNING and last:
        return Reason.RUNNING, f"attempt {last.number} runs in pod {last.pod}"
    return admitted.reason, admitted.message
