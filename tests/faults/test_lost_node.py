"""A node that is gone with all that ran on it: another one takes over, and loses part of an epoch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from stack_cluster import Cluster, wait
from whole_stack import Team, freeze_after_epoch

if TYPE_CHECKING:
    from trainwright_devstack.processnode import ProcessNode

Object = dict[str, Any]

RUN, MODEL, EPOCHS = "stranded-1", "stranded", 5
NODE, OTHER = "node-b", "process-node"


@pytest.fixture(scope="module")
def node(cluster: Cluster) -> Iterator[ProcessNode]:
    """A second node, forgotten in the end."""
    from trainwright_devstack.certificates import Authority
    from trainwright_devstack.processnode import ProcessNode

    if cluster.real_node:
        # A process node's trainer writes into the workspace as root: a container could not go on there.
        pytest.skip("needs a second node of the same kind; a real node that hangs is in test_hung_node.py")
    folder, kubeconfig = cluster.stack.folder, cluster.stack.state.cluster.kubeconfig
    authority = Authority(folder / "control-plane/pki")
    with ProcessNode(folder / NODE, kubeconfig, name=NODE, authority=authority) as node:
        yield node
    cluster.kubectl("delete", "node", NODE)


@pytest.fixture(scope="module")
def story(team: Team, cluster: Cluster, node: ProcessNode) -> tuple[int, Object]:
    """The last epoch trained on the node that was lost, and the status of the run in the end."""
    training = team.manifest(RUN)["spec"]["training"] | {"epochs": EPOCHS}
    cluster.kubectl("cordon", OTHER)
    try:
        team.apply(team.manifest(RUN, MODEL, training=training))
        trainer = team.trainer(RUN, 1)
    finally:
        cluster.kubectl("uncordon", OTHER)
    epoch = freeze_after_epoch(trainer, 2)
    node.kill()
    trainer.kill()
    wait(lambda: "node.kubernetes.io/unreachable" in _taints(cluster), "the node is known to be lost")
    return epoch, team.wait_for_phase(RUN, "Succeeded")


def _taints(cluster: Cluster) -> str:
    return json.dumps(cluster.get("node", NODE)["spec"].get("taints", []))


def test_the_attempt_ends_with_its_node_and_the_next_one_runs_elsewhere(story: tuple[int, Object]) -> None:
    first, second = story[1]["attempts"]
    assert (first["outcome"], first["cause"], first["node"]) == ("Failed", "NodeLost", NODE)
    assert NODE in first["message"]
    assert (second["outcome"], second["node"]) == ("Succeeded", OTHER)


def test_training_goes_on_after_the_last_saved_epoch(story: tuple[int, Object]) -> None:
    epoch, status = story
    assert status["attempts"][1]["resumedFromEpoch"] == epoch
    assert status["failures"] == {"NodeLost": 1}


def test_one_model_is_published(team: Team, story: tuple[int, Object]) -> None:
    team.assert_published_once(RUN, MODEL)
