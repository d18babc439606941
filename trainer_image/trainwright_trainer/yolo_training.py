"""Ultralytics' trainer, behind the other half of the narrow door: `yolo.prepare` comes before it."""

# ruff: noqa: PLC0415 - Ultralytics takes seconds to import, and only after the environment is set

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from trainwright.contract import ArgumentValue
from trainwright_trainer import yolo
from trainwright_trainer.history import TrainingHistory

_GLOO_TIMEOUT = timedelta(minutes=30)
_PRECISION_MODEL = "yolo26n.pt"  # Ultralytics tries mixed precision with this one, whatever is trained


@dataclass(frozen=True)
class TrainingJob:
    """One call of Ultralytics' trainer; with `resume`, the checkpoint's own arguments count."""

    model: str
    data: Path
    folder: Path
    devices: tuple[str, ...]  # several: this is one of as many processes, as `ranks` started it
    workers: int
    arguments: Mapping[str, ArgumentValue]
    history: Path
    events: Path
    base_models: Path | None = None
    resume: Path | None = None
    batch_size: int | None = None  # with `resume`, in place of the checkpoint's
    most_seconds: float | None = None  # of training, in all attempts


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

    def on_batch_size(self, batch_size: int) -> None:
        """An epoch begins, with batches of this size on all devices together."""

    def on_batch(self, epoch: int, epochs: int, batch: int, batches: int) -> None:
        """Training batch `batch` of `batches` of epoch `epoch` of `epochs`, all from 1, is done."""

    def on_validation_batch(self) -> None:
        """A batch of the validation at an epoch's end is done."""

    def on_saved(self, saved: SavedEpoch) -> None:
        """An epoch is saved."""


def train(job: TrainingJob, hooks: TrainingHooks) -> None:
    """Train to the end; every epoch is handed to `hooks.on_saved`, which copies what it wants to keep."""
    from ultralytics.utils import RANK, callbacks

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
        "device": "cpu" if job.devices[0] == "cpu" else ",".join(job.devices),
        "workers": job.workers,
    }
    if job.resume is None:
        overrides.update(job.arguments, model=job.model, plots=False, save=True, save_period=-1)
    else:
        overrides.update(model=str(job.resume), resume=str(job.resume), cache=job.arguments["cache"])
        if job.batch_size is not None:
            overrides["batch"] = job.batch_size
    history = TrainingHistory(job.history, job.events)
    try:
        _make_trainer(job, history, overrides, registered).train()
    finally:
        history.close()


def read_history(checkpoint: Path) -> dict[str, list[float]]:
    """Return the history that a checkpoint keeps, as columns."""
    from ultralytics.nn.tasks import torch_safe_load

    kept: dict[str, list[float]] = torch_safe_load(checkpoint)[0].get("train_results") or {}
    return kept


def _make_trainer(
    job: TrainingJob, history: TrainingHistory, overrides: dict[str, Any], registered: dict[str, Any]
) -> Any:
    import torch
    from torch import distributed
    from ultralytics.models.yolo.detect import DetectionTrainer
    from ultralytics.utils import RANK

    class Trainer(DetectionTrainer):  # type: ignore[misc]
        """Leaves what comes after the last epoch to our own steps, and keeps the history of all attempts."""

        def __init__(self) -> None:
            super().__init__(overrides=overrides, _callbacks=registered)
            if RANK != -1:
                self.world_size = len(job.devices)  # Ultralytics counts no processors

        def final_eval(self) -> None:
            """Leave the last checkpoint resumable, and the validation of the best to the evaluation step."""

        def resume_training(self, ckpt: dict[str, Any] | None) -> None:
            """Begin the history where the training does."""
            super().resume_training(ckpt)
            if RANK in {-1, 0}:
                history.begin(self.start_epoch, (ckpt or {}).get("train_results"))

        def save_metrics(self, metrics: dict[str, float]) -> None:
            """Add to our history; end the training when its time is up."""
            history.append(self.epoch + 1, {name: float(value) for name, value in metrics.items()})
            if job.most_seconds is not None and history.seconds >= job.most_seconds:
                self.stop = True

        def read_results_csv(self) -> dict[str, list[float]]:
            """Return what a checkpoint keeps of the history."""
            return history.columns()

        def _handle_nan_recovery(self, epoch: int) -> bool:
            """Without a checkpoint of this attempt Ultralytics trains on, also with weights that are lost."""
            if super()._handle_nan_recovery(epoch):
                return True
            if self.loss is not None and not self.loss.isfinite():
                weights = self.model.parameters()
                if not all(bool(torch.isfinite(each).all()) for each in weights):
                    raise RuntimeError(f"the loss of epoch {epoch + 1} is NaN, and with it the weights")
            return False

        def _setup_ddp(self) -> None:
            if self.device.type != "cpu":
                super()._setup_ddp()
                return
            distributed.init_process_group("gloo", timeout=_GLOO_TIMEOUT)
            _share_between_processors()

    return Trainer()


def _share_between_processors() -> None:
    """Let Ultralytics' way of sharing a model between GPUs do between processors too."""
    from torch.nn import parallel

    class Shared(parallel.DistributedDataParallel):
        """Takes no numbers of devices: processors have none."""

        def __init__(self, module: Any, device_ids: Any = None, **settings: Any) -> None:
            super().__init__(module, **settings)

    parallel.DistributedDataParallel = Shared  # type: ignore[assignment, misc]


class _BatchCounter:
    """Counts batches within an epoch: Ultralytics' callbacks do not say which one it is."""

    def __init__(self, hooks: TrainingHooks) -> None:
        self._hooks = hooks
        self._done = 0

    def start_epoch(self, trainer: Any) -> None:
        self._done = 0
        self._hooks.on_batch_size(trainer.batch_size)

    def count_batch(self, trainer: Any) -> None:
        self._done += 1
        self._hooks.on_batch(trainer.epoch + 1, trainer.epochs, self._done, len(trainer.train_loader))


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
