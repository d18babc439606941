"""What still happens to a run that ended: its children go in time, and it stays as it is."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from builders import RunBuilder
from memory_cluster import KEY, SETTINGS, World, list_all

from trainwright_operator.cluster import Cluster
from trainwright_operator.finished import describe_finished, seconds_to_expiry
from trainwright_operator.reconcile import Reconciler
from trainwright_operator.status import is_final
from trainwright_operator.store import Store

NOW = datetime(2026, 1, 2, 4, 0, tzinfo=UTC)
Object = dict[str, Any]


def finished(phase: str = "Failed", **spec: Any) -> Object:
    accepted = {
        "type": "Accepted",
        "status": "True",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-01-02T03:04:05Z",
        "reason": "Valid",
        "message": "everything the run names exists",
    }
    ended = {"type": phase, "status": "True", "observedGeneration": 1, "reason": phase, "message": ""}
    status = {
        "phase": phase,
        "observedGeneration": 1,
        "conditions": [accepted, ended],
        "completionTime": "2026-01-02T03:59:00Z",
        "trainer": {"attempt": 1},
    }
    return RunBuilder().spec(**spec).status(status).build()


@pytest.mark.parametrize(
    ("own", "default", "left"),
    [({}, {}, None), ({}, {"ttlSecondsAfterFinished": 90}, 30), ({"ttlSecondsAfterFinished": 0}, {}, -60)],
)
def test_children_are_deleted_so_many_seconds_after_the_end_and_else_never(
    own: Object, default: Object, left: float | None
) -> None:
    assert seconds_to_expiry(finished(**own), default, NOW) == left


def test_a_runs_own_time_to_live_counts_more_than_the_platforms() -> None:
    run = finished(ttlSecondsAfterFinished=600)
    assert seconds_to_expiry(run, {"ttlSecondsAfterFinished": 1}, NOW) == 540


def test_children_that_were_deleted_once_are_not_looked_for_again() -> None:
    run = finished(ttlSecondsAfterFinished=0)
    status = describe_finished(run, NOW, deleted=True)
    assert status["childrenDeletedTime"] == "2026-01-02T04:00:00Z"
    assert "trainer" not in status
    assert seconds_to_expiry(run | {"status": status}, {}, NOW) is None


def test_a_failed_run_without_its_workspace_is_not_retried_and_says_why() -> None:
    run = finished(ttlSecondsAfterFinished=0)
    run["status"] = describe_finished(run, NOW, deleted=True)
    run["spec"]["retryRequest"] = "again"
    run["metadata"]["generation"] = 2
    assert is_final(run)
    status = describe_finished(run, NOW, deleted=False)
    accepted = status["conditions"][0]
    assert (accepted["status"], accepted["reason"], status["observedGeneration"]) == ("False", "Expired", 2)
    assert "the run's workspace was deleted at 2026-01-02T04:00:00Z" in accepted["message"]
    assert status["phase"] == "Failed"


def test_an_edit_that_changes_nothing_is_acknowledged() -> None:
    run = finished(phase="Succeeded", retryRequest="again")
    run["metadata"]["generation"] = 2
    status = describe_finished(run, NOW, deleted=False)
    assert [c["observedGeneration"] for c in status["conditions"]] == [2, 2]
    assert status["conditions"][0]["status"] == "True"


def test_a_failed_run_whose_time_is_over_is_tidied_up_though_a_retry_is_asked_for() -> None:
    """Also where the operator died after it had deleted the workspace: no attempt starts from nothing."""
    run = finished(ttlSecondsAfterFinished=30, retryRequest="again")
    run["status"]["attempt"] = 1
    assert not is_final(run)
    world = World(run)
    operator = Reconciler(cast(Cluster, world), Store(), SETTINGS, clock=lambda: NOW)
    asyncio.run(list_all(world, operator.store))
    asyncio.run(operator.reconcile(KEY))
    status = world.all("TrainingRun")[0]["status"]
    assert status["childrenDeletedTime"] == "2026-01-02T04:00:00Z"
    assert not world.all("Job")
