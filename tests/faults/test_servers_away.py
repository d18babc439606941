"""Servers that are away for a while, in the middle of a run."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from stack_cluster import Cluster, wait
from whole_stack import Team, condition, trained_epochs

from trainwright.contract import Stage

Object = dict[str, Any]

LONGER_SECONDS = 3


@pytest.fixture(scope="module")
def undelivered(team: Team, cluster: Cluster) -> tuple[Object, Object]:
    """The status of a run that found no S3 server, and its last one, after the server was there again."""
    team.apply(team.manifest("cups-1", "cups", retry={"publishing": 5}))
    team.wait_for_stage("cups-1", "Training")
    start_again = cluster.server("s3").stop()
    try:
        failed = team.wait(
            "cups-1", lambda status: status["attempts"][0].get("outcome") == "Failed", "a failed attempt"
        )
    finally:
        start_again()
    return failed, team.wait_for_phase("cups-1", "Succeeded")


def test_a_missing_s3_server_is_a_failure_to_publish_that_names_it(
    team: Team, undelivered: tuple[Object, Object]
) -> None:
    status, _ = undelivered
    attempt = status["attempts"][0]
    assert attempt["cause"] == "Publishing"
    assert f"the CDN {team.stack.state.s3.endpoint}" in attempt["message"]
    assert condition(status, "Failed")["status"] == "False"


def test_the_next_attempts_publish_and_train_nothing(team: Team, undelivered: tuple[Object, Object]) -> None:
    _, status = undelivered
    *failed, last = status["attempts"]
    assert 1 <= len(failed) <= 5
    assert {attempt["cause"] for attempt in failed} == {"Publishing"}
    assert trained_epochs(team.logs("cups-1", 1)) == [1, 2]
    assert trained_epochs(team.logs("cups-1", last["number"])) == []
    journal = json.loads((team.volume("cups-1-workspace") / "journal.json").read_text())
    told = status["trainer"]["finishedStages"]["Training"]
    assert told == pytest.approx(journal["entries"]["Training"]["seconds"], abs=0.1)
    assert team.fetch("cups")["digest"] == status["model"]["digest"]
    assert [len(names) for names in team.published("cups").values()] == [1, 1]


def test_an_api_server_that_hangs_costs_no_attempt(team: Team, cluster: Cluster) -> None:
    """It hangs while reports of epochs are due, and still when the pod asks for the right to publish."""
    server = cluster.server("kube-apiserver")
    team.apply(team.manifest("cups-2", "plates"))
    team.wait_for_stage("cups-2", "Training")
    trainer = team.trainer("cups-2", 1)
    server.freeze()
    try:
        wait(lambda: '"stage": "Publishing"' in trainer.log.read_text(), "the trainer comes to publishing")
        time.sleep(LONGER_SECONDS)
        assert trainer.alive()
        assert team.published("plates")["small"] == []
    finally:
        server.thaw()
    status = team.wait_for_phase("cups-2", "Succeeded")
    (attempt,) = status["attempts"]
    assert attempt["outcome"] == "Succeeded"
    assert set(status["trainer"]["finishedStages"]) == set(Stage)
    assert trained_epochs(team.logs("cups-2", 1)) == [1, 2]
    assert team.fetch("plates")["digest"] == status["model"]["digest"]
    assert [len(names) for names in team.published("plates").values()] == [1, 1]
