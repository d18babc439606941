"""What /metrics tells of runs, attempts, stages, reconciles and requests."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from builders import RunBuilder, make_success
from prometheus_client.parser import text_string_to_metric_families

from trainwright.contract import Stage
from trainwright_operator.health import Health, serve_health
from trainwright_operator.metrics import Metrics
from trainwright_operator.queue import Key, WorkQueue
from trainwright_operator.store import Store

Object = dict[str, Any]
OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
NAMES = {
    "trainwright_runs",
    "trainwright_attempts_ended",
    "trainwright_stage_seconds",
    "trainwright_gpu_seconds",
    "trainwright_queue_seconds",
    "trainwright_reconcile_seconds",
    "trainwright_reconcile_errors",
    "trainwright_queue_depth",
    "trainwright_watch_age_seconds",
    "trainwright_api_requests",
    "trainwright_leader",
    "trainwright_notifications",
    "trainwright_queue_longest_work_seconds",
}


async def rest(_: Key) -> float | None:
    return None


def nothing() -> None:
    """The report of a pod that told nothing."""


def make_metrics(*runs: Object) -> Metrics:
    metrics, store = Metrics(), Store()
    for run in runs:
        store.keep("TrainingRun", run)
    metrics.observe(store, WorkQueue(rest, 1), lambda: {"Pod": 7.0}, lambda: True)
    return metrics


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0


def status_of(*attempts: Object) -> Object:
    return {"attempts": list(attempts)}


def attempt(number: int, outcome: str = "", cause: str = "") -> Object:
    record = {"number": number, "outcome": outcome, "cause": cause}
    return {key: value for key, value in record.items() if value}


def test_runs_are_counted_by_phase_and_one_without_a_status_is_pending() -> None:
    runs = [RunBuilder(name).status({"phase": "Running"}).build() for name in ("a", "b")]
    metrics = make_metrics(*runs, RunBuilder("c").build())
    told = {
        phase: value(metrics, "trainwright_runs", phase=phase) for phase in ("Running", "Pending", "Failed")
    }
    assert told == {"Running": 2, "Pending": 1, "Failed": 0}


def test_gpu_seconds_and_waits_are_those_that_a_status_adds() -> None:
    metrics = make_metrics()
    waited = {"useful": 0, "lostToFailure": 0, "queuedSeconds": 40}
    ended = {"useful": 60, "lostToFailure": 5, "queuedSeconds": 40}
    running = {**status_of(), "usage": waited, "currentPod": {"uid": "a", "startTime": "t"}}
    metrics.count_change(status_of(), running, nothing)
    for _ in range(2):
        metrics.count_change(running, {**running, "usage": ended}, nothing)
        running = {**running, "usage": ended}
    assert value(metrics, "trainwright_gpu_seconds_total", kind="useful") == 60
    assert value(metrics, "trainwright_gpu_seconds_total", kind="lost_to_failure") == 5
    assert value(metrics, "trainwright_queue_seconds_sum") == 40
    assert value(metrics, "trainwright_queue_seconds_count") == 1


def test_an_attempt_is_counted_when_the_status_first_says_how_it_ended() -> None:
    metrics = make_metrics()
    first, second = attempt(1, "Failed", "Preempted"), attempt(2)
    metrics.count_change({}, status_of(attempt(1)), nothing)
    metrics.count_change(status_of(attempt(1)), status_of(first, second), nothing)
    metrics.count_change(status_of(first, second), status_of(first, attempt(2, "Succeeded")), nothing)
    metrics.count_change(status_of(first, second), status_of(first, second), nothing)
    ended = "trainwright_attempts_ended_total"
    assert value(metrics, ended, outcome="Failed", cause="Preempted") == 1
    assert value(metrics, ended, outcome="Succeeded", cause="") == 1


def test_an_attempt_that_ended_before_the_status_knew_of_it_is_counted() -> None:
    metrics = make_metrics()
    metrics.count_change({}, status_of(attempt(1, "Failed", "Data")), nothing)
    assert value(metrics, "trainwright_attempts_ended_total", outcome="Failed", cause="Data") == 1


def test_stages_are_measured_once_when_the_run_has_succeeded() -> None:
    metrics = make_metrics()
    failed, running, done = attempt(1, "Failed", "Publishing"), attempt(2), attempt(2, "Succeeded")
    metrics.count_change(status_of(attempt(1)), status_of(failed), lambda: make_success(1))
    metrics.count_change(status_of(failed, running), status_of(failed, done), lambda: make_success(2))
    metrics.count_change(status_of(failed, done), status_of(failed, done), lambda: make_success(2))
    for stage in Stage:
        assert value(metrics, "trainwright_stage_seconds_count", stage=stage) == 1
        assert value(metrics, "trainwright_stage_seconds_sum", stage=stage) == 2.0


def test_reconciles_are_timed_and_their_errors_counted_and_passed_on() -> None:
    async def reconcile(key: Key) -> float | None:
        if key.name == "broken":
            raise ValueError("broken")
        return 3.0

    metrics = make_metrics()
    measured = metrics.measure(reconcile)
    assert asyncio.run(_call(measured, "whole")) == 3.0
    with pytest.raises(ValueError, match="broken"):
        asyncio.run(_call(measured, "broken"))
    assert value(metrics, "trainwright_reconcile_seconds_count") == 2
    assert value(metrics, "trainwright_reconcile_errors_total") == 1


async def _call(reconcile: Any, name: str) -> Any:
    return await reconcile(Key("ml", name))


def test_metrics_are_served_beside_the_health_check(unused_port: int) -> None:
    async def scrape() -> str:
        store, queue, metrics = Store(), WorkQueue(rest, 1), Metrics()
        ages = {"Pod": 7.0, "TrainingRun": 3.0}
        metrics.observe(store, queue, lambda: ages, lambda: True)
        metrics.count_request("GET", 200)
        queue.add(Key("ml", "parts-1"))
        async with (
            serve_health(unused_port, Health(lambda: ages, queue, lambda: True, 300), metrics),
            aiohttp.ClientSession(f"http://127.0.0.1:{unused_port}") as session,
        ):
            answer = await session.get("/metrics")
            assert answer.status == 200
            assert answer.content_type == "text/plain"
            return await answer.text()

    families = {family.name: family for family in text_string_to_metric_families(asyncio.run(scrape()))}
    assert families["trainwright_queue_depth"].samples[0].value == 1
    (requests,) = [s for s in families["trainwright_api_requests"].samples if s.name.endswith("_total")]
    assert (requests.labels, requests.value) == ({"method": "GET", "status": "200"}, 1)
    told = {s.labels["kind"]: s.value for s in families["trainwright_watch_age_seconds"].samples}
    assert told == {"Pod": 7, "TrainingRun": 3}


@pytest.fixture
def unused_port() -> int:
    from trainwright_devstack.processes import free_port

    return free_port()


def test_every_metric_is_documented_and_no_label_names_a_run() -> None:
    metrics = make_metrics()
    families = {family.name: family for family in metrics.registry.collect()}
    assert set(families) == NAMES
    documented = re.findall(r"^\| `(trainwright_\w+)`", OPERATIONS.read_text(), re.MULTILINE)
    expected = [f"{name}_total" if family.type == "counter" else name for name, family in families.items()]
    assert sorted(documented) == sorted(expected)
