"""A node that hangs and comes back: its trainer lived on all the time, and nobody believed it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from stack_cluster import Cluster, wait
from whole_stack import Team, freeze_after_epoch

Object = dict[str, Any]

RUN, MODEL, EPOCHS = "marooned-1", "marooned", 4

pytestmark = pytest.mark.real_node


@dataclass(frozen=True)
class Story:
    """What the run told when its node was lost, what the trainer did there, and how the run ended."""

    lost: Object
    log: str
    published: dict[str, list[str]]
    status: Object


@pytest.fixture(scope="module")
def story(team: Team, cluster: Cluster) -> Story:
    """A run whose only node was taken for lost; its trainer went on before anybody could end it."""
    training = team.manifest(RUN)["spec"]["training"] | {"epochs": EPOCHS}
    team.apply(team.manifest(RUN, MODEL, training=training))
    trainer = team.trainer(RUN, 1)
    freeze_after_epoch(trainer, 2)
    kubelet = cluster.server("kubelet")
    kubelet.freeze()
    try:
        lost = team.wait(RUN, lambda status: len(status["attempts"]) == 2, "another attempt")
        trainer.thaw()
        wait(lambda: not trainer.alive(), "the trainer ends by itself")
        told = trainer.log.read_text(), team.published(MODEL)
    finally:
        kubelet.thaw()
    return Story(lost, *told, team.wait_for_phase(RUN, "Succeeded"))


def test_the_attempt_ends_with_its_node(cluster: Cluster, story: Story) -> None:
    first, second = story.lost["attempts"]
    assert (first["outcome"], first["cause"], first["node"]) == ("Failed", "NodeLost", cluster.node)
    assert "outcome" not in second


def test_a_trainer_on_a_lost_node_publishes_nothing(story: Story) -> None:
    assert "has another current pod: this one publishes nothing" in story.log
    assert story.published["small"] == []


def test_the_next_attempt_goes_on_when_the_node_is_back(cluster: Cluster, story: Story) -> None:
    _, second = story.status["attempts"]
    assert (second["outcome"], second["node"]) == ("Succeeded", cluster.node)
    assert story.status["failures"] == {"NodeLost": 1}


def test_one_model_is_published(team: Team, story: Story) -> None:
    team.assert_published_once(RUN, MODEL)
