"""A run whose stages have pods of their own: one after the other, on one volume, and one of them queued."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from kueue_writes import QUEUE, Kueue
from trainer_process import TrainerProcess
from whole_stack import Team, condition

from trainwright.contract import StageGroup

Object = dict[str, Any]

RUN, MODEL = "apart", "nuts"
SECRETS = {"api-credentials", "cdn-credentials", "recipients", "signing-key"}


@dataclass(frozen=True)
class Story:
    """The status when the dataset was done and the GPU queued for, and the end."""

    queued: Object
    jobs_when_queued: list[str]
    status: Object
    jobs: dict[str, Object]


@pytest.fixture(scope="module")
def story(team: Team) -> Story:
    """The run, whose last pod is killed as soon as it exports."""
    kueue = Kueue(team)
    kueue.install()
    compute = {"gpus": 0, "stages": "Apart", "cpuResources": {"requests": {"cpu": "100m"}}}
    training = team.manifest(RUN)["spec"]["training"] | {"epochs": 1}
    team.apply(team.manifest(RUN, MODEL, compute=compute, queue={"name": QUEUE}, training=training))
    queued = team.wait_for_phase(RUN, "Queued")
    jobs_when_queued = list(_jobs(team))
    kueue.enqueue(f"{RUN}-1")
    kueue.admit(f"{RUN}-1", {"kubernetes.io/hostname": team.cluster.node})
    team.wait(RUN, lambda status: status["attempts"][-1].get("group") == "Delivery", "the last group begins")
    team.wait(RUN, lambda _: _find_trainer(team), "its trainer runs")
    trainer = _find_trainer(team)
    assert trainer is not None
    trainer.drive_into("Export")
    trainer.kill()
    return Story(queued, jobs_when_queued, team.wait_for_phase(RUN, "Succeeded"), _jobs(team))


def _find_trainer(team: Team) -> TrainerProcess | None:
    """Return the trainer that delivers; of a pod only its newest status says which container that is."""
    selector = f"trainwright.dev/run={RUN},trainwright.dev/stage-group=Delivery"
    pods = team.get("pods", "-l", selector)["items"]
    return team.cluster.trainer(pods[0]) if pods else None


def _jobs(team: Team) -> dict[str, Object]:
    found = team.get("jobs", "-l", f"trainwright.dev/run={RUN}")["items"]
    return {job["metadata"]["name"]: job for job in found}


def _volumes(job: Object) -> set[str]:
    return {volume["name"] for volume in job["spec"]["template"]["spec"]["volumes"]}


def test_the_dataset_is_ready_before_a_gpu_is_queued_for(story: Story) -> None:
    assert story.jobs_when_queued == [f"{RUN}-1", f"{RUN}-1-dataset"]
    assert condition(story.queued, "DatasetReady")["status"] == "True"
    assert condition(story.queued, "Admitted")["reason"] == "Queued"
    dataset, training = story.queued["attempts"]
    assert (dataset["group"], dataset["outcome"]) == ("Dataset", "Succeeded")
    assert (training["group"], training.get("outcome")) == ("Training", None)


def test_one_attempt_has_a_job_for_each_group_and_the_next_begins_where_it_failed(story: Story) -> None:
    told = [(item["number"], item["group"], item["outcome"]) for item in story.status["attempts"]]
    assert told == [
        *((1, "Dataset", "Succeeded"), (1, "Training", "Succeeded")),
        *((1, "Delivery", "Failed"), (2, "Delivery", "Succeeded")),
    ]
    assert set(story.jobs) == {item["job"] for item in story.status["attempts"]}
    assert story.status["attempt"] == 2


def test_only_the_job_that_trains_was_queued(story: Story) -> None:
    queued = {
        name for name, job in story.jobs.items() if "kueue.x-k8s.io/queue-name" in job["metadata"]["labels"]
    }
    assert queued == {f"{RUN}-1"}


def test_credentials_are_in_the_pod_that_delivers_only(story: Story) -> None:
    holding = {name for name, job in story.jobs.items() if _volumes(job) & SECRETS}
    assert holding == {f"{RUN}-1-delivery", f"{RUN}-2-delivery"}
    assert _volumes(story.jobs[f"{RUN}-2-delivery"]) >= SECRETS


def test_each_pod_did_its_own_stages_and_training_was_done_once(team: Team, story: Story) -> None:
    for attempt in story.status["attempts"]:
        if attempt["outcome"] != "Succeeded":
            continue
        lines = team.kubectl("logs", attempt["pod"]).splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        epochs = [line for line in events if line.get("event") == "epoch"]
        assert bool(epochs) == (attempt["group"] == StageGroup.TRAINING), attempt


def test_one_version_was_published(team: Team, story: Story) -> None:
    assert [len(names) for names in team.published(MODEL).values()] == [1, 1]
    assert team.fetch(MODEL)["digest"] == story.status["model"]["digest"]
    assert condition(story.status, "Published")["status"] == "True"
