"""An operator that crashes, or is away: a run neither notices nor repeats anything."""

from __future__ import annotations

from typing import Any

from whole_stack import Cluster, Team, wait

Object = dict[str, Any]


def _assert_done_once(team: Team, run: str, model: str) -> None:
    status = team.status(run)
    (attempt,) = status["attempts"]
    assert attempt["outcome"] == "Succeeded"
    jobs = team.get("jobs", "-l", f"trainwright.dev/run={run}")["items"]
    assert [job["metadata"]["name"] for job in jobs] == [f"{run}-1"]
    assert [len(names) for names in team.published(model).values()] == [1, 1]
    assert team.fetch(model)["digest"] == status["model"]["digest"]


def test_an_operator_killed_at_every_stage_publishes_one_version(team: Team, cluster: Cluster) -> None:
    team.apply(team.manifest("bolts-1", "bolts-crashed"))
    cluster.kill_operator()  # perhaps between the children it makes
    for stage in ("Training", "Export"):
        team.wait_for_stage("bolts-1", stage)
        cluster.kill_operator()
    wait(lambda: _pod_ended(team, "bolts-1"), "the pod ends")
    cluster.kill_operator()  # perhaps before it wrote down how the attempt ended
    team.wait_for_phase("bolts-1", "Succeeded")
    _assert_done_once(team, "bolts-1", "bolts-crashed")


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
    _assert_done_once(team, "bolts-2", "bolts-alone")


def _pod_ended(team: Team, run: str) -> bool:
    phase: str = team.pod(run, 1)["status"].get("phase", "")
    return phase in {"Succeeded", "Failed"}
