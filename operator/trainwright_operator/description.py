"""What is said of a run: its conditions, each with a reason for programs and a sentence for people. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainwright.contract import Cause, Outcome, RunReport, Stage
from trainwright_operator.admission import describe_wait, is_suspended
from trainwright_operator.attempts import Attempt
from trainwright_operator.conditions import Condition, holds
from trainwright_operator.names import FINAL_PHASES, AttemptOutcome, ConditionType, Phase, Reason
from trainwright_operator.reports import describe_waiting
from trainwright_operator.retries import Action, count_failures
from trainwright_operator.situation import Situation
from trainwright_operator.times import parse_time

Object = dict[str, Any]

STAGE_CONDITIONS = {
    ConditionType.DATASET_READY: Stage.DATASET,
    ConditionType.TRAINED: Stage.TRAINING,
    ConditionType.VERIFIED: Stage.VERIFICATION,
    ConditionType.PUBLISHED: Stage.PUBLISHING,
}
LIMIT_REASONS: Mapping[Cause | None, Reason] = {
    Cause.DEADLINE_EXCEEDED: Reason.DEADLINE_EXCEEDED,
    Cause.BUDGET_EXCEEDED: Reason.BUDGET_EXCEEDED,
}


def describe_run(situation: Situation, phase: Phase, report: RunReport | None) -> list[Condition]:
    """Return every condition of a run, always all of them and in the same order."""
    accepted, admitted = _accepted(situation), _admitted(situation)
    told = _describe_rest(situation, phase, report) or _progress(situation, phase, accepted, admitted)
    return [
        accepted,
        admitted,
        *_stage_conditions(situation, report),
        _promoted(situation, report),
        *_ends(situation, phase, report),
        *_kstatus(situation, phase, accepted, told),
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
    message = "; ".join(acceptance.problems) or acceptance.note or "everything the run names exists"
    return Condition(ConditionType.ACCEPTED, acceptance.accepted, acceptance.reason, message)


def _admitted(situation: Situation) -> Condition:
    last = situation.attempts[-1] if situation.attempts else None
    if last is None:
        return Condition(ConditionType.ADMITTED, None, Reason.NOT_REACHED, "no pod was asked for yet")
    job, pod = situation.observation.jobs.get(last.job), situation.observation.pod(last.job)
    if job and last.outcome is None and is_suspended(job):
        reason = Reason.PREEMPTED if last.wait.preemptions else Reason.QUEUED
        return Condition(ConditionType.ADMITTED, False, reason, describe_wait(job, last.wait))
    if pod is None:
        admitted = bool(last.pod)
        message = f"pod {last.pod} ran on node {last.node}" if admitted else f"Job {last.job} has no pod yet"
        return Condition(ConditionType.ADMITTED, admitted, Reason.CREATED, message)
    where = pod["spec"].get("nodeName")
    if waiting := describe_waiting(pod):
        reason = Reason.NOT_STARTED if where else Reason.UNSCHEDULABLE
        return Condition(ConditionType.ADMITTED, False, reason, f"pod {last.pod}: {waiting}")
    message = f"pod {pod['metadata']['name']} " + (f"is on node {where}" if where else "waits for a node")
    if last.wait.admitted_time:
        message += f", admitted at {last.wait.admitted_time} after {last.wait.queued_seconds} s in its queue"
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


def _promoted(situation: Situation, report: RunReport | None) -> Condition:
    """A published version is the newest of its name only if it passed its gate."""
    type_, before = ConditionType.PROMOTED, situation.observation.status
    if report and report.promotion:
        reason = Reason.DONE if report.promotion.promoted else Reason.GATE_FAILED
        return Condition(type_, report.promotion.promoted, reason, report.promotion.reason)
    if holds(before, type_):
        return Condition(type_, True, Reason.DONE, _message(before, type_))
    if situation.decision.action is Action.SUCCEED:
        return Condition(type_, False, Reason.NOT_REQUESTED, "nothing was published")
    return Condition(type_, None, Reason.NOT_REACHED)


def _message(status: Object, type_: ConditionType) -> str:
    return next((c.get("message", "") for c in status.get("conditions", ()) if c["type"] == type_), "")


def _ends(situation: Situation, phase: Phase, report: RunReport | None) -> list[Condition]:
    succeeded, failed = phase is Phase.SUCCEEDED, phase is Phase.FAILED
    running = "the run goes on" if phase not in FINAL_PHASES else f"the run is {phase.lower()}"
    reason, message = _describe_success(report) if succeeded else (Reason.NOT_REACHED, running)
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


def _describe_success(report: RunReport | None) -> tuple[Reason, str]:
    if report and report.outcome is Outcome.DRY_RUN:
        return Reason.DRY_RUN, "validated, and the dataset is built; nothing was trained (dryRun)"
    model = report.model if report else None
    if model is None:
        return Reason.SUCCEEDED, "the run is finished"
    where = "published" if model.parts else "verified; no delivery was asked for"
    if report and report.promotion and not report.promotion.promoted:
        where += f", but not promoted: {report.promotion.reason}"
    return Reason.SUCCEEDED, f"model {model.name}@{model.version} is {where}"


def _failed(situation: Situation, failed: bool, running: str) -> Condition:
    if not failed:
        return Condition(ConditionType.FAILED, False, Reason.NOT_REACHED, running)
    return Condition(ConditionType.FAILED, True, _failure_reason(situation), _describe_end(situation))


def _describe_end(situation: Situation) -> str:
    """Return why there is no further attempt: what failed how often, and why the last time."""
    if situation.spent:
        return situation.spent.message
    last = situation.attempts[-1]
    if last.cause in LIMIT_REASONS:
        return f"attempt {last.number} was ended: {last.message}"
    count = count_failures(situation.observation.status, situation.attempts)[str(last.cause)]
    times = f"{count} attempts failed" if count > 1 else f"attempt {last.number} failed"
    return f"{times} for cause {last.cause}: {last.message}"


def _failure_reason(situation: Situation) -> Reason:
    cause = situation.spent.cause if situation.spent else situation.attempts[-1].cause
    if cause in LIMIT_REASONS:
        return LIMIT_REASONS[cause]
    return Reason.BUDGET_SPENT if situation.decision.budget_spent else Reason.NOT_RETRYABLE


def _kstatus(
    situation: Situation, phase: Phase, accepted: Condition, told: tuple[Reason, str]
) -> list[Condition]:
    """kstatus: a run is Ready when it is where it should be, Stalled when only a person can help."""
    reason, message = told
    created = situation.observation.run["metadata"]["creationTimestamp"]
    age = (situation.observation.now - parse_time(created)).total_seconds()
    refused = accepted.holds is False and phase is Phase.PENDING
    stalled = phase in (Phase.FAILED, Phase.CANCELLED) or (refused and age > situation.patience_seconds)
    ready = phase in (Phase.SUCCEEDED, Phase.SUSPENDED)
    # Ready tells what goes on; the other two repeat it only when they hold: a status has to stay small.
    reconciling = not ready and not stalled
    return [
        Condition(ConditionType.READY, ready, reason, message),
        Condition(ConditionType.RECONCILING, reconciling, reason, message if reconciling else ""),
        Condition(ConditionType.STALLED, stalled, reason, message if stalled else ""),
    ]


RESTS = {
    Phase.CANCELLED: (Reason.CANCELLED, "spec.cancel is set: nothing runs"),
    Phase.SUSPENDED: (
        Reason.SUSPENDED,
        "spec.suspend is set: nothing runs; set it to false to go on from the newest checkpoint",
    ),
}
"""What is said of a run that is at rest."""


def _describe_rest(situation: Situation, phase: Phase, report: RunReport | None) -> tuple[Reason, str] | None:
    """Return why nothing goes on, if so."""
    if phase is Phase.SUCCEEDED:
        return _describe_success(report)
    if phase is Phase.FAILED:
        return _failure_reason(situation), _describe_end(situation)
    return RESTS.get(phase)


def _progress(
    situation: Situation, phase: Phase, accepted: Condition, admitted: Condition
) -> tuple[Reason, str]:
    """Return what goes on now, and why, in a sentence."""
    last = situation.attempts[-1] if situation.attempts else None
    if accepted.holds is False:
        return accepted.reason, accepted.message
    if situation.decision.action is Action.STOP:
        if last and last.ending:
            return LIMIT_REASONS.get(last.ending, Reason.RETRYING), f"its pod is asked to end: {last.message}"
        return Reason.SUSPENDED, "the pod is asked to save and end"
    if last is None or phase in (Phase.PENDING, Phase.QUEUED):
        reason, message = _waiting(last, admitted)
    else:
        reason, message = Reason.RUNNING, _describe_running(situation.attempts)
    return reason, "; ".join(filter(None, (message, situation.decision.warning)))


def _describe_running(attempts: Sequence[Attempt]) -> str:
    """Return which attempt runs, where it went on, how it differs, and why there is more than one."""
    last, before = attempts[-1], attempts[-2] if len(attempts) > 1 else None
    went_on = f", from epoch {last.resumed_from_epoch} on" if last.resumed_from_epoch else ""
    told = last.adjustments.model_dump(by_alias=True, exclude_none=True)
    differs = "".join(f", {name} {value}" for name, value in told.items())
    why = f"; attempt {before.number} failed for cause {before.cause}" if before and before.cause else ""
    return f"attempt {last.number} runs in pod {last.pod}{went_on}{differs}{why}"


def _waiting(last: Attempt | None, admitted: Condition) -> tuple[Reason, str]:
    if last and last.outcome is AttemptOutcome.FAILED:
        return Reason.RETRYING, f"attempt {last.number} failed for cause {last.cause}: {last.message}"
    return admitted.reason, admitted.message
