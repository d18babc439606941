"""What became of a run's attempts: what its status records, completed by what is there now. Pure.

What is recorded of an attempt is only ever completed, never changed; what the status does not say yet is read
from the Job, its pod and the pod's last report.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from trainwright.contract import Adjustments, Cause, ExitCode
from trainwright_operator.admission import follow_queue
from trainwright_operator.attempts import (
    Attempt,
    Observation,
    begin_attempt,
    find_condition,
    group_of,
    place_of,
)
from trainwright_operator.causes import classify
from trainwright_operator.names import ATTEMPT_LABEL, AttemptOutcome, job_name
from trainwright_operator.reports import Ending, read_ending, read_live
from trainwright_operator.times import format_time
from trainwright_operator.verdicts import Verdict

Object = dict[str, Any]


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
    if _is_stopped(attempt, observation):
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
    if _is_stopped(attempt, observation):
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
    if _is_stopped(attempt, observation) and (ending.exit_code in (None, ExitCode.PREEMPTED, 143, 137)):
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


def _is_stopped(attempt: Attempt, observation: Observation) -> bool:
    """Whether the attempt ends by the user's wish: also if that changed while its pod was saving."""
    return observation.stop_wanted or attempt.stopping


def _tell(ending: Ending, cause: Cause) -> str:
    """Return why a pod ended: in the trainer's words if they are about this cause, else in the cluster's."""
    told = ending.failure.message if ending.failure else ""
    if ending.failure and ending.failure.cause is cause:
        return told
    return ending.message or told
