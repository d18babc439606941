"""What a training does when memory runs out or numbers end, and what the attempt after it does."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from annotation_trees import Silent
from forked_trainer import write_tiny_model
from training_program import tiny_plan

from trainwright.artifacts import Dataset, Weights
from trainwright.contract import Adjustments, RunPlan
from trainwright.errors import CudaOutOfMemoryError, NotANumberError, PreemptedError, StepError
from trainwright_trainer import yolo
from trainwright_trainer.failures import to_step_error
from trainwright_trainer.places import Places
from trainwright_trainer.steps.dataset import build_dataset
from trainwright_trainer.steps.training import UNCHANGED, train_model

pytestmark = pytest.mark.filterwarnings("ignore")  # torch and Ultralytics warn of their own matters

EPOCHS = 4
Mishap = Callable[[Any, dict[str, Any]], None]


@dataclass
class Listening(Silent):
    """Notes what it is told; asked to, it stops after an epoch."""

    last: int = EPOCHS
    sizes: list[tuple[int, int]] = field(default_factory=list)  # epochs done, and the batch size told then
    epochs: list[int] = field(default_factory=list)

    def use_batch(self, batch_size: int) -> None:
        self.sizes.append((len(self.epochs), batch_size))

    def finish_epoch(self, epoch: int, epochs: int, metrics: Any) -> None:
        self.epochs.append(epoch)
        if epoch == self.last < EPOCHS:
            raise PreemptedError("stopped on request")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset]:
    """A folder with a tiny model and a dataset in a workspace."""
    folder = tmp_path_factory.mktemp("mishaps")
    yolo.prepare(folder / "ultralytics")
    (folder / "weights").mkdir()
    write_tiny_model(folder / "weights" / "tiny.pt")
    return folder, build_dataset(tiny_plan("tiny.pt"), Places(folder / "workspace"), Silent())


@dataclass
class Bench:
    """A workspace in which attempts follow each other, with a mishap in some batches."""

    folder: Path
    workspace: Path
    dataset: Dataset
    monkeypatch: pytest.MonkeyPatch

    def attempt(
        self,
        mishap: Mishap | None = None,
        *,
        last: int = EPOCHS,
        adjustments: Adjustments = UNCHANGED,
        **training: Any,
    ) -> tuple[Listening, Weights | StepError]:
        """Train; return what was told, and the weights or why there are none."""
        watcher = Listening(last)
        with self.monkeypatch.context() as patched:
            if mishap is not None:
                _befall(patched, mishap)
            try:
                made = train_model(
                    self.dataset,
                    self.plan(**training),
                    Places(self.workspace, weights=self.folder / "weights"),
                    watcher,
                    adjustments=adjustments,
                )
            except Exception as error:
                return watcher, to_step_error(error)
        return watcher, made

    def plan(self, **training: Any) -> RunPlan:
        plan = tiny_plan("tiny.pt", epochs=EPOCHS)
        settings = plan.training.model_dump() | training
        return RunPlan.model_validate(plan.model_dump() | {"training": settings})

    def history(self) -> list[int]:
        with (self.workspace / "training" / "history.csv").open(newline="") as file:
            return [int(row["epoch"]) for row in csv.DictReader(file)]


@pytest.fixture
def bench(prepared: tuple[Path, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    folder, dataset = prepared
    (tmp_path / dataset.folder).symlink_to(folder / "workspace" / dataset.folder)
    return Bench(folder, tmp_path, dataset, monkeypatch)


def _befall(patched: pytest.MonkeyPatch, mishap: Mishap) -> None:
    from ultralytics.models.yolo.detect import DetectionTrainer

    prepare = DetectionTrainer.preprocess_batch

    def prepare_badly(trainer: Any, batch: dict[str, Any]) -> dict[str, Any]:
        prepared: dict[str, Any] = prepare(trainer, batch)
        mishap(trainer, prepared)
        return prepared

    patched.setattr(DetectionTrainer, "preprocess_batch", prepare_badly)


def out_of_memory(epoch: int, above: int = 0) -> Mishap:
    """Return what befalls a batch of more than `above` images in an epoch (from 1)."""
    import torch

    def mishap(trainer: Any, batch: dict[str, Any]) -> None:
        if trainer.epoch + 1 == epoch and trainer.batch_size > above:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    return mishap


def no_numbers(first: int, last: int, times: int = 99) -> Mishap:
    """Return what befalls the batches of epochs, at most so many times an epoch is begun with it."""
    begun: list[int] = []

    def mishap(trainer: Any, batch: dict[str, Any]) -> None:
        if first <= trainer.epoch + 1 <= last:
            begun.append(1)
            if len(begun) <= times:
                batch["img"] = batch["img"] * float("nan")

    return mishap


def test_a_batch_that_does_not_fit_is_halved_and_told_at_once(bench: Bench) -> None:
    watcher, made = bench.attempt(out_of_memory(epoch=1, above=4))
    assert isinstance(made, Weights)
    assert watcher.sizes == [(0, 4)]  # before an epoch is done: a later attempt begins with it
    assert made.batch_size == 4


def test_memory_that_runs_out_later_ends_the_attempt_and_the_next_goes_on_with_less(bench: Bench) -> None:
    _, failed = bench.attempt(out_of_memory(epoch=3))
    assert isinstance(failed, CudaOutOfMemoryError)
    assert "training.batchSize" in failed.hint
    watcher, made = bench.attempt(adjustments=Adjustments(batch_size=4))
    assert isinstance(made, Weights)
    assert (watcher.epochs, made.batch_size, made.resumed_from_epoch) == ([3, 4], 4, 2)


def test_after_a_resume_a_batch_that_does_not_fit_is_halved_too(bench: Bench) -> None:
    bench.attempt(last=2)
    watcher, made = bench.attempt(out_of_memory(epoch=3, above=4))
    assert isinstance(made, Weights)
    assert (watcher.sizes, watcher.epochs) == ([(0, 4)], [3, 4])


def test_a_model_that_never_fits_is_no_endless_story(bench: Bench) -> None:
    watcher, failed = bench.attempt(out_of_memory(epoch=1))
    assert isinstance(failed, CudaOutOfMemoryError)
    assert watcher.epochs == []


def test_a_batch_size_that_was_found_is_kept_by_later_attempts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def find(batch: float, **_: Any) -> int:
        asked.append(batch)
        return 6

    monkeypatch.setattr("ultralytics.engine.trainer.check_train_batch_size", find)
    first, _ = bench.attempt(last=1, gpu_memory_fraction=0.7)
    second, made = bench.attempt(gpu_memory_fraction=0.7)
    assert isinstance(made, Weights)
    assert asked == [0.7]
    assert (first.sizes, second.sizes, made.batch_size) == ([(0, 6)], [(0, 6)], 6)


def test_numbers_that_end_for_once_cost_an_epoch_and_no_more(bench: Bench) -> None:
    watcher, made = bench.attempt(no_numbers(3, 3, times=3))
    assert isinstance(made, Weights)
    assert watcher.epochs == bench.history() == [1, 2, 3, 4]


@pytest.mark.parametrize("epoch", [1, 3])
def test_numbers_that_end_for_good_end_the_attempt_with_what_can_be_done(bench: Bench, epoch: int) -> None:
    watcher, failed = bench.attempt(no_numbers(epoch, EPOCHS))
    assert isinstance(failed, NotANumberError)
    assert "training.learningRate" in failed.hint
    assert watcher.epochs == list(range(1, epoch))


def test_numbers_that_end_after_a_resume_leave_the_checkpoint_as_it_was(bench: Bench) -> None:
    bench.attempt(last=2)
    _, failed = bench.attempt(no_numbers(3, EPOCHS))
    assert isinstance(failed, NotANumberError)
    watcher, made = bench.attempt()
    assert isinstance(made, Weights)
    assert watcher.epochs == [3, 4]


def test_checkpoints_carry_the_history_into_another_workspace(bench: Bench) -> None:
    history = bench.workspace / "training" / "history.csv"
    bench.attempt(last=2)
    history.unlink()
    _, made = bench.attempt()
    assert isinstance(made, Weights)
    assert bench.history() == [1, 2, 3, 4]
    history.unlink()  # as if only the last checkpoint had been fetched
    watcher, same = bench.attempt()
    assert isinstance(same, Weights)
    assert (watcher.epochs, bench.history(), bench.workspace / same.history) == ([], [1, 2, 3, 4], history)


def test_a_training_whose_time_is_up_is_finished_and_stays_so(bench: Bench) -> None:
    watcher, made = bench.attempt(max_hours=1e-6)
    assert isinstance(made, Weights)
    assert (watcher.epochs, made.epochs, bench.history()) == ([1], 1, [1])
    again, same = bench.attempt(max_hours=1e-6)
    assert isinstance(same, Weights)
    assert (again.epochs, same.digest) == ([], made.digest)
