"""The status of a run, computed from what is. Pure: the same objects always give the same status."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from trainwright.contract import RunReport, Stage
from trainwright_operator.accounts import Accounts, Terms, close_accounts
from trainwright_operator.admission import is_suspended, queue_of
from trainwright_operator.attempts import KEPT, Attempt, Observation
from trainwright_operator.conditions import holds, stamp
from trainwright_operator.description import describe_run
from trainwright_operator.failures import describe_failure
from trainwright_operator.names import FINAL_PHASES, ConditionType, Phase, plan_name
from trainwright_operator.reports import Ending, read_ending, read_live
from trainwright_operator.retries import Action, count_failures
from trainwright_operator.situation import Situation
from trainwright_operator.size import fit
from trainwright_operator.times import format_time

Object = dict[str, Any]


def is_final(run: Object) -> bool:
    """Return whether nothing can change this run any more, but a new retryRequest one that failed."""
    status = run.get("status") or {}
    if holds(status, ConditionType.SUCCEEDED) or status.get("phase") == Phase.CANCELLED:
        return True
    if "childrenDeletedTime" in status:
        return True  # there is no workspace left to go on in
    request = run["spec"].get("retryRequest", "")
    asked_again = request not in ("", status.get("retryRequest", ""))
    return holds(status, ConditionType.FAILED) and not asked_again


def compute_status(situation: Situation) -> Object:
    """Return all of `status` that the operator owns."""
    observation, attempts = situation.observation, situation.attempts
    run, before = observation.run, observation.status
    ending = newest_ending(observation, attempts)
    report = ending.report
    phase = compute_phase(situation)
    conditions = stamp(
        describe_run(situation, phase, report),
        before.get("conditions", ()),
        run["metadata"]["generation"],
        observation.now,
    )
    accounts = situation.accounts or close_accounts(observation, attempts, Terms())
    last = attempts[-1] if attempts else None
    final = phase in FINAL_PHASES
    digest = situation.acceptance.plan_digest if situation.acceptance else ""
    plan = (
        {"configMap": plan_name(run["metadata"]["name"]), "digest": digest} if digest else before.get("plan")
    )
    snapshot = situation.acceptance.snapshot if situation.acceptance else None
    status: Object = {
        "observedGeneration": run["metadata"]["generation"],
        "phase": str(phase),
        "stage": str(report.progress.stage) if report else before.get("stage"),
        "conditions": conditions,
        "plan": plan if digest else before.get("plan"),
        "profile": snapshot.to_status() if snapshot else before.get("profile"),
        "attempt": last.number if last else 0,
        "attempts": [attempt.to_status() for attempt in attempts[-KEPT:]],
        "queue": _queue(observation, last) or before.get("queue"),
        "failures": dict(sorted(count_failures(before, attempts).items())) or None,
        "currentPod": _current_pod(situation, accounts),
        "usage": accounts.usage.to_status() if last else before.get("usage"),
        "retryRequest": (last.retry_request if last else "") or before.get("retryRequest"),
        "notices": before.get("notices"),
        "startTime": attempts[0].start_time if attempts else None,
        "completionTime": (before.get("completionTime") or format_time(observation.now)) if final else None,
    }
    status["startTime"] = before.get("startTime") or status["startTime"]
    status |= _results(before, report)
    if phase is Phase.FAILED and last:
        if situation.spent:
            last = replace(last, cause=situation.spent.cause, message=situation.spent.message)
        status["failure"] = describe_failure(last, ending)
    return fit({key: value for key, value in status.items() if value is not None})


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
    if last and last.outcome is None and is_suspended(situation.observation.jobs.get(last.job)):
        return Phase.QUEUED
    pod = situation.observation.pod(last.job) if last and last.outcome is None else None
    # A pod that has ended is Running until its Job says how: in between nothing else is known of the attempt.
    waits = pod is None or pod.get("status", {}).get("phase") in (None, "Pending")
    return Phase.PENDING if waits else Phase.RUNNING


def newest_ending(observation: Observation, attempts: Sequence[Attempt]) -> Ending:
    """Return what the newest attempt's pod tells: its last word, else what it reported live."""
    if not attempts:
        return Ending()
    last = attempts[-1]
    live = read_live(observation.status, last.number, last.group)
    return read_ending(observation.pod(last.job), live, last.number)


def _results(before: Object, report: RunReport | None) -> Object:
    """Return dataset, model and metrics: what was reported once is kept when its pod is gone."""
    told = report.model_dump(mode="json", by_alias=True, exclude_none=True) if report else {}
    if report and Stage.EVALUATION not in report.finished_stages:
        told.pop("metrics", None)  # an epoch's are in `trainer`: a copy would be a write for each epoch
    return {key: told.get(key) or before.get(key) for key in ("dataset", "model", "metrics")}


def _queue(observation: Observation, last: Attempt | None) -> Object | None:
    """Return the queue of the newest Job, if it is in one."""
    job = observation.jobs.get(last.job) if last else None
    name = queue_of(job) if job else ""
    return {"name": name} if name else None


def _current_pod(situation: Situation, accounts: Accounts) -> Object | None:
    """Return the pod that may report; none once it was given up, for it may come back to life."""
    last = situation.attempts[-1] if situation.attempts else None
    observation = situation.observation
    if last and last.outcome and (observation.is_unfinished(last.job) or last.job in observation.outlived):
        return None
    return accounts.current_pod
