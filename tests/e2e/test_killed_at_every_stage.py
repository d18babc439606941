"""A trainer killed at every stage: each attempt goes on where the last one was, and one model results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from trainer_process import TrainerProcess, read_events, stage_of
from whole_stack import Team, freeze_after_epoch, seconds_of, trained_epochs

from trainwright.contract import Stage

Object = dict[str, Any]

RUN, MODEL, EPOCHS = "killed-1", "killed", 4
KILLED_AFTER_EPOCH = 2
STAGES = tuple(map(str, Stage))


@dataclass(frozen=True)
class Killed:
    """What was there when an attempt was killed."""

    stage: str
    events: list[Object]
    journal: Object
    published: dict[str, list[str]]


@dataclass(frozen=True)
class Story:
    """All the attempts that were killed, in their order, and how the run ended."""

    killed: list[Killed]
    status: Object
    journal: Object


@pytest.fixture(scope="module")
def story(team: Team) -> Story:
    """A run killed once at each stage, and twice more at the last: between its uploads, and after them."""
    dataset = {
        "source": {"sample": {"images": 120, "imageSize": 64}},
        "split": {"train": 60, "valid": 15, "test": 25},
    }
    training = team.manifest(RUN)["spec"]["training"] | {"epochs": EPOCHS}
    retry = {"infrastructure": -1}
    team.apply(team.manifest(RUN, MODEL, dataset=dataset, training=training, retry=retry))
    killed = [_kill(team, number, stage) for number, stage in enumerate(STAGES, 1)]
    for part in ("big", "small"):
        trainer = team.trainer(RUN, len(killed) + 1)
        trainer.drive(lambda part=part: team.published(MODEL)[part], f"the {part} part is uploaded")
        killed.append(_end(team, trainer))
    status = team.wait_for_phase(RUN, "Succeeded")
    return Story(killed, status, team.journal(RUN))


def _kill(team: Team, attempt: int, stage: str) -> Killed:
    trainer = team.trainer(RUN, attempt)
    if stage == Stage.TRAINING:
        freeze_after_epoch(trainer, KILLED_AFTER_EPOCH)
    else:
        trainer.drive_into(stage)
    return _end(team, trainer)


def _end(team: Team, trainer: TrainerProcess) -> Killed:
    events = read_events(trainer.log)
    trainer.kill()
    return Killed(stage_of(events), events, team.journal(RUN), team.published(MODEL))


@pytest.mark.parametrize("stage", STAGES)
def test_a_pod_killed_in_a_stage_has_only_that_stage_to_do_again(story: Story, stage: str) -> None:
    place = STAGES.index(stage)
    killed = story.killed[place]
    assert killed.stage == stage
    assert set(killed.journal) == set(STAGES[:place])
    for later in [*[each.journal for each in story.killed[place:]], story.journal]:
        for done in STAGES[:place]:
            assert later[done] == killed.journal[done]


def test_a_pod_killed_between_the_uploads_uploads_what_is_missing(story: Story) -> None:
    before, between, after = story.killed[-3:]
    assert (before.published["small"], between.published["small"]) == ([], [])
    assert between.published["big"] == after.published["big"]
    assert len(after.published["small"]) == 1


def test_no_trained_epoch_is_lost_or_trained_again(story: Story) -> None:
    training = STAGES.index(Stage.TRAINING)
    trained = [trained_epochs(each.events) for each in story.killed]
    first = trained[training]
    assert first == list(range(1, len(first) + 1))
    assert len(first) >= KILLED_AFTER_EPOCH
    assert [*first, *trained[training + 1]] == list(range(1, EPOCHS + 1))
    assert not any(trained[training + 2 :])
    resumed = story.status["attempts"][training + 1]
    assert resumed["resumedFromEpoch"] == len(first)


def test_every_attempt_is_accounted_for(story: Story) -> None:
    attempts = story.status["attempts"]
    assert [attempt["number"] for attempt in attempts] == list(range(1, len(story.killed) + 2))
    assert {attempt["exitCode"] for attempt in attempts[:-1]} == {137}
    assert len({attempt["cause"] for attempt in attempts[:-1]}) == 1
    assert attempts[-1]["outcome"] == "Succeeded"
    assert sum(story.status["failures"].values()) == len(story.killed)


def test_every_second_of_the_attempts_is_accounted_for(story: Story) -> None:
    """In a pod or on the way to one; Kubernetes' times are whole seconds, so each may be off by a few."""
    attempts, usage = story.status["attempts"], story.status["usage"]
    told = usage["podSeconds"] + usage["queuedSeconds"]
    assert told == pytest.approx(seconds_of(attempts), abs=3 * len(attempts))
    assert 0 < usage["lostPodSeconds"] < usage["podSeconds"]
    assert usage["gpuSeconds"] == 0


def test_one_model_is_published(team: Team, story: Story) -> None:
    assert story.status["phase"] == "Succeeded"
    team.assert_published_once(RUN, MODEL)
