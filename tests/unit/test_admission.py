"""What is told of a Job that waits in a queue, as the queue suspends it and lets it go on."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from builders import CREATED, RunBuilder, make_job, make_pod

from trainwright_operator.admission import Wait, follow_queue
from trainwright_operator.attempts import Observation
from trainwright_operator.history import read_history
from trainwright_operator.names import QUEUE_LABEL
from trainwright_operator.retries import decide
from trainwright_operator.situation import Situation
from trainwright_operator.status import compute_status

Object = dict[str, Any]

NOW = datetime(2026, 1, 2, 4, 0, tzinfo=UTC)


def queued_job(*, suspended: bool, condition: str = "", time: str = CREATED, end: str = "") -> Object:
    """Return a Job of a queue; `condition` is what the Job controller says of Suspended, since `time`."""
    job = make_job(1, condition=end)
    job["spec"] = {"suspend": suspended}
    job["metadata"]["labels"][QUEUE_LABEL] = "gpu-a"
    if condition:
        told = {"type": "Suspended", "status": condition, "lastTransitionTime": time}
        job["status"]["conditions"].append(told)
    return job


def status_of(job: Object, *pods: Object, before: Object | None = None, **spec: Any) -> Object:
    run = RunBuilder().spec(**spec).status(before or {}).build()
    observation = Observation(run, {"parts-1-1": job}, {"parts-1-1": list(pods)}, NOW)
    attempts = read_history(observation)
    return compute_status(Situation(observation, attempts, decide(observation, attempts, {}, 10)))


def condition(status: Object, type_: str) -> Object:
    found: Object = next(item for item in status["conditions"] if item["type"] == type_)
    return found


def test_a_job_no_queue_holds_has_not_waited() -> None:
    assert follow_queue(Wait(), make_job(1), NOW) == Wait()
    assert status_of(make_job(1), make_pod(1))["attempts"][0].keys().isdisjoint(Wait("x").to_status())


def test_a_run_whose_job_waits_is_queued_and_says_where_since_when_and_how_to_learn_why() -> None:
    status = status_of(queued_job(suspended=True))
    assert status["phase"] == "Queued"
    assert status["queue"] == {"name": "gpu-a"}
    admitted, ready = condition(status, "Admitted"), condition(status, "Ready")
    assert (admitted["status"], admitted["reason"]) == ("False", "Queued")
    assert f"Job parts-1-1 waits in queue 'gpu-a' since {CREATED}" in admitted["message"]
    assert "kubectl get workloads -l kueue.x-k8s.io/job-uid=job-1" in admitted["message"]
    assert ready["message"] == admitted["message"]
    assert condition(status, "Reconciling")["status"] == "True"
    (attempt,) = status["attempts"]
    assert (attempt["queuedTime"], attempt["queuedSeconds"]) == (CREATED, 0)
    assert "admittedTime" not in attempt


def test_what_was_waited_is_told_when_the_queue_lets_the_job_go_on() -> None:
    before = status_of(queued_job(suspended=True))
    admitted = queued_job(suspended=False, condition="False", time="2026-01-02T03:05:05Z")
    status = status_of(admitted, make_pod(1), before=before)
    assert status["phase"] == "Running"
    (attempt,) = status["attempts"]
    assert (attempt["admittedTime"], attempt["queuedSeconds"]) == ("2026-01-02T03:05:05Z", 60)
    assert condition(status, "Admitted")["status"] == "True"
    assert "after 60 s in its queue" in condition(status, "Admitted")["message"]


def test_a_job_that_may_go_on_waits_until_the_job_controller_has_seen_it() -> None:
    before = status_of(queued_job(suspended=True))
    unseen = queued_job(suspended=False, condition="True")
    (attempt,) = status_of(unseen, before=before)["attempts"]
    assert "admittedTime" not in attempt


def test_a_preempted_job_waits_again_as_the_same_attempt_and_costs_no_budget() -> None:
    admitted = queued_job(suspended=False, condition="False", time="2026-01-02T03:05:05Z")
    before = status_of(admitted, make_pod(1), before=status_of(queued_job(suspended=True)))
    preempted = queued_job(suspended=True, condition="True", time="2026-01-02T03:30:00Z")
    status = status_of(preempted, make_pod(1), before=before, retry={"preemption": 0})
    assert status["phase"] == "Queued"
    assert (condition(status, "Admitted")["status"], condition(status, "Admitted")["reason"]) == (
        "False",
        "Preempted",
    )
    assert "failures" not in status
    (attempt,) = status["attempts"]
    assert (attempt["number"], attempt["preemptions"]) == (1, 1)
    assert (attempt["queuedTime"], attempt["queuedSeconds"]) == ("2026-01-02T03:30:00Z", 60)
    again = queued_job(suspended=False, condition="False", time="2026-01-02T03:30:30Z")
    (attempt,) = status_of(again, make_pod(1), before=status)["attempts"]
    assert (attempt["preemptions"], attempt["queuedSeconds"]) == (1, 90)


def test_a_preemption_is_counted_from_now_while_the_job_controller_has_not_seen_it() -> None:
    wait = Wait(CREATED, "2026-01-02T03:05:05Z", 60)
    unseen = queued_job(suspended=True, condition="False", time="2026-01-02T03:05:05Z")
    assert follow_queue(wait, unseen, NOW) == Wait("2026-01-02T04:00:00Z", "", 60, 1)


def test_a_preemption_that_nobody_watched_is_counted() -> None:
    wait = Wait(CREATED, "2026-01-02T03:05:05Z", 60)
    later = queued_job(suspended=False, condition="False", time="2026-01-02T03:50:00Z")
    assert follow_queue(wait, later, NOW) == Wait(CREATED, "2026-01-02T03:50:00Z", 60, 1)
    assert follow_queue(Wait(), later, NOW).preemptions == 0


def test_a_wait_ends_with_its_job() -> None:
    before = status_of(queued_job(suspended=True))
    run = RunBuilder().spec(suspend=True).status(before).build()
    (attempt,) = read_history(Observation(run, {}, {}, NOW))
    assert attempt.outcome == "Stopped"
    assert attempt.wait.queued_seconds == (NOW - datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)).total_seconds()


def test_a_job_that_somebody_else_suspended_is_queued_and_says_so() -> None:
    job = queued_job(suspended=True)
    del job["metadata"]["labels"][QUEUE_LABEL]
    status = status_of(job)
    assert status["phase"] == "Queued"
    assert "names no queue" in condition(status, "Admitted")["message"]


def test_what_was_counted_of_waits_is_kept_where_their_times_were_cut_off() -> None:
    wait = Wait.from_status({"queuedSeconds": 40, "preemptions": 2})
    assert wait.to_status() == {"queuedSeconds": 40, "preemptions": 2}
    assert Wait().to_status() == {}
