"""An operator that crashes, is away, or is not alone: a run neither notices nor repeats anything."""

from __future__ import annotations

from typing import Any

from stack_cluster import Cluster, wait
from whole_stack import Team, last_epoch

from trainwright.contract import Stage

Object = dict[str, Any]


def _assert_done_once(team: Team, run: str, attempts: int = 1) -> None:
    """Each attempt has one Job, only the last one succeeded, and one model is published."""
    status = team.status(run)
    outcomes = [attempt["outcome"] for attempt in status["attempts"]]
    assert outcomes == ["Failed"] * (attempts - 1) + ["Succeeded"]
    jobs = team.get("jobs", "-l", f"trainwright.dev/run={run}")["items"]
    assert sorted(job["metadata"]["name"] for job in jobs) == [f"{run}-{n + 1}" for n in range(attempts)]
    team.assert_published_once(run, status["model"]["name"])


def test_an_operator_killed_at_every_stage_publishes_one_version(team: Team, cluster: Cluster) -> None:
    team.apply(team.manifest("bolts-1", "bolts-crashed"))
    cluster.kill_operator()  # perhaps between the children it makes
    trainer = team.trainer("bolts-1", 1)
    for stage in Stage:
        trainer.drive_into(stage)
        cluster.wait_for_operator()
        cluster.kill_operator()
    trainer.thaw()
    wait(lambda: _pod_ended(team, "bolts-1"), "the pod ends")
    cluster.kill_operator()  # perhaps before it wrote down how the attempt ended
    team.wait_for_phase("bolts-1", "Succeeded")
    _assert_done_once(team, "bolts-1")


def test_a_run_goes_on_to_its_end_without_an_operator(team: Team, cluster: Cluster) -> None:
    team.apply(team.manifest("bolts-2", "bolts-alone"))
    team.wait_for_stage("bolts-2", "Training")
    cluster.scale_operator(0)
    try:
        wait(lambda: _pod_ended(team, "bolts-2"), "the pod ends")
        assert team.status("bolts-2")["phase"] == "Running"
        assert team.status("bolts-2")["trainer"]["outcome"] == "Succeeded"
    finally:
        cluster.scale_operator(1)
    team.wait_for_phase("bolts-2", "Succeeded")
    _assert_done_once(team, "bolts-2")


def test_two_operators_at_once_make_no_attempt_twice(team: Team, cluster: Cluster) -> None:
    with cluster.second_operator():
        team.apply(team.manifest("bolts-3", "bolts-twice"))
        trainer = team.trainer("bolts-3", 1)
        trainer.drive(lambda: last_epoch(trainer) == 1, "an epoch is trained")
        trainer.kill()
        status = team.wait_for_phase("bolts-3", "Succeeded")
    assert status["failures"] == {"Killed": 1}
    assert status["attempts"][1]["resumedFromEpoch"] == 1
    _assert_done_once(team, "bolts-3", attempts=2)


def _pod_ended(team: Team, run: str) -> bool:
    phase: str = team.pod(run, 1)["status"].get("phase", "")
    return phase in {"Succeeded", "Failed"}
