"""Which attempts a run had, why they ended, and whether there is another."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from builders import RunBuilder, make_failure, make_job, make_pod, make_report, make_success, terminated

from trainwright.contract import Cause, ExitCode
from trainwright_operator.attempts import Attempt, Observation
from trainwright_operator.history import read_history
from trainwright_operator.names import AttemptOutcome
from trainwright_operator.retries import Action, Decision, decide

NOW = datetime(2026, 1, 2, 4, 0, tzinfo=UTC)
Object = dict[str, Any]


def observe(run: Object, *pairs: tuple[Object, Object | None], now: datetime = NOW) -> Observation:
    jobs = {job["metadata"]["name"]: job for job, _ in pairs}
    pods = {job["metadata"]["name"]: [pod] if pod else [] for job, pod in pairs}
    return Observation(run, jobs, pods, now)


def failed(number: int, cause: Cause, *, retry_request: str = "") -> Object:
    return Attempt(
        number=number,
        job=f"parts-1-{number}",
        start_time="2026-01-02T03:04:05Z",
        end_time="2026-01-02T03:30:00Z",
        outcome=AttemptOutcome.FAILED,
        cause=cause,
        retry_request=retry_request,
        message="it broke",
    ).to_status()


def decide_for(
    run: Object, *pairs: tuple[Object, Object | None], retry: dict[str, int] | None = None
) -> Decision:
    observation = observe(run, *pairs)
    return decide(observation, read_history(observation), retry or {}, backoff_seconds=10)


def test_a_run_without_attempts_starts_its_first() -> None:
    assert decide_for(RunBuilder().build()) == Decision(Action.START, 1)


def test_a_job_made_before_a_crash_is_found_again_though_the_status_never_said_so() -> None:
    run = RunBuilder().build()
    decision = decide_for(run, (make_job(1), make_pod(1)))
    assert decision == Decision(Action.WAIT, 1)


def test_a_recorded_outcome_is_never_revised() -> None:
    record = failed(1, Cause.DATA)
    run = RunBuilder().status({"attempts": [record]}).build()
    observation = observe(run, (make_job(1, condition="Complete"), make_pod(1)))
    assert read_history(observation)[0].to_status() == record


@pytest.mark.parametrize(
    ("exit_code", "reason", "cause"),
    [
        (ExitCode.USER_CONFIG, "Error", Cause.USER_CONFIG),
        (ExitCode.DATA, "Error", Cause.DATA),
        (ExitCode.PUBLISHING, "Error", Cause.PUBLISHING),
        (ExitCode.CUDA_OOM, "Error", Cause.CUDA_OOM),
        (ExitCode.NETWORK, "Error", Cause.NETWORK),
        (ExitCode.PREEMPTED, "Error", Cause.PREEMPTED),
        (ExitCode.SUPERSEDED, "Error", Cause.SUPERSEDED),
        (ExitCode.INTERNAL, "Error", Cause.INTERNAL),
        (137, "OOMKilled", Cause.HOST_OOM),
        (137, "Error", Cause.KILLED),
        (143, "Error", Cause.PREEMPTED),
        (135, "Error", Cause.SHM_EXHAUSTED),
        (1, "Error", Cause.UNKNOWN),
        (139, "Error", Cause.UNKNOWN),
    ],
)
def test_the_cause_of_a_failure_is_told_by_exit_code_and_reason(
    exit_code: int, reason: str, cause: Cause
) -> None:
    pod = make_pod(1, phase="Failed", containerStatuses=terminated(exit_code, reason=reason))
    history = read_history(observe(RunBuilder().build(), (make_job(1, condition="Failed"), pod)))
    assert (history[0].outcome, history[0].cause) == (AttemptOutcome.FAILED, cause)
    assert history[0].exit_code == exit_code


def test_an_evicted_pod_counts_as_preempted_whatever_its_exit_code() -> None:
    conditions = [{"type": "DisruptionTarget", "status": "True"}]
    pod = make_pod(1, phase="Failed", containerStatuses=terminated(1), conditions=conditions)
    history = read_history(observe(RunBuilder().build(), (make_job(1, condition="Failed"), pod)))
    assert history[0].cause is Cause.PREEMPTED


def test_a_pod_evicted_for_filling_its_own_volume_costs_an_attempt() -> None:
    message = 'Usage of EmptyDir volume "workspace" exceeds the limit "1Gi".'
    pod = make_pod(1, phase="Failed", reason="Evicted", message=message)
    history = read_history(observe(RunBuilder().build(), (make_job(1, condition="Failed"), pod)))
    assert (history[0].cause, history[0].message) == (Cause.STORAGE, message)


def test_the_trainers_last_word_becomes_the_attempts_message() -> None:
    word = make_failure(1, Cause.DATA, ExitCode.DATA, "dataset.split: no image left for test").to_json()
    pod = make_pod(1, phase="Failed", containerStatuses=terminated(ExitCode.DATA, word))
    history = read_history(observe(RunBuilder().build(), (make_job(1, condition="Failed"), pod)))
    assert history[0].message == "dataset.split: no image left for test"


def test_a_pod_that_vanished_is_judged_by_what_it_reported_live() -> None:
    run = RunBuilder().reporting(make_failure(1, Cause.PUBLISHING, ExitCode.PUBLISHING)).build()
    history = read_history(observe(run, (make_job(1, condition="Failed"), None)))
    assert history[0].cause is Cause.PUBLISHING


def test_a_live_report_of_an_earlier_attempt_says_nothing_about_this_one() -> None:
    run = RunBuilder().reporting(make_failure(1, Cause.PUBLISHING, ExitCode.PUBLISHING)).build()
    history = read_history(observe(run, (make_job(2, condition="Failed"), None)))
    assert history[0].cause is Cause.KILLED


def test_a_deleted_job_costs_an_attempt_of_the_infrastructure_budget() -> None:
    record = {"number": 1, "job": "parts-1-1", "startTime": "2026-01-02T03:04:05Z"}
    run = RunBuilder().status({"attempts": [record]}).build()
    history = read_history(observe(run))
    assert (history[0].cause, history[0].message) == (Cause.KILLED, "the Job parts-1-1 was deleted")


def test_a_job_deleted_after_its_pod_had_finished_is_a_success() -> None:
    record = {"number": 1, "job": "parts-1-1", "startTime": "2026-01-02T03:04:05Z"}
    run = RunBuilder().status({"attempts": [record]}).reporting(make_success(1)).build()
    assert decide_for(run) == Decision(Action.SUCCEED, 1)


def test_a_deleted_job_is_not_followed_by_another_while_its_pod_still_runs() -> None:
    record = {"number": 1, "job": "parts-1-1", "startTime": "2026-01-02T03:04:05Z"}
    run = RunBuilder().status({"attempts": [record]}).build()
    observation = Observation(run, {}, {}, NOW, outlived=frozenset(["parts-1-1"]))
    attempts = read_history(observation)
    assert decide(observation, attempts, {}, backoff_seconds=0) == Decision(Action.WAIT, 1)


def test_a_job_deleted_after_its_pod_had_failed_is_judged_by_what_the_pod_reported() -> None:
    record = {"number": 1, "job": "parts-1-1", "startTime": "2026-01-02T03:04:05Z"}
    word = make_failure(1, Cause.DATA, ExitCode.DATA, "no image left")
    run = RunBuilder().status({"attempts": [record]}).reporting(word).build()
    attempt = read_history(observe(run))[0]
    assert (attempt.cause, attempt.message) == (Cause.DATA, "no image left")


def test_a_copy_of_a_job_under_another_name_is_no_attempt() -> None:
    copied = make_job(1, condition="Complete")
    copied["metadata"]["name"] = "parts-1-1-copy"
    assert decide_for(RunBuilder().build(), (copied, None)) == Decision(Action.START, 1)


@pytest.mark.parametrize("field", ["suspend", "cancel"])
def test_a_stopped_attempt_costs_no_budget_and_nothing_starts(field: str) -> None:
    record = {"number": 1, "job": "parts-1-1", "startTime": "2026-01-02T03:04:05Z"}
    run = RunBuilder().spec(**{field: True}).status({"attempts": [record]}).build()
    assert read_history(observe(run))[0].outcome is AttemptOutcome.STOPPED
    assert decide_for(run) == Decision(Action.REST, 1)


def test_a_run_to_be_stopped_stops_the_attempt_that_goes_on() -> None:
    run = RunBuilder().spec(suspend=True).build()
    assert decide_for(run, (make_job(1), make_pod(1))) == Decision(Action.STOP, 1)


def test_a_resumed_run_starts_its_next_attempt() -> None:
    stopped = failed(1, Cause.UNKNOWN) | {"outcome": "Stopped"}
    del stopped["cause"]
    run = RunBuilder().status({"attempts": [stopped]}).build()
    assert decide_for(run) == Decision(Action.START, 2)


@pytest.mark.parametrize("cause", [Cause.USER_CONFIG, Cause.DATA])
def test_what_a_retry_cannot_mend_fails_at_once(cause: Cause) -> None:
    run = RunBuilder().status({"attempts": [failed(1, cause)]}).build()
    assert decide_for(run, retry={"infrastructure": 9, "unknown": 9}) == Decision(Action.FAIL, 1)


@pytest.mark.parametrize("failures", [1, 2, 3, 4])
def test_a_budget_is_so_many_attempts_more(failures: int) -> None:
    records = [failed(number, Cause.PUBLISHING) for number in range(1, failures + 1)]
    run = RunBuilder().status({"attempts": records}).build()
    expected = Action.FAIL if failures > 2 else Action.START
    assert decide_for(run, retry={"publishing": 2}).action is expected


def test_causes_have_budgets_of_their_own() -> None:
    records = [failed(1, Cause.PUBLISHING), failed(2, Cause.KILLED)]
    run = RunBuilder().status({"attempts": records}).build()
    assert decide_for(run, retry={"publishing": 1, "infrastructure": 1}).action is Action.START


def test_preemption_is_retried_at_once_and_without_limit() -> None:
    records = [failed(number, Cause.PREEMPTED) for number in range(1, 10)]
    records[-1]["endTime"] = "2026-01-02T03:59:59Z"
    run = RunBuilder().status({"attempts": records}).build()
    assert decide_for(run) == Decision(Action.START, 10)


def test_other_causes_wait_longer_each_time() -> None:
    for failures, pause in ((1, 10), (2, 20), (3, 40)):
        records = [failed(number, Cause.KILLED) for number in range(1, failures + 1)]
        run = RunBuilder().status({"attempts": records}).build()
        observation = observe(run, now=datetime(2026, 1, 2, 3, 30, tzinfo=UTC) + timedelta(seconds=1))
        decision = decide(observation, read_history(observation), {}, backoff_seconds=10)
        assert (decision.action, decision.wait_seconds) == (Action.WAIT, pause - 1)


def test_an_unlimited_budget_can_be_used_for_ever() -> None:
    records = [failed(number, Cause.PUBLISHING) for number in range(1, 200)]
    run = RunBuilder().status({"attempts": records}).build()
    assert decide_for(run, retry={"publishing": -1}) == Decision(Action.START, 200)


def test_a_new_retry_request_grants_one_attempt_more() -> None:
    spent = [failed(1, Cause.DATA, retry_request="")]
    asked = RunBuilder().spec(retryRequest="again").status({"attempts": spent}).build()
    assert decide_for(asked) == Decision(Action.START, 2)
    spent.append(failed(2, Cause.DATA, retry_request="again"))
    answered = RunBuilder().spec(retryRequest="again").status({"attempts": spent}).build()
    assert decide_for(answered) == Decision(Action.FAIL, 2)


def test_a_granted_request_is_remembered_by_the_job_when_the_status_was_not_written() -> None:
    run = RunBuilder().spec(retryRequest="again").status({"attempts": [failed(1, Cause.DATA)]}).build()
    pod = make_pod(2, phase="Failed", containerStatuses=terminated(ExitCode.DATA))
    job = make_job(2, condition="Failed", retry_request="again")
    assert decide_for(run, (job, pod)) == Decision(Action.FAIL, 2)


def test_the_epoch_an_attempt_went_on_from_is_recorded() -> None:
    run = RunBuilder().reporting(make_report(2, resumed_from_epoch=7)).build()
    history = read_history(observe(run, (make_job(2), make_pod(2))))
    assert history[0].to_status()["resumedFromEpoch"] == 7


STOPPING = Attempt(number=1, job="parts-1-1", start_time="2026-01-02T03:04:05Z", stopping=True)


@pytest.mark.parametrize("exit_code", [ExitCode.PREEMPTED, 143, 137])
def test_a_run_that_goes_on_before_its_pod_has_ended_was_stopped_all_the_same(exit_code: int) -> None:
    run = RunBuilder().status({"attempts": [STOPPING.to_status()]}).build()
    pod = make_pod(1, phase="Failed", containerStatuses=terminated(exit_code))
    [failed_job] = read_history(observe(run, (make_job(1, condition="Failed"), pod)))
    [gone] = read_history(Observation(run, {}, {}, NOW))
    assert failed_job.outcome is gone.outcome is AttemptOutcome.STOPPED
    assert failed_job.cause is gone.cause is None
    observation = Observation(run, {}, {}, NOW)
    assert decide(observation, [gone], {"infrastructure": 0}, 10) == Decision(Action.START, 2)


def test_an_attempt_that_was_to_end_does_so_though_the_operator_died_before_it_deleted_the_job() -> None:
    run = RunBuilder().status({"attempts": [STOPPING.to_status()]}).build()
    assert decide_for(run, (make_job(1), make_pod(1))).action is Action.STOP
