"""What the kubelet evicts: for the sake of its node, a preemption; for what the pod used, a failure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from stack_cluster import OPERATOR, SYSTEM, Cluster
from whole_stack import Team, freeze_after_epoch, trained_epochs

Object = dict[str, Any]

EPOCHS, ENDLESS = 4, 1000
INNOCENT, GREEDY, STUFFED = "innocent", "greedy", "stuffed"
MEMORY = {INNOCENT: "4Gi", GREEDY: "32Mi"}  # what the pod asks for: more than it uses, and less
PRIORITY = "expendable"

pytestmark = pytest.mark.real_node


@dataclass(frozen=True)
class Story:
    """The epoch a run had trained when its pod was evicted, and how it ended."""

    epoch: int
    status: Object


@pytest.fixture(scope="module")
def evicted(team: Team, cluster: Cluster) -> dict[str, Story]:
    """Two runs whose node ran short of memory; any failure would have been their last."""
    assert cluster.real_node
    _keep_operator(cluster)
    team.apply(
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": PRIORITY},
            "value": -1,
        }
    )
    budgets = dict.fromkeys(("infrastructure", "hang", "unknown", "publishing"), 0)
    epochs = {}
    for run, memory in MEMORY.items():
        resources = {"requests": {"memory": memory}}
        compute = {"priorityClassName": PRIORITY, "resources": resources}
        _apply(team, run, compute=compute, retry=budgets | {"outOfMemory": int(run == GREEDY)})
        epochs[run] = freeze_after_epoch(team.trainer(run, 1), 1)
    with cluster.real_node.short_of_memory():
        for run in MEMORY:
            team.wait(run, lambda status: "outcome" in status["attempts"][0], "the pod is evicted")
    return {run: Story(epochs[run], team.wait_for_phase(run, "Succeeded")) for run in MEMORY}


def _keep_operator(cluster: Cluster) -> None:
    """Give the operator the priority that a cluster's own pods have: the kubelet evicts none of them."""
    patch = {"spec": {"template": {"spec": {"priorityClassName": "system-cluster-critical"}}}}
    cluster.kubectl("patch", f"deployment/{OPERATOR}", "-n", SYSTEM, "-p", json.dumps(patch))
    cluster.wait_for_operator()


def _apply(team: Team, run: str, *, compute: Object, epochs: int = EPOCHS, **spec: Any) -> None:
    manifest = team.manifest(run)["spec"]
    compute, training = manifest["compute"] | compute, manifest["training"] | {"epochs": epochs}
    team.apply(team.manifest(run, run, compute=compute, training=training, **spec))


def test_a_pod_evicted_for_its_node_s_sake_costs_no_budget(evicted: dict[str, Story]) -> None:
    status = evicted[INNOCENT].status
    first, second = status["attempts"]
    assert (first["outcome"], first["cause"], second["outcome"]) == ("Failed", "Preempted", "Succeeded")
    assert "low on resource: memory" in first["message"]
    assert status["failures"] == {"Preempted": 1}


def test_a_pod_evicted_for_more_memory_than_it_asked_for_is_a_failure_that_says_so(
    evicted: dict[str, Story],
) -> None:
    status = evicted[GREEDY].status
    first, second = status["attempts"]
    assert (first["outcome"], first["cause"], second["outcome"]) == ("Failed", "HostOOM", "Succeeded")
    assert "Container trainer was using" in first["message"]
    assert status["failures"] == {"HostOOM": 1}


@pytest.mark.parametrize("run", [INNOCENT, GREEDY])
def test_an_evicted_training_goes_on_after_the_last_trained_epoch(
    team: Team, evicted: dict[str, Story], run: str
) -> None:
    story = evicted[run]
    assert story.status["attempts"][1]["resumedFromEpoch"] == story.epoch
    assert trained_epochs(team.logs(run, 2)) == list(range(story.epoch + 1, EPOCHS + 1))
    team.assert_published_once(run, run)


def test_a_pod_that_fills_its_volume_is_evicted_and_the_run_says_which(team: Team) -> None:
    workspace = {"emptyDir": {"sizeLimit": "1Mi"}}
    _apply(team, STUFFED, epochs=ENDLESS, compute={"workspace": workspace}, retry={"infrastructure": 0})
    status = team.wait_for_phase(STUFFED, "Failed")
    (attempt,) = status["attempts"]
    assert attempt["cause"] == "Storage"
    assert 'EmptyDir volume "workspace" exceeds the limit "1Mi"' in status["failure"]["message"]
    assert team.published(STUFFED) == {"small": [], "big": []}
