"""Trainings killed at random moments, fifty times in all: every one goes on, and ends with a model."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from forked_trainer import Attempt, Nursery

from trainwright.contract import RunPlan, Stage

KILLS, KILLS_OF_ONE, EPOCHS, SEED = 50, 10, 12, 2026
MOST_EVENTS, LONGEST_WAIT = 6, 0.3  # three events are of what an attempt finds done
SETTINGS = {
    "baseModel": "tiny.pt",
    "epochs": EPOCHS,
    "batchSize": 8,
    "imageSize": 64,
    "workers": 0,
    "optimizer": "AdamW",
}
PLAN = RunPlan.model_validate(
    {
        "run": {"name": "shapes-1"},
        "model": {"name": "shapes", "version": "v1"},
        "dataset": {
            "source": {"sample": {"images": 30, "imageSize": 64}},
            "split": {"train": 60, "valid": 20, "test": 20},
        },
        "training": SETTINGS,
    }
)


@dataclass
class Story:
    """One training: what was there whenever it was killed, and what each attempt then did."""

    workspace: Path
    checkpoints: list[int] = field(default_factory=list)  # epoch of the newest one at each kill, 0 without
    attempts: list[list[dict[str, Any]]] = field(default_factory=list)  # what each told of stages and epochs

    def epochs(self, attempt: int) -> list[int]:
        return [event["epoch"] for event in self.attempts[attempt] if event["event"] == "epoch"]


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with Nursery(tmp_path_factory.mktemp("nursery")) as nursery:
        yield nursery


@pytest.fixture(scope="module")
def stories(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> list[Story]:
    chance, root = random.Random(SEED), tmp_path_factory.mktemp("runs")
    (root / "plan.json").write_text(PLAN.to_json())
    told: list[Story] = []
    kills = 0
    while kills < KILLS:
        most = min(KILLS_OF_ONE, KILLS - kills)
        moments = [(chance.randint(0, MOST_EVENTS), chance.uniform(0, LONGEST_WAIT)) for _ in range(most)]
        told.append(tell_story(nursery, root, len(told), moments))
        kills += len(told[-1].checkpoints)
    return told


def tell_story(nursery: Nursery, root: Path, number: int, moments: list[tuple[int, float]]) -> Story:
    """Train, with a kill in each attempt but the last: so many events after its start, and some seconds."""
    story = Story(root / f"workspace-{number}")
    for moment in [*moments, None]:
        log = root / f"log-{number}-{len(story.attempts)}"
        attempt = nursery.start(root / "plan.json", story.workspace, log)
        status = attempt.wait(240) if moment is None else wait_for(attempt, log, *moment)
        killed = moment is not None and status is None and attempt.kill() != 0
        story.attempts.append(read_events(log))
        if not killed:
            assert story.attempts[-1][-1].get("outcome") == "Succeeded", log.read_text()[-3000:]
            break
        story.checkpoints.append(newest_checkpoint(story.workspace))
    return story


def wait_for(attempt: Attempt, log: Path, events: int, seconds: float) -> int | None:
    """Wait until an attempt told of so many stages and epochs, and then so long; None if it still runs."""
    while not log.exists() or len(read_events(log)) < events:
        if (status := attempt.wait(0.01)) is not None:
            return status
    return attempt.wait(seconds)


def read_events(log: Path) -> list[dict[str, Any]]:
    whole = log.read_text(errors="replace").split("\n")[:-1]
    return [json.loads(line) for line in whole if line.startswith("{") and '"event": ' in line]


def newest_checkpoint(workspace: Path) -> int:
    notes = (workspace / "training" / "checkpoints").glob("*/epoch-*.json")
    return max((json.loads(note.read_text())["epoch"] for note in notes), default=0)


def test_fifty_kills_hit_all_that_a_training_does(stories: list[Story]) -> None:
    assert sum(len(story.checkpoints) for story in stories) == KILLS
    epochs = [epoch for story in stories for epoch in story.checkpoints]
    assert len(set(epochs)) > 4, "they all hit the same"


def test_every_training_ends_with_a_verified_model(stories: list[Story]) -> None:
    for story in stories:
        assert story.attempts[-1][-1]["outcome"] == "Succeeded"
        journal = json.loads((story.workspace / "journal.json").read_text())
        assert Stage.VERIFICATION in journal["entries"]
        assert (story.workspace / "export" / "model.onnx").stat().st_size > 0


def test_no_attempt_trains_an_epoch_that_a_checkpoint_has_behind_it(stories: list[Story]) -> None:
    for story in stories:
        for number, epoch in enumerate(story.checkpoints, start=1):
            trained = story.epochs(number)
            assert trained == list(range(epoch + 1, epoch + 1 + len(trained)))
        last = story.checkpoints[-1] if story.checkpoints else 0
        assert story.epochs(-1) == list(range(last + 1, EPOCHS + 1))


def test_the_history_has_every_epoch_once(stories: list[Story]) -> None:
    for story in stories:
        with (story.workspace / "training" / "history.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [int(row["epoch"]) for row in rows] == list(range(1, EPOCHS + 1))
        seconds = [float(row["time"]) for row in rows]
        assert seconds == sorted(seconds)
