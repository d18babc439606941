"""The history of a training: every epoch once, whatever attempts it took."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from trainwright_trainer.history import TrainingHistory, restore_history


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.csv"


def open_history(path: Path) -> TrainingHistory:
    return TrainingHistory(path, path.parent / "tensorboard")


def train_epochs(path: Path, first: int, last: int, loss: float) -> TrainingHistory:
    """Train these epochs in one attempt, all with this loss."""
    history = open_history(path)
    history.begin(first - 1)
    for epoch in range(first, last + 1):
        history.append(epoch, {"train/box_loss": loss, "metrics/mAP50(B)": epoch / 10})
    history.close()
    return history


def rows(path: Path) -> list[tuple[int, float]]:
    with path.open(newline="") as file:
        return [(int(row["epoch"]), float(row["train/box_loss"])) for row in csv.DictReader(file)]


def plotted(path: Path, tag: str) -> list[tuple[int, float]]:
    """Return steps and values of a tag in the events that TensorBoard reads."""
    (events,) = (path.parent / "tensorboard").iterdir()
    return [
        (event.step, round(value.simple_value, 4))
        for event in map(Event.FromString, _records(events))
        for value in event.summary.value
        if value.tag == tag
    ]


def _records(events: Path) -> list[bytes]:
    """Return the records of a file of events: length, checksum, data, checksum."""
    data, found = events.read_bytes(), []
    while data:
        length = int.from_bytes(data[:8], "little")
        found.append(data[12 : 12 + length])
        data = data[16 + length :]
    return found


def test_an_epoch_that_is_trained_again_has_one_row_that_of_the_weights(path: Path) -> None:
    train_epochs(path, 1, 4, loss=9)
    train_epochs(path, 3, 5, loss=1)  # the checkpoints of epochs 3 and 4 were lost
    assert rows(path) == [(1, 9), (2, 9), (3, 1), (4, 1), (5, 1)]
    assert plotted(path, "train/box_loss") == rows(path)
    assert plotted(path, "metrics/mAP50") == [(epoch, epoch / 10) for epoch in range(1, 6)]


def test_the_time_goes_on_where_it_ended(path: Path) -> None:
    history = train_epochs(path, 1, 2, loss=1)
    text = path.read_text().replace(f"2,{history.seconds}", "2,3600.0")
    path.write_text(text)
    assert 3600 <= train_epochs(path, 3, 3, loss=1).seconds < 3700


def test_in_another_workspace_the_history_is_that_of_the_checkpoint(path: Path) -> None:
    kept = train_epochs(path, 1, 3, loss=2).columns()
    path.unlink()
    restore_history(path, path.parent / "tensorboard", 3, kept)
    assert rows(path) == plotted(path, "train/box_loss") == [(1, 2), (2, 2), (3, 2)]


@pytest.mark.parametrize("size", range(0, 120, 7))
def test_a_file_that_a_crash_cut_off_costs_no_epoch_that_the_checkpoint_knows(path: Path, size: int) -> None:
    kept = train_epochs(path, 1, 3, loss=2).columns()
    path.write_bytes(path.read_bytes()[:size])
    history = open_history(path)
    history.begin(3, kept)
    history.append(4, {"train/box_loss": 2.0, "metrics/mAP50(B)": 0.4})
    history.close()
    assert rows(path) == [(1, 2), (2, 2), (3, 2), (4, 2)]


def test_what_is_lost_is_said_and_the_training_goes_on(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train_epochs(path, 3, 4, loss=1)
    assert "has 0 of 2 epochs" in caplog.text
    assert rows(path) == [(3, 1), (4, 1)]


def test_a_metric_that_comes_later_has_a_column_too(path: Path) -> None:
    history = open_history(path)
    history.begin(0)
    history.append(1, {"train/box_loss": 1.0})
    history.append(2, {"train/box_loss": 1.0, "val/box_loss": 0.5})
    history.append(3, {"train/box_loss": 1.0})
    history.close()
    assert [line.split(",")[-1].strip() for line in path.read_text().splitlines()] == [
        "val/box_loss",
        "nan",
        "0.5",
        "nan",
    ]
