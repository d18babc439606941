"""What becomes of finished runs on a real API server: children go in time, and nothing comes back."""

from __future__ import annotations

import time

from builders import make_failure, make_success
from operator_process import OperatorProcess
from run_bench import Bench, children_of

from trainwright.contract import Cause, ExitCode


def wait_until_only_the_plan_is_left(bench: Bench) -> None:
    deadline = time.monotonic() + 20
    while (left := children_of(bench)) != ["run-plan"]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def test_a_finished_runs_children_go_when_its_time_to_live_is_over_and_are_not_made_again(
    bench: Bench, operator: OperatorProcess
) -> None:
    bench.create(ttlSecondsAfterFinished=3)
    bench.end_pod(bench.wait_for_pod(1), 0, make_success(1))
    status = bench.wait_for_phase("Succeeded")
    assert "run-workspace" in children_of(bench)
    status = bench.wait(lambda status: "childrenDeletedTime" in status)
    assert status["childrenDeletedTime"] > status["completionTime"]
    wait_until_only_the_plan_is_left(bench)
    version = bench.get()["metadata"]["resourceVersion"]
    operator.kill()
    operator.start()
    time.sleep(1)
    assert children_of(bench) == ["run-plan"]
    assert bench.get()["metadata"]["resourceVersion"] == version


def test_an_operator_that_was_away_makes_up_for_it_and_a_late_retry_is_told_why_there_is_none(
    bench: Bench, operator: OperatorProcess
) -> None:
    bench.create()
    word = make_failure(1, Cause.DATA, ExitCode.DATA, "no images")
    bench.end_pod(bench.wait_for_pod(1), ExitCode.DATA, word)
    bench.wait_for_phase("Failed")
    operator.kill()
    bench.patch(ttlSecondsAfterFinished=0)
    operator.start()
    wait_until_only_the_plan_is_left(bench)
    bench.patch(retryRequest="again")
    status = bench.wait(lambda status: status["observedGeneration"] == 3)
    accepted = next(c for c in status["conditions"] if c["type"] == "Accepted")
    assert (status["phase"], accepted["status"], accepted["reason"]) == ("Failed", "False", "Expired")
    assert children_of(bench) == ["run-plan"]
