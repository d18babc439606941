"""Ultralytics' trainer, behind the other half of the narrow door: `yolo.prepare` comes before it."""

# ruff: noqa: PLC0415 - Ultralytics takes seconds to import, and only after the environment is set

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from trainwright.contract import ArgumentValue
from trainwright_trainer import yolo

_PRECISION_MODEL = "yolo26n.pt"  # Ultralytics tries mixed precision with this one, whatever is trained


@dataclass(frozen=True)
class TrainingJob:
    """One call of Ultralytics' trainer; with `resume`, the checkpoint's own arguments count."""

    model: str
    data: Path
    folder: Path
    device: str
    workers: int
    arguments: Mapping[str, ArgumentValue]
    base_models: Path | None = None
    resume: Path | None = None
    batch_size: int | None = None  # with `resume`, in place of the checkpoint's


@dataclass(frozen=True)
class SavedEpoch:
    """A trained and validated epoch, just written to `last`; `final` when no other follows."""

    epoch: int
    epochs: int
    batch_size: int
    metrics: dict[str, float]
    last: Path
    is_best: bool
    is_final: bool


class TrainingHooks(Protocol):
    """Called from within the training; an exception raised here ends it."""

    def on_batch(self, epoch: int, epochs: int, fraction: float) -> None:
        """A training batch of epoch `epoch` (from 1) is done, which is `fraction` of the epoch."""

    def on_validation_batch(self) -> None:
        """A batch of the validation at an epoch's end is done."""

    def on_saved(self, saved: SavedEpoch) -> None:
        """An epoch is saved."""


def train(job: TrainingJob, hooks: TrainingHooks) -> None:
    """Train to the end; every epoch is handed to `hooks.on_saved`, which copies what it wants to keep."""
    from ultralytics.models.yolo.detect import DetectionTrainer
    from ultralytics.utils import RANK, callbacks

    class Trainer(DetectionTrainer):  # type: ignore[misc]
        """Leaves the last checkpoint resumable, and the validation of the best one to the evaluation step."""

        def final_eval(self) -> None:
            """Do nothing."""

    _keep_precision_check_offline(job.base_models)
    registered = callbacks.get_default_callbacks()
    if RANK in {-1, 0}:
        progress = _BatchCounter(hooks)
        registered["on_train_epoch_start"].append(progress.start_epoch)
        registered["on_train_batch_end"].append(progress.count_batch)
        registered["on_val_batch_end"].append(lambda _: hooks.on_validation_batch())
        registered["on_model_save"].append(lambda trainer: hooks.on_saved(_saved_epoch(trainer)))
    overrides: dict[str, Any] = {
        "task": "detect",
        "data": str(job.data),
        "save_dir": str(job.folder),
        "device": job.device,
        "workers": job.workers,
    }
    if job.resume is None:
        overrides.update(job.arguments, model=job.model, plots=False, save=True, save_period=-1)
    else:
        overrides.update(model=str(job.resume), resume=str(job.resume))
        if job.batch_size is not None:
            overrides["batch"] = job.batch_size
    Trainer(overrides=overrides, _callbacks=registered).train()


class _BatchCounter:
    """Counts batches within an epoch: Ultralytics' callbacks do not say which one it is."""

    def __init__(self, hooks: TrainingHooks) -> None:
        self._hooks = hooks
        self._done = 0

    def start_epoch(self, trainer: Any) -> None:
        self._done = 0

    def count_batch(self, trainer: Any) -> None:
        self._done += 1
        self._hooks.on_batch(trainer.epoch + 1, trainer.epochs, self._done / len(trainer.train_loader))


def _keep_precision_check_offline(base_models: Path | None) -> None:
    """Let the check of mixed precision use a base model that is there: without one it would download it."""
    from ultralytics import utils
    from ultralytics.engine import trainer
    from ultralytics.utils.checks import check_amp

    if base_models is not None and (base_models / _PRECISION_MODEL).is_file():
        utils.WEIGHTS_DIR = base_models
        trainer.check_amp = check_amp
    else:
        trainer.check_amp = lambda model: next(model.parameters()).device.type not in {"cpu", "mps"}


def _saved_epoch(trainer: Any) -> SavedEpoch:
    return SavedEpoch(
        epoch=trainer.epoch + 1,
        epochs=trainer.epochs,
        batch_size=trainer.batch_size,
        metrics=yolo.pick_metrics(trainer.metrics),
        last=Path(trainer.last),
        is_best=trainer.best_fitness == trainer.fitness,
        is_final=bool(trainer.stop),
    )
