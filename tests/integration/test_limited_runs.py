"""Deadlines, budgets and accounts of runs on a real API server, in seconds; tests tell how pods fare."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from builders import make_report, make_success
from operator_process import OperatorProcess
from run_bench import RUNS, UNSCHEDULED, Bench

from trainwright.contract import Progress, RunReport, Stage
from trainwright_operator.times import parse_time

Object = dict[str, Any]
ONE_GPU = {**UNSCHEDULED, "gpus": 1}
OPERATOR_SETTINGS = {"pricePerGPUHour": 3600, "relistSeconds": 600}


def start_container(bench: Bench, pod: str) -> None:
    """Tell the API server, as a kubelet would, that a pod's container runs."""
    state = {"running": {"startedAt": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}}
    container = {
        "name": "trainer",
        "image": "trainer:test",
        "imageID": "",
        "ready": True,
        "restartCount": 0,
        "state": state,
    }
    status = {"phase": "Running", "containerStatuses": [container]}
    bench.core.patch_namespaced_pod_status(pod, bench.namespace, {"status": status})


def report(bench: Bench, word: RunReport) -> None:
    """Write what a trainer reports, with an administrator's rights."""
    bench.runs.patch_namespaced_custom_object_status(
        *RUNS,
        bench.namespace,
        "trainingruns",
        "run",
        {"status": {"trainer": word.model_dump(mode="json", by_alias=True, exclude_none=True)}},
        _content_type="application/merge-patch+json",
    )


def stepped(attempt: int) -> RunReport:
    progress = Progress(percent=1, stage=Stage.TRAINING, step=7, step_time=datetime.now(UTC))
    return make_report(attempt, progress=progress)


def failed(status: Object) -> Object:
    return next(item for item in status["conditions"] if item["type"] == "Failed")


def test_a_run_that_waits_too_long_fails_and_says_what_to_do(bench: Bench) -> None:
    bench.create(deadlines={"queuedSeconds": 2})
    status = bench.wait_for_phase("Failed")
    assert failed(status)["reason"] == "DeadlineExceeded"
    assert "spec.deadlines.queuedSeconds is 2, and no pod ran since" in failed(status)["message"]
    assert status["failure"]["cause"] == "DeadlineExceeded"
    assert status["usage"]["queuedSeconds"] >= 2
    assert bench.batch.list_namespaced_job(bench.namespace).items == []
    bench.patch(deadlines={"queuedSeconds": 60}, retryRequest="there is room now")
    bench.end_pod(bench.wait_for_pod(2), 0, make_success(2))
    bench.wait_for_phase("Succeeded")


def test_a_budget_ends_a_run_and_a_larger_one_lets_it_go_on(bench: Bench) -> None:
    bench.create(compute=ONE_GPU, budget={"cost": 2})
    pod = bench.wait_for_pod(1)
    start_container(bench, pod)
    status = bench.wait_for_phase("Failed")
    assert failed(status)["reason"] == "BudgetExceeded"
    assert "spec.budget.cost is 2, and all of it is spent" in failed(status)["message"]
    usage = status["usage"]
    assert usage["lostToFailure"] == usage["gpuSeconds"] == usage["cost"] >= 2  # a GPU-second costs one
    bench.patch(retryRequest="again")
    time.sleep(1)
    assert bench.get()["status"]["attempt"] == 1
    bench.patch(budget={"cost": 1000})
    bench.end_pod(bench.wait_for_pod(2), 0, make_success(2))
    bench.wait_for_phase("Succeeded")


def test_time_at_work_is_not_reset_by_suspending(bench: Bench) -> None:
    bench.create(deadlines={"activeSeconds": 5})
    start_container(bench, bench.wait_for_pod(1))
    time.sleep(3)
    bench.patch(suspend=True)
    used = bench.wait_for_phase("Suspended")["usage"]["podSeconds"]
    assert used >= 2
    bench.patch(suspend=False)
    pod = bench.wait_for_pod(2)
    began = time.monotonic()
    start_container(bench, pod)
    status = bench.wait_for_phase("Failed")
    assert time.monotonic() - began < 5
    assert failed(status)["reason"] == "DeadlineExceeded"
    assert status["usage"]["podSeconds"] >= 5


def test_a_run_that_makes_no_step_hangs_and_is_tried_again_but_one_that_only_is_silent_goes_on(
    bench: Bench,
) -> None:
    bench.create(deadlines={"stalledSeconds": 2}, retry={"hang": 1})
    start_container(bench, bench.wait_for_pod(1))
    time.sleep(5)  # nothing was ever reported: perhaps reports can't get through
    assert bench.get()["status"]["attempt"] == 1
    last = stepped(1)
    report(bench, last)
    bench.wait_for_pod(2)
    first = bench.get()["status"]["attempts"][0]
    assert (first["cause"], first["outcome"]) == ("Hang", "Failed")
    assert first["message"].startswith("spec.deadlines.stalledSeconds is 2, and no step was made since")
    assert last.progress.step_time is not None
    assert (parse_time(first["endTime"]) - last.progress.step_time).total_seconds() >= 3


def test_deadlines_hold_over_a_restart_of_the_operator(bench: Bench, operator: OperatorProcess) -> None:
    bench.create(deadlines={"activeSeconds": 2})
    start_container(bench, bench.wait_for_pod(1))
    bench.wait(lambda status: "startTime" in status.get("currentPod", {}))
    operator.kill()
    time.sleep(2)
    operator.start()
    # The garbage collector, which ends a deleted Job, rests while kinds are added to the cluster.
    status = bench.wait(lambda status: status["phase"] == "Failed", seconds=60)
    assert failed(status)["reason"] == "DeadlineExceeded"
