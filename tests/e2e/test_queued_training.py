"""A training that waits in a queue, and is preempted three times: each time it goes on where it was."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pytest
from kueue_writes import MANAGER, QUEUE, Kueue, writers_of
from stack_cluster import wait
from trainer_process import read_events
from whole_stack import Team, condition, freeze_after_epoch, trained_epochs

Object = dict[str, Any]

RUN, JOB, MODEL = "queued", "queued-1", "washers"
EPOCHS = 8
# Another flavor each time, by a label of its nodes: the pod may run on other nodes than the one before.
FLAVORS = ("kubernetes.io/hostname", "kubernetes.io/os", "kubernetes.io/arch")
SETTLED_SECONDS = 3


@dataclass(frozen=True)
class Story:
    """What was to be seen while the run waited, what it lost, and how it ended."""

    waiting: Object
    early_pods: list[Object]
    workloads: str
    columns: str
    preempted: list[Object]
    pods: list[str]
    epochs: list[list[int]]  # that each pod trained
    status: Object
    job: Object


@pytest.fixture(scope="module")
def kueue(team: Team) -> Kueue:
    """Kueue, as far as Jobs see it."""
    player = Kueue(team)
    player.install()
    return player


@pytest.fixture(scope="module")
def story(team: Team, kueue: Kueue) -> Story:
    """The run, admitted four times and preempted three times."""
    training = team.manifest(RUN)["spec"]["training"] | {"epochs": EPOCHS}
    queue = {"name": QUEUE, "priorityClass": "low"}
    team.apply(team.manifest(RUN, MODEL, training=training, queue=queue, retry={"preemption": 0}))
    waiting = team.wait_for_phase(RUN, "Queued")
    kueue.enqueue(JOB)
    time.sleep(SETTLED_SECONDS)
    early_pods = team.get("pods", "-l", f"trainwright.dev/run={RUN}")["items"]
    selector = re.findall(r"-l (\S+)", condition(waiting, "Admitted")["message"])[0]
    workloads = team.kubectl("get", "workloads", "-l", selector, "-o", "name")
    columns = team.kubectl("get", "trun", RUN, "-o", "wide")
    labels = team.cluster.get("node", team.cluster.node)["metadata"]["labels"]
    preempted: list[Object] = []
    pods: list[str] = []
    epochs: list[list[int]] = []
    for flavor in FLAVORS:
        kueue.admit(JOB, {flavor: labels[flavor]})
        trainer = team.trainer(RUN, 1)
        last = epochs[-1][-1] if epochs else 0
        freeze_after_epoch(trainer, last + 1, resumed_from=last)
        epochs.append(trained_epochs(read_events(trainer.log)))
        pods.append(team.pod(RUN, 1)["metadata"]["uid"])
        kueue.preempt(JOB)
        trainer.thaw()
        preempted.append(team.wait_for_phase(RUN, "Queued"))
        kueue.requeue(JOB)
        wait(lambda: not team.get("pods", "-l", f"trainwright.dev/run={RUN}")["items"], "the pod is gone")
    kueue.admit(JOB, {FLAVORS[0]: labels[FLAVORS[0]]})
    status = team.wait_for_phase(RUN, "Succeeded")
    pods.append(team.pod(RUN, 1)["metadata"]["uid"])
    job = team.get("job", JOB, "--show-managed-fields")
    epochs.append(trained_epochs(team.logs(RUN, 1)))
    return Story(waiting, early_pods, workloads, columns, preempted, pods, epochs, status, job)


def test_nothing_starts_before_the_queue_admits_it(story: Story) -> None:
    assert story.early_pods == []
    admitted = condition(story.waiting, "Admitted")
    assert (admitted["status"], admitted["reason"]) == ("False", "Queued")
    assert f"Job {JOB} waits in queue {QUEUE!r} since" in admitted["message"]
    assert condition(story.waiting, "Ready")["message"] == admitted["message"]


def test_what_the_message_says_leads_to_the_workload(story: Story) -> None:
    assert story.workloads == f"workload.kueue.x-k8s.io/job-{JOB}\n"


def test_kubectl_shows_the_phase_and_the_queue(story: Story) -> None:
    heading, line = story.columns.splitlines()
    assert "QUEUE" in heading
    assert line.split()[:2] == [RUN, "Queued"]
    assert f" {QUEUE} " in line


def test_a_preempted_run_is_queued_again_and_says_so(story: Story) -> None:
    for number, status in enumerate(story.preempted, start=1):
        admitted = condition(status, "Admitted")
        assert (admitted["status"], admitted["reason"]) == ("False", "Preempted")
        (attempt,) = status["attempts"]
        assert (attempt["number"], attempt["preemptions"]) == (1, number)
        assert "outcome" not in attempt


def test_each_pod_went_on_after_the_last_trained_epoch(story: Story) -> None:
    assert len(set(story.pods)) == len(FLAVORS) + 1
    assert all(story.epochs)
    assert list(chain.from_iterable(story.epochs)) == list(range(1, EPOCHS + 1))
    (attempt,) = story.status["attempts"]
    assert attempt["resumedFromEpoch"] == story.epochs[-2][-1]


def test_preemptions_cost_no_budget_and_no_attempt(story: Story) -> None:
    (attempt,) = story.status["attempts"]
    assert (attempt["outcome"], attempt["preemptions"]) == ("Succeeded", len(FLAVORS))
    assert "failures" not in story.status
    assert story.status["attempt"] == 1


def test_the_time_in_the_queue_is_told(story: Story) -> None:
    (attempt,) = story.status["attempts"]
    assert attempt["queuedSeconds"] >= SETTLED_SECONDS - 1
    assert attempt["queuedTime"] <= attempt["admittedTime"] <= attempt["endTime"]
    assert "in its queue" in condition(story.status, "Admitted")["message"]


def test_one_version_was_published(team: Team, story: Story) -> None:
    assert [len(names) for names in team.published(MODEL).values()] == [1, 1]
    assert team.fetch(MODEL)["digest"] == story.status["model"]["digest"]


def test_the_operator_writes_to_the_job_when_it_makes_it_and_never_again(story: Story) -> None:
    times = writers_of(story.job)
    operators = [
        written for name, written in times.items() if name not in (MANAGER, "kube-controller-manager")
    ]
    assert operators == [[story.job["metadata"]["creationTimestamp"]]]
    assert MANAGER in times


def test_a_run_that_is_suspended_while_it_waits_leaves_the_queue(team: Team, kueue: Kueue) -> None:
    team.apply(team.manifest("patient", "washers", queue={"name": QUEUE}))
    team.wait_for_phase("patient", "Queued")
    kueue.enqueue("patient-1")
    suspend = {"spec": {"suspend": True}}
    team.kubectl("patch", "trun", "patient", "--type", "merge", "-p", json.dumps(suspend))
    status = team.wait_for_phase("patient", "Suspended")
    assert status["attempts"][0]["outcome"] == "Stopped"
    assert team.get("jobs", "-l", "trainwright.dev/run=patient")["items"] == []
    team.kubectl("delete", "trun", "patient")
