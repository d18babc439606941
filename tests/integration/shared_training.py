"""A training that two processors share, as a program: `python shared_training.py WORKSPACE`."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

from annotation_trees import Silent
from training_program import tiny_plan

from trainwright.artifacts import Dataset, Weights
from trainwright_trainer.places import Places
from trainwright_trainer.steps.dataset import build_dataset
from trainwright_trainer.steps.training import train_model
from trainwright_trainer.watching import Watcher

EPOCHS = 4
PLAN = tiny_plan(epochs=EPOCHS)


def build(workspace: Path) -> Dataset:
    """Build the dataset, which a training of any number of devices can use."""
    return build_dataset(PLAN, Places(workspace), Silent())


def train(dataset: Dataset, workspace: Path, watcher: Watcher) -> Weights:
    """Train on two processors as on two GPUs: by a process each, which tell each other their gradients."""
    with mock.patch("trainwright_trainer.steps.training.devices_of", return_value=("cpu", "cpu")):
        return train_model(dataset, PLAN, Places(workspace), watcher)


class Telling(Silent):
    """Prints every batch."""

    def train_batch(self, epoch: int, epochs: int, batch: int, batches: int) -> None:
        print("batch", epoch, batch, flush=True)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    train(build(folder), folder, Telling())
