"""Ultralytics, behind a narrow door: off line, without side effects outside the folder it is given.

It is imported inside the functions, after `prepare`: it reads its environment when it is first imported.
"""

# ruff: noqa: PLC0415 - Ultralytics and torch take seconds to import, and only after the environment is set

from __future__ import annotations

import logging
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import distribution
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainwright.errors import ConfigurationError

Detections = NDArray[np.float32]
"""Rows of x1, y1, x2, y2, confidence, class, in pixels of the model's input."""

Detector = Callable[[NDArray[np.float32]], list[Detections]]
"""Takes a batch of RGB images (batch, 3, height, width) in 0..1."""

CONFIDENCE = 0.001  # as in a validation: readers of the export set their own, higher threshold
SUPPRESSED_OVERLAP = 0.7  # Ultralytics' own default for non-maximum suppression
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
    _require_safe_loading()


def _require_safe_loading() -> None:
    """Refuse a torch with which Ultralytics would load weights as the programs that they may be."""
    from ultralytics.nn.tasks import _SafeLoad

    if not _SafeLoad.SUPPORTED:
        raise ConfigurationError(
            "the installed torch can't load weights without running code in them",
            hint="Use an image with torch 2.6 or newer.",
        )


def is_architecture(name: str) -> bool:
    """Return whether Ultralytics has a detection architecture of this name, such as `yolo11n.yaml`."""
    match = _ARCHITECTURE.fullmatch(name)
    folder = Path(str(distribution("ultralytics").locate_file("ultralytics/cfg/models")))
    known = {path.name for path in folder.rglob("*.yaml")}
    return match is not None and not known.isdisjoint({name, match[1] + match[2]})


def is_harmless(checkpoint: Path) -> bool:
    """Return whether a checkpoint from elsewhere holds weights and known classes only: no code of its own."""
    from ultralytics.nn.tasks import torch_safe_load

    try:
        torch_safe_load(checkpoint, safe_only=True)
    except TypeError:  # this is what Ultralytics makes of a class it does not know, and of a damaged file
        return False
    return True


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
    on_batch: Callable[[float], None],
) -> Validation:
    """Return the metrics of weights on one split of a dataset."""
    from ultralytics import YOLO

    model = YOLO(weights)
    model.add_callback(
        "on_val_batch_end", lambda running: on_batch((running.batch_i + 1) / len(running.dataloader))
    )
    result = model.val(
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
        if math.isfinite(value)
    }
    return Validation(metrics=pick_metrics(result.results_dict), per_class=per_class)


def is_end_to_end(weights: Path) -> bool:
    """Return whether the model has a head that needs no non-maximum suppression."""
    from ultralytics import YOLO

    return getattr(YOLO(weights).model.model[-1], "one2one_cv2", None) is not None


def export_onnx(weights: Path, arguments: Mapping[str, Any]) -> Path:
    """Export to ONNX on the CPU; the file appears beside the weights."""
    from ultralytics import YOLO

    with redirect_stdout(StringIO()):  # the exporter's dependencies print
        return Path(
            YOLO(weights).export(
                format="onnx", device="cpu", conf=CONFIDENCE, iou=SUPPRESSED_OVERLAP, **arguments
            )
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
        iou_thres=SUPPRESSED_OVERLAP,
        max_time_img=60,  # its default silently drops detections on a slow machine
        end2end=end_to_end,
    )
    return [np.asarray(detections, dtype=np.float32) for detections in kept]


def pick_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics we know, by our names; one that is no number can't be reported and is left out."""
    known = {name: float(metrics[key]) for name, key in _METRICS.items() if key in metrics}
    return {name: round(value, 5) for name, value in known.items() if math.isfinite(value)}


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
