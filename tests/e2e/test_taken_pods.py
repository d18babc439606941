"""A training that is interrupted in the middle of an epoch: it loses that epoch's part, and nothing else."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from stack_cluster import wait
from whole_stack import Team, freeze_after_epoch, last_epoch, progress, seconds_of, trained_epochs

from trainwright_operator.times import parse_time

Object = dict[str, Any]

EPOCHS = 5
SUSPENDED_SECONDS = 60
SILENT_SECONDS = 12


@dataclass(frozen=True)
class Story:
    """The last epoch that the first attempt's log told when it was interrupted, and how the run ended."""

    epoch: int
    status: Object


def apply(team: Team, run: str, **spec: Any) -> None:
    """Start a training long enough to be interrupted."""
    training = team.manifest(run)["spec"]["training"] | {"epochs": EPOCHS}
    team.apply(team.manifest(run, run, training=training, **spec))


def interrupt(team: Team, run: str, take: Callable[[str], None]) -> Story:
    """Take a run's first pod away in the middle of an epoch, by its name, and wait for the run's end."""
    apply(team, run)
    trainer = team.trainer(run, 1)
    epoch = freeze_after_epoch(trainer, 2)
    take(team.pod(run, 1)["metadata"]["name"])
    trainer.thaw()
    return Story(epoch, team.wait_for_phase(run, "Succeeded"))


def evict(team: Team) -> Story:
    """Ask for the pod's eviction, as a drain of its node does."""

    def take(pod: str) -> None:
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
        path = f"/api/v1/namespaces/{team.namespace}/pods/{pod}/eviction"
        team.kubectl("create", "--raw", path, "-f", "-", manifest=eviction)

    return interrupt(team, "evicted", take)


def delete_pod(team: Team) -> Story:
    """Delete the pod."""
    return interrupt(team, "podless", lambda pod: _delete(team, "pod", pod))


def delete_job(team: Team) -> Story:
    """Delete the attempt's Job, and with it the pod."""
    return interrupt(team, "jobless", lambda _: _delete(team, "job", "jobless-1"))


def _delete(team: Team, kind: str, name: str) -> None:
    team.kubectl("delete", kind, name, "--wait=false")


def suspend(team: Team) -> Story:
    """Suspend a run in the middle of an epoch, look that nothing of it is left, and resume it."""
    run = "suspended"
    apply(team, run)
    trainer = team.trainer(run, 1)
    epoch = freeze_after_epoch(trainer, 2)
    _set_suspend(team, run, to=True)
    trainer.thaw()
    team.wait_for_phase(run, "Suspended")
    time.sleep(SUSPENDED_SECONDS)
    assert team.status(run)["phase"] == "Suspended"
    assert team.get("jobs,pods", "-l", f"trainwright.dev/run={run}")["items"] == []
    _set_suspend(team, run, to=False)
    return Story(epoch, team.wait_for_phase(run, "Succeeded"))


def _set_suspend(team: Team, run: str, *, to: bool) -> None:
    patch = json.dumps({"spec": {"suspend": to}})
    team.kubectl("patch", "trun", run, "--type", "merge", "-p", patch)


def silence(team: Team) -> Story:
    """Cut the trainer's way to the API server while it trains on."""
    run = "silent"
    apply(team, run)
    trainer = team.trainer(run, 1)
    epoch = freeze_after_epoch(trainer, 1)
    with team.cluster.cut_off(team.pod(run, 1)):
        trainer.thaw()
        told = progress(team.status(run))
        wait(lambda: last_epoch(trainer) > epoch, "it trains on")
        time.sleep(SILENT_SECONDS)
        status = team.status(run)
        assert (status["phase"], progress(status)) == ("Running", told)
        assert trainer.alive()
    return Story(epoch, team.wait_for_phase(run, "Succeeded"))


STORIES = (suspend, evict, delete_pod, delete_job, silence)  # the longest one first
AT_ONCE = 2  # so many run side by side: more have no processor to run on


@pytest.fixture(scope="module")
def stories(team: Team) -> Iterator[dict[str, Future[Story]]]:
    """All stories, told side by side as far as the machine allows."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {story.__name__: pool.submit(story, team) for story in STORIES}


@pytest.mark.parametrize("name", ["evict", "delete_pod", "delete_job", "suspend"])
def test_the_next_attempt_goes_on_after_the_last_trained_epoch(
    team: Team, stories: dict[str, Future[Story]], name: str
) -> None:
    story = stories[name].result()
    _, second = story.status["attempts"]
    assert second["outcome"] == "Succeeded"
    assert second["resumedFromEpoch"] == story.epoch
    run = story.status["model"]["name"]
    assert trained_epochs(team.logs(run, 2)) == list(range(story.epoch + 1, EPOCHS + 1))


@pytest.mark.parametrize("name", ["evict", "delete_pod", "delete_job"])
def test_a_pod_that_is_taken_away_costs_no_budget(stories: dict[str, Future[Story]], name: str) -> None:
    status = stories[name].result().status
    first = status["attempts"][0]
    assert (first["outcome"], first["cause"]) == ("Failed", "Preempted")
    assert status["failures"] == {"Preempted": 1}


def test_a_suspended_attempt_is_stopped_and_no_failure(stories: dict[str, Future[Story]]) -> None:
    status = stories["suspend"].result().status
    first = status["attempts"][0]
    assert first["outcome"] == "Stopped"
    assert "cause" not in first
    assert "failures" not in status


def test_the_time_of_a_suspension_is_no_time_of_a_pod(stories: dict[str, Future[Story]]) -> None:
    """Nor of a GPU, which is a pod's, nor in a queue; Kubernetes' times are whole seconds."""
    status = stories["suspend"].result().status
    first, second = attempts = status["attempts"]
    usage = status["usage"]
    away = parse_time(second["startTime"]) - parse_time(first["endTime"])
    assert away.total_seconds() >= SUSPENDED_SECONDS - 1
    assert usage["podSeconds"] == first["podSeconds"] + second["podSeconds"] > 0
    told = usage["podSeconds"] + usage["queuedSeconds"]
    assert told == pytest.approx(seconds_of(attempts), abs=3 * len(attempts))
    assert 0 < first["lostSeconds"] < first["podSeconds"]
    assert usage["lostPodSeconds"] == first["lostSeconds"]


def test_a_trainer_that_is_silent_but_alive_is_left_alone(stories: dict[str, Future[Story]]) -> None:
    (attempt,) = stories["silence"].result().status["attempts"]
    assert attempt["outcome"] == "Succeeded"


@pytest.mark.parametrize("name", [story.__name__ for story in STORIES])
def test_one_model_is_published(team: Team, stories: dict[str, Future[Story]], name: str) -> None:
    run = stories[name].result().status["model"]["name"]
    team.assert_published_once(run, run)
