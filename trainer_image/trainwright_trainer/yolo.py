"""Ultralytics, behind a narrow door: off line, without side effects outside the folder it is given.

It is imported inside the functions, after `prepare`: it reads its environment when it is first imported.
"""

# ruff: noqa: PLC0415 - Ultralytics and torch take seconds to import, and only after the environment is set

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import distribution
from io import StringIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trainwright.contract import ArgumentValue

Detections = NDArray[np.float32]
"""Rows of x1, y1, x2, y2, confidence, class, in pixels of the model's input."""

Detector = Callable[[NDArray[np.float32]], list[Detections]]
"""Takes a batch of RGB images (batch, 3, height, width) in 0..1."""

CONFIDENCE = 0.001  # as in a validation: readers of the export set their own, higher threshold
_OVERLAP = 0.7  # Ultralytics' own default for non-maximum suppression
_FONTS = ("Arial.ttf", "Arial.Unicode.ttf")
_INTEGRATIONS = ("clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_ARCHITECTURE = re.compile(r"(yolov?\d+)[a-z]?((?:-p\d)?\.ya?ml)")  # the letter is a size within yolo11.yaml
_METRICS = {
    "mAP50": "metrics/mAP50(B)",
    "mAP50to95": "metrics/mAP50-95(B)",
    "precision": "metrics/precision(B)",
    "recall": "metrics/recall(B)",
}


@dataclass(frozen=True)
class TrainingJob:
    """One call of Ultralytics' trainer; with `resume`, the checkpoint's own arguments count."""

    model: str
    data: Path
    folder: Path
    device: str
    workers: int
    arguments: Mapping[str, ArgumentValue]
    resume: Path | None = None


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
        """A validation batch is done."""

    def on_saved(self, saved: SavedEpoch) -> None:
        """An epoch is saved."""


@dataclass(frozen=True)
class Validation:
    """Metrics of one split; `per_class` is the mAP50-95 of each class that occurs in it."""

    metrics: dict[str, float]
    per_class: dict[str, float]


def prepare(folder: Path) -> None:
    """Set Ultralytics up: no network, no installs, no telemetry, its own files in `folder`, logs in ours."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.update(
        YOLO_OFFLINE="true",
        YOLO_AUTOINSTALL="false",
        YOLO_CONFIG_DIR=str(folder),
        YOLO_VERBOSE="false",
        ULTRALYTICS_SAFE_LOAD="1",
    )
    from ultralytics.utils import LOGGER, SETTINGS, USER_CONFIG_DIR

    SETTINGS.update(sync=False, api_key="", **dict.fromkeys(_INTEGRATIONS, False))
    for handler in list(LOGGER.handlers):
        LOGGER.removeHandler(handler)
    if _make_plain not in LOGGER.filters:
        LOGGER.addFilter(_make_plain)
    LOGGER.propagate = True
    LOGGER.setLevel(logging.INFO)
    _provide_fonts(Path(USER_CONFIG_DIR))


def is_architecture(name: str) -> bool:
    """Return whether Ultralytics has a detection architecture of this name, such as `yolo11n.yaml`."""
    match = _ARCHITECTURE.fullmatch(name)
    folder = Path(str(distribution("ultralytics").locate_file("ultralytics/cfg/models")))
    known = {path.name for path in folder.rglob("*.yaml")}
    return match is not None and not known.isdisjoint({name, match[1] + match[2]})


def train(job: TrainingJob, hooks: TrainingHooks) -> None:
    """Train to the end; every epoch is handed to `hooks.on_saved`, which copies what it wants to keep."""
    from ultralytics.models.yolo.detect import DetectionTrainer
    from ultralytics.utils import RANK, callbacks

    class Trainer(DetectionTrainer):  # type: ignore[misc]
        """Leaves the last checkpoint resumable, and the validation of the best one to the evaluation step."""

        def final_eval(self) -> None:
            """Do nothing."""

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
    Trainer(overrides=overrides, _callbacks=registered).train()


def strip(checkpoint: Path, target: Path) -> None:
    """Write the weights of a checkpoint without optimizer and training state."""
    from ultralytics.utils.torch_utils import strip_optimizer

    if not strip_optimizer(checkpoint, s=str(target)):
        raise ValueError(f"{checkpoint.name} is not a checkpoint")


def validate(  # noqa: PLR0913 - what a validation depends on
    weights: Path,
    data: Path,
    *,
    split: str,
    image_size: int,
    batch_size: int,
    device: str,
    folder: Path,
    end_to_end: bool,
) -> Validation:
    """Return the metrics of weights on one split of a dataset."""
    from ultralytics import YOLO

    result = YOLO(weights).val(
        data=str(data),
        split=split,
        imgsz=image_size,
        batch=batch_size,
        device=device,
        workers=0,
        plots=False,
        save_dir=str(folder),
        nms=False if end_to_end else None,
    )
    per_class = {
        result.names[int(class_id)]: float(value)
        for class_id, value in zip(result.box.ap_class_index, result.box.ap, strict=True)
    }
    return Validation(metrics=_pick_metrics(result.results_dict), per_class=per_class)


def is_end_to_end(weights: Path) -> bool:
    """Return whether the model has a head that needs no non-maximum suppression."""
    from ultralytics import YOLO

    return getattr(YOLO(weights).model.model[-1], "one2one_cv2", None) is not None


def export_onnx(weights: Path, arguments: Mapping[str, Any]) -> Path:
    """Export to ONNX on the CPU; the file appears beside the weights."""
    from ultralytics import YOLO

    with redirect_stdout(StringIO()):  # the exporter's dependencies print
        return Path(
            YOLO(weights).export(format="onnx", device="cpu", conf=CONFIDENCE, iou=_OVERLAP, **arguments)
        )


def load_detector(weights: Path, *, end_to_end: bool) -> Detector:
    """Return the weights as a detector on the CPU, to compare an export with."""
    import torch
    from ultralytics.nn.autobackend import AutoBackend

    model = AutoBackend(str(weights), device=torch.device("cpu"), end2end=end_to_end)
    model.eval()

    def detect(images: NDArray[np.float32]) -> list[Detections]:
        with torch.inference_mode():
            return suppress(model(torch.from_numpy(images)), end_to_end=end_to_end)

    return detect


def suppress(output: Any, *, end_to_end: bool) -> list[Detections]:
    """Return the detections in a model's raw output (tensors or arrays)."""
    import torch
    from ultralytics.utils.nms import non_max_suppression

    first = output[0] if isinstance(output, list | tuple) else output
    kept = non_max_suppression(
        torch.as_tensor(first),
        conf_thres=CONFIDENCE,
        iou_thres=_OVERLAP,
        max_time_img=60,  # its default silently drops detections on a slow machine
        end2end=end_to_end,
    )
    return [np.asarray(detections, dtype=np.float32) for detections in kept]


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


def _saved_epoch(trainer: Any) -> SavedEpoch:
    return SavedEpoch(
        epoch=trainer.epoch + 1,
        epochs=trainer.epochs,
        batch_size=trainer.batch_size,
        metrics=_pick_metrics(trainer.metrics),
        last=Path(trainer.last),
        is_best=trainer.best_fitness == trainer.fitness,
        is_final=bool(trainer.stop),
    )


def _pick_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: round(float(metrics[key]), 5) for name, key in _METRICS.items() if key in metrics}


def _make_plain(record: logging.LogRecord) -> bool:
    """Take terminal colours and empty lines out of a log record; drop it when nothing is left."""
    record.msg, record.args = _COLOUR.sub("", record.getMessage()).strip(), None
    return bool(record.msg)


def _provide_fonts(folder: Path) -> None:
    """Put matplotlib's own font where Ultralytics would otherwise download one to."""
    import matplotlib

    folder.mkdir(parents=True, exist_ok=True)
    source = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    for name in _FONTS:
        if not (folder / name).exists():
            shutil.copyfile(source, folder / name)
