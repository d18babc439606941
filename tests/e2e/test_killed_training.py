"""A training whose process is killed, and then its pod deleted: it goes on where it was."""

from __future__ import annotations

import json
from typing import Any

import pytest
from whole_stack import Cluster, Team, kill, progress, trained_epochs

Object = dict[str, Any]

RUN, MODEL, EPOCHS = "bolts-1", "bolts", 8


@pytest.fixture(scope="module")
def status(team: Team, cluster: Cluster) -> Object:
    """The status of a run that lost two pods in the middle of its training."""
    training = team.manifest(RUN)["spec"]["training"] | {"epochs": EPOCHS}
    team.apply(team.manifest(RUN, MODEL, training=training))
    team.wait_for_epoch(RUN, 2)
    kill(cluster.container(team.pod(RUN, 1)))
    team.wait(RUN, lambda status: status["attempt"] == 2, "a second attempt")
    team.wait(RUN, _resumed(2), "the second attempt trains")
    team.kubectl("delete", "pod", team.pod(RUN, 2)["metadata"]["name"])
    return team.wait_for_phase(RUN, "Succeeded")


def _resumed(attempt: int) -> Any:
    def reached(status: Object) -> bool:
        report = status.get("trainer", {})
        first = report.get("resumedFromEpoch") or EPOCHS
        epoch = progress(status).get("epoch") or 0
        return bool(report.get("attempt") == attempt and first < epoch < EPOCHS)

    return reached


def test_each_attempt_went_on_from_the_last_checkpoint(team: Team, status: Object) -> None:
    first, second, third = status["attempts"]
    assert (first["outcome"], first["cause"], first["exitCode"]) == ("Failed", "Killed", 137)
    assert (second["outcome"], second["cause"]) == ("Failed", "Preempted")
    assert third["outcome"] == "Succeeded"
    assert 2 <= second["resumedFromEpoch"] < third["resumedFromEpoch"] < EPOCHS
    last = trained_epochs(team.logs(RUN, 3))
    assert last == list(range(third["resumedFromEpoch"] + 1, EPOCHS + 1))


def test_all_epochs_were_trained(team: Team, status: Object) -> None:
    journal = json.loads((team.volume(f"{RUN}-workspace") / "journal.json").read_text())
    assert json.loads(journal["entries"]["Training"]["output"])["epochs"] == EPOCHS
    assert status["metrics"]["mAP50"] >= 0


def test_one_version_was_published(team: Team, status: Object) -> None:
    assert [len(names) for names in team.published(MODEL).values()] == [1, 1]
    assert team.fetch(MODEL)["digest"] == status["model"]["digest"]
