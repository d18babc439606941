"""What an attempt is given up for though its Job goes on: a lost node, an image that can't be got."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from builders import RunBuilder, make_job, make_pod, make_report

from trainwright.contract import Cause
from trainwright_operator.attempts import Observation
from trainwright_operator.history import read_history
from trainwright_operator.names import AttemptOutcome
from trainwright_operator.retries import Action, decide
from trainwright_operator.times import format_time
from trainwright_operator.verdicts import doubted_since

Object = dict[str, Any]

NOW = datetime(2026, 1, 2, 4, 0, tzinfo=UTC)
RUNNING = [{"name": "trainer", "state": {"running": {"startedAt": "2026-01-02T03:05:00Z"}}}]


def ago(seconds: float) -> str:
    return format_time(NOW - timedelta(seconds=seconds))


def condition(type_: str, status: str, seconds: float, reason: str = "") -> Object:
    return {"type": type_, "status": status, "reason": reason, "lastTransitionTime": ago(seconds)}


def unready_pod(seconds: float = 100) -> Object:
    return make_pod(1, containerStatuses=RUNNING, conditions=[condition("Ready", "False", seconds)])


def make_node(status: str, seconds: float, taint: str | None = "unreachable") -> Object:
    key = {"key": f"node.kubernetes.io/{taint}", "effect": "NoExecute", "timeAdded": ago(seconds)}
    return {
        "metadata": {"name": "node-a", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"taints": [key] if taint else []},
        "status": {"conditions": [condition("Ready", status, seconds)]},
    }


def observe(pod: Object, node: Object | None = None, *, run: Object | None = None, **job: Any) -> Observation:
    body = make_job(1)
    body["metadata"] |= job
    pod["metadata"]["labels"]["trainwright.dev/attempt"] = "1"
    return Observation(
        run or RunBuilder().build(),
        {"parts-1-1": body},
        {"parts-1-1": [pod]},
        NOW,
        nodes={"node-a": node},
    )


def action(observation: Observation) -> Action:
    return decide(observation, read_history(observation), {}, backoff_seconds=0).action


@pytest.mark.parametrize("status", ["Unknown", "False"])
@pytest.mark.parametrize("taint", ["unreachable", "not-ready"])
def test_a_pod_on_a_node_that_does_not_answer_for_a_minute_is_given_up(status: str, taint: str) -> None:
    attempt = read_history(observe(unready_pod(), make_node(status, 90, taint)))[0]
    assert (attempt.outcome, attempt.cause) == (AttemptOutcome.FAILED, Cause.NODE_LOST)
    assert attempt.message == f"node node-a does not answer since {ago(90)}"


def test_a_pod_whose_node_is_no_longer_in_the_cluster_is_given_up() -> None:
    attempt = read_history(observe(unready_pod(), None))[0]
    assert (attempt.cause, attempt.message) == (Cause.NODE_LOST, "node node-a is no longer in the cluster")


def test_until_then_the_status_says_when_it_will_be_and_the_operator_looks_again() -> None:
    observation = observe(unready_pod(), make_node("Unknown", 20))
    decision = decide(observation, read_history(observation), {}, backoff_seconds=0)
    assert (decision.action, decision.wait_seconds) == (Action.WAIT, 40)
    assert decision.warning == f"node node-a does not answer since {ago(20)}; the attempt is given up at " + (
        format_time(NOW + timedelta(seconds=40))
    )


@pytest.mark.parametrize(
    "node",
    [make_node("True", 900, None), make_node("Unknown", 900, None), make_node("True", 900, "unreachable")],
    ids=["well", "not tainted yet", "well again, the taint goes next"],
)
def test_a_node_that_the_cluster_does_not_call_unreachable_is_not_lost(node: Object) -> None:
    observation = observe(unready_pod(), node)
    assert read_history(observation)[0].outcome is None
    assert decide(observation, read_history(observation), {}, backoff_seconds=0).wait_seconds == 15


def test_a_pod_that_still_reports_is_alive_whatever_is_said_of_its_node() -> None:
    report = make_report(1, heartbeat_time=NOW - timedelta(seconds=30))
    run = RunBuilder().reporting(report).build()
    assert read_history(observe(unready_pod(), make_node("Unknown", 600), run=run))[0].outcome is None


def test_a_report_of_another_attempt_is_no_sign_of_life() -> None:
    run = RunBuilder().reporting(make_report(2, heartbeat_time=NOW)).build()
    attempt = read_history(observe(unready_pod(), make_node("Unknown", 600), run=run))[0]
    assert attempt.cause is Cause.NODE_LOST


def test_silence_alone_gives_no_reason_to_ask_for_the_node() -> None:
    pod = make_pod(1, containerStatuses=RUNNING, conditions=[condition("Ready", "True", 9000)])
    assert doubted_since(pod, NOW) is None
    run = RunBuilder().reporting(make_report(1, heartbeat_time=NOW - timedelta(days=2))).build()
    assert read_history(observe(pod, make_node("Unknown", 9000), run=run))[0].outcome is None


REASONS: list[tuple[str, Object, Object]] = [
    ("not ready", {"containerStatuses": RUNNING, "conditions": [condition("Ready", "False", 60)]}, {}),
    ("taken away", {"conditions": [condition("DisruptionTarget", "True", 60, "DeletionByTaintManager")]}, {}),
    ("deleted, and its grace period over", {}, {"deletionTimestamp": ago(60)}),
    ("lost", {"reason": "NodeLost"}, {}),
]


@pytest.mark.parametrize(("status", "metadata"), [r[1:] for r in REASONS], ids=[r[0] for r in REASONS])
def test_what_the_cluster_says_of_a_pod_is_a_reason_to_ask_for_its_node(
    status: Object, metadata: Object
) -> None:
    pod = make_pod(1, **status)
    pod["metadata"] |= metadata
    assert doubted_since(pod, NOW) is not None


@pytest.mark.parametrize(
    ("phase", "status", "metadata"),
    [
        ("Pending", {"conditions": [condition("Ready", "False", 60)]}, {}),
        ("Failed", {"conditions": [condition("Ready", "False", 60)], "containerStatuses": RUNNING}, {}),
        ("Running", {"containerStatuses": RUNNING}, {"deletionTimestamp": ago(-60)}),
        ("Running", {"conditions": [condition("DisruptionTarget", "True", 9, "PreemptionByScheduler")]}, {}),
    ],
    ids=["starting", "ended", "within its grace period", "preempted"],
)
def test_what_happens_to_pods_on_nodes_that_are_well_is_none(
    phase: str, status: Object, metadata: Object
) -> None:
    pod = make_pod(1, phase=phase, **status)
    pod["metadata"] |= metadata
    assert doubted_since(pod, NOW) is None


def test_the_job_of_a_lost_attempt_is_taken_away_before_the_next_one_starts() -> None:
    lost = make_node("Unknown", 90)
    assert action(observe(unready_pod(), lost)) is Action.RETIRE
    assert action(observe(unready_pod(), lost, deletionTimestamp=ago(0))) is Action.START


def test_the_next_attempt_waits_for_the_pod_when_the_node_is_back_before_it_starts() -> None:
    record = {
        "number": 1,
        "job": "parts-1-1",
        "startTime": ago(900),
        "endTime": ago(60),
        "outcome": "Failed",
        "cause": "NodeLost",
    }
    run = RunBuilder().status({"attempts": [record]}).build()
    back = observe(unready_pod(), make_node("True", 5, None), run=run, deletionTimestamp=ago(30))
    assert action(back) is Action.WAIT


@pytest.mark.parametrize("field", ["suspend", "cancel"])
def test_a_run_that_is_to_stop_does_not_wait_for_a_lost_node(field: str) -> None:
    run = RunBuilder().spec(**{field: True}).build()
    observation = observe(unready_pod(), make_node("Unknown", 90), run=run, deletionTimestamp=ago(80))
    assert read_history(observation)[0].outcome is AttemptOutcome.STOPPED
    assert action(observation) is Action.REST


def waiting_pod(seconds: float, reason: str = "ImagePullBackOff") -> Object:
    state = {"waiting": {"reason": reason, "message": 'Back-off pulling image "trainer:0"'}}
    return make_pod(
        1,
        phase="Pending",
        containerStatuses=[{"name": "trainer", "state": state}],
        conditions=[condition("PodScheduled", "True", seconds)],
    )


def test_an_image_that_can_not_be_got_in_ten_minutes_ends_the_attempt() -> None:
    attempt = read_history(observe(waiting_pod(601)))[0]
    assert (attempt.outcome, attempt.cause) == (AttemptOutcome.FAILED, Cause.IMAGE_PULL)
    assert attempt.message == 'ImagePullBackOff: Back-off pulling image "trainer:0"'
    early = observe(waiting_pod(500))
    decision = decide(early, read_history(early), {}, backoff_seconds=0)
    assert (decision.action, decision.wait_seconds) == (Action.WAIT, 100)


def test_a_pod_that_gets_no_node_or_whose_secret_is_missing_waits_for_ever() -> None:
    assert read_history(observe(waiting_pod(9000, "CreateContainerConfigError")))[0].outcome is None
    unscheduled = make_pod(1, phase="Pending", conditions=[condition("PodScheduled", "False", 9000)])
    assert read_history(observe(unscheduled))[0].outcome is None


def test_the_next_attempt_waits_until_a_pod_without_its_image_is_gone() -> None:
    assert action(observe(waiting_pod(700))) is Action.RETIRE
    assert action(observe(waiting_pod(700), deletionTimestamp=ago(1))) is Action.WAIT
