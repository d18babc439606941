"""A training killed while it saves a checkpoint, and one whose newest checkpoint is damaged: both go on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from trainer_process import read_events
from whole_stack import Team, freeze_after_epoch, trained_epochs

Object = dict[str, Any]

RUN, MODEL, EPOCHS = "bolts-1", "bolts", 7


@pytest.fixture(scope="module")
def story(team: Team) -> tuple[list[list[int]], Object]:
    """The epochs of the attempts that were killed, and the status of the run in the end."""
    training = team.manifest(RUN)["spec"]["training"] | {"epochs": EPOCHS}
    team.apply(team.manifest(RUN, MODEL, training=training))
    return [_kill_while_it_saves(team), _kill_and_damage(team)], team.wait_for_phase(RUN, "Succeeded")


def _kill_while_it_saves(team: Team) -> list[int]:
    trainer = team.trainer(RUN, 1)
    freeze_after_epoch(trainer, 2)
    folder = team.volume(f"{RUN}-workspace") / "training"
    trainer.drive(lambda: _unfinished(folder), "it writes a checkpoint")
    epochs = trained_epochs(read_events(trainer.log))
    trainer.kill()
    for path in _unfinished(folder):
        os.truncate(path, path.stat().st_size // 2)
    return epochs


def _unfinished(folder: Path) -> list[Path]:
    return list(folder.glob("checkpoints/**/*.pt.partial"))


def _kill_and_damage(team: Team) -> list[int]:
    """Kill an attempt, and cut off what its newest checkpoint has on disk, as a crashed node may."""
    trainer = team.trainer(RUN, 2)
    trainer.drive(lambda: len(trained_epochs(read_events(trainer.log))) >= 2, "two more epochs are trained")
    epochs = trained_epochs(read_events(trainer.log))
    trainer.kill()
    folder = team.volume(f"{RUN}-workspace") / "training"
    newest = max(folder.glob("checkpoints/*/*.pt"), key=lambda path: path.stat().st_mtime_ns)
    os.truncate(newest, newest.stat().st_size // 2)
    return epochs


def test_a_half_written_checkpoint_is_passed_over(story: tuple[list[list[int]], Object]) -> None:
    (first, _), status = story
    assert status["attempts"][1]["resumedFromEpoch"] == first[-1]


def test_a_damaged_checkpoint_costs_the_epochs_since_the_one_before(
    story: tuple[list[list[int]], Object],
) -> None:
    (_, second), status = story
    assert status["attempts"][2]["resumedFromEpoch"] == second[-2]


def test_what_is_left_of_the_epochs_is_trained(team: Team, story: tuple[list[list[int]], Object]) -> None:
    (first, second), status = story
    last = trained_epochs(team.logs(RUN, 3))
    assert [*first, *second[:-1], *last] == list(range(1, EPOCHS + 1))
    assert json.loads(team.journal(RUN)["Training"]["output"])["epochs"] == EPOCHS
    assert status["metrics"]["mAP50"] >= 0


def test_each_kill_is_accounted_for_and_one_model_is_published(
    team: Team, story: tuple[list[list[int]], Object]
) -> None:
    status = story[1]
    ends = [(each["outcome"], each.get("cause"), each["exitCode"]) for each in status["attempts"]]
    assert ends == [("Failed", "Killed", 137), ("Failed", "Killed", 137), ("Succeeded", None, 0)]
    assert status["failures"] == {"Killed": 2}
    team.assert_published_once(RUN, MODEL)
