"""A training that several devices share: here two processors, by gloo, as two GPUs would by NCCL."""

from __future__ import annotations

import csv
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import shared_training
from annotation_trees import Silent
from shared_training import EPOCHS

from trainwright.artifacts import Weights
from trainwright.errors import HostOutOfMemoryError, PreemptedError

pytestmark = pytest.mark.filterwarnings("ignore")  # torch and Ultralytics warn of their own matters


class Listening(Silent):
    """Notes what it is told, and does something at a batch."""

    def __init__(self, act: Any = None) -> None:
        self.batches: list[tuple[int, int]] = []
        self.epochs: list[int] = []
        self.resumed: int | None = None
        self._act = act

    def train_batch(self, epoch: int, epochs: int, batch: int, batches: int) -> None:
        assert batches == 3  # 24 images in batches of 8, of which each processor has 4
        self.batches.append((epoch, batch))
        if self._act is not None:
            self._act(self)

    def finish_epoch(self, epoch: int, epochs: int, metrics: Any) -> None:
        self.epochs.append(epoch)

    def resume_from(self, epoch: int) -> None:
        self.resumed = epoch


@dataclass
class Story:
    """Four attempts: one whose program is killed, one of whose ranks is, one that is stopped, and a last."""

    workspace: Path
    outlived: list[psutil.Process]
    watchers: list[Listening] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    left: list[Any] = field(default_factory=list)
    weights: Weights | None = None


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    workspace = tmp_path_factory.mktemp("shared")
    told = Story(workspace, kill_program(workspace))
    dataset = shared_training.build(workspace)
    for act in (kill_rank, stop):
        told.watchers.append(Listening(act))
        with pytest.raises((HostOutOfMemoryError, PreemptedError)) as raised:
            shared_training.train(dataset, workspace, told.watchers[-1])
        told.errors.append(raised.value)
        told.left.append(multiprocessing.active_children())
    told.watchers.append(Listening())
    told.weights = shared_training.train(dataset, workspace, told.watchers[-1])
    return told


def kill_program(workspace: Path) -> list[psutil.Process]:
    """Start a training as a program, kill it in its second epoch, and return what it leaves running."""
    program = subprocess.Popen(
        [sys.executable, shared_training.__file__, str(workspace)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    with program:
        assert program.stdout is not None
        for line in program.stdout:
            if line.startswith("batch 2"):
                break
        ranks = [child for child in psutil.Process(program.pid).children() if _is_rank(child)]
        program.kill()
        program.stdout.close()
    assert len(ranks) == 2
    _, outlived = psutil.wait_procs(ranks, timeout=20)
    return outlived


def _is_rank(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return "spawn_main" in " ".join(process.cmdline())
    return False


def kill_rank(watcher: Listening) -> None:
    (victim,) = [child for child in multiprocessing.active_children() if child.name == "rank-1"]
    if victim.is_alive():
        os.kill(int(victim.pid or 0), signal.SIGKILL)
        time.sleep(0.5)


def stop(watcher: Listening) -> None:
    if watcher.epochs:
        raise PreemptedError("stopped on request")


def test_ranks_do_not_outlive_the_program_that_started_them(story: Story) -> None:
    assert story.outlived == []


def test_a_rank_that_is_killed_ends_the_attempt_with_the_cause_and_not_the_consequence(story: Story) -> None:
    assert str(story.errors[0]) == "the training process of device cpu was ended by SIGKILL"
    assert isinstance(story.errors[0], HostOutOfMemoryError)
    assert "compute.resources.limits.memory" in story.errors[0].hint


def test_a_request_to_stop_ends_all_ranks_at_the_next_batch(story: Story) -> None:
    assert isinstance(story.errors[1], PreemptedError)
    assert story.watchers[1].batches[-1][1] == 1
    assert story.left == [[], []]


def test_each_attempt_goes_on_from_the_newest_checkpoint(story: Story) -> None:
    assert [watcher.resumed for watcher in story.watchers] == [1, 1, 2]
    assert story.watchers[-1].epochs == list(range(3, EPOCHS + 1))
    assert story.weights is not None
    assert (story.weights.epochs, story.weights.batch_size) == (EPOCHS, 8)


def test_the_history_is_that_of_one_rank_and_of_every_epoch(story: Story) -> None:
    with (story.workspace / "training" / "history.csv").open(newline="") as file:
        assert [int(row["epoch"]) for row in csv.DictReader(file)] == list(range(1, EPOCHS + 1))
