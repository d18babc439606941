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
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from copy import deepcopy
from dataclasses import dataclass
from importlib.metadata import distribution
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainwright.contract import CURVE_POINTS
from trainwright.errors import ConfigurationError, DataError
from trainwright_trainer.measuring.results import ClassFigures, ImageResult, Validation

Detections = NDArray[np.float32]
"""Rows of x1, y1, x2, y2, confidence, class, in pixels of the model's input."""

Detector = Callable[[NDArray[np.float32]], list[Detections]]
"""Takes a batch of RGB images (batch, 3, height, width) in 0..1."""

CONFIDENCE = 0.001  # as in a validation: readers of the export set their own, higher threshold
_SURE = 0.25  # Ultralytics' own threshold for predictions
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
class Split:
    """A split of a dataset by its `data.yaml`, and a folder that Ultralytics may use as it likes."""

    data: Path
    name: str
    scratch: Path


@dataclass(frozen=True)
class Inference:
    """How a model is run."""

    image_size: int
    batch_size: int
    device: str
    end_to_end: bool


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


@dataclass(frozen=True)
class PlainWeights:
    """Weights as tensors, with the name of the architecture that they fill: nothing in it can run."""

    architecture: str
    classes: int
    tensors: dict[str, Any]


def take_apart(weights: Path) -> PlainWeights:
    """Return the plain weights of a `.pt` file of ours."""
    from ultralytics.nn.tasks import torch_safe_load

    checkpoint, _ = torch_safe_load(weights)
    model = checkpoint["model"]
    return PlainWeights(Path(model.yaml["yaml_file"]).name, int(model.yaml["nc"]), model.state_dict())


def put_together(plain: PlainWeights, names: Sequence[str], target: Path) -> None:
    """Write plain weights as a `.pt` file; raise `DataError` where they fill no architecture we know."""
    import torch
    from ultralytics.nn.tasks import DetectionModel

    if not is_architecture(plain.architecture):
        raise DataError(f"{plain.architecture!r} is none of the architectures that this release knows")
    model = DetectionModel(plain.architecture, ch=3, nc=plain.classes, verbose=False)
    try:
        model.load_state_dict(plain.tensors, strict=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()[:200]
        raise DataError(f"the weights do not fill {plain.architecture}: {reason}") from None
    model.names = dict(enumerate(names))
    model.args = {}
    torch.save({"epoch": -1, "model": model.half(), "train_args": {}}, target)


class Model:
    """Weights, loaded once: to be measured, timed, exported and compared with."""

    def __init__(self, weights: Path) -> None:
        from ultralytics import YOLO

        self._yolo = YOLO(weights)

    @property
    def end_to_end(self) -> bool:
        """Whether it has a head that needs no non-maximum suppression."""
        return getattr(self._yolo.model.model[-1], "one2one_cv2", None) is not None

    @property
    def parameter_bytes(self) -> int:
        """How much room its parameters take."""
        return sum(
            values.numel() * values.element_size() for values in self._yolo.model.state_dict().values()
        )

    def validate(self, split: Split, settings: Inference, on_batch: Callable[[float], None]) -> Validation:
        """Return the metrics on one split of a dataset, and what was found on each of its images."""
        images: list[ImageResult] = []
        validator = _recorder(images)
        self._yolo.add_callback(
            "on_val_batch_end", lambda running: on_batch((running.batch_i + 1) / len(running.dataloader))
        )
        result = self._yolo.val(
            validator,
            data=str(split.data),
            split=split.name,
            imgsz=settings.image_size,
            batch=settings.batch_size,
            device=settings.device,
            workers=0,
            plots=False,
            save_dir=str(split.scratch),
            nms=False if settings.end_to_end else None,
        )
        threshold, f1 = _best_f1(result.box)
        metrics = pick_metrics(result.results_dict)
        return Validation(metrics, _classes_of(result), threshold, f1, images)

    def export_onnx(self, arguments: Mapping[str, Any]) -> Path:
        """Export to ONNX on the CPU; the file appears beside the weights."""
        with redirect_stdout(StringIO()):  # the exporter's dependencies print
            return Path(
                self._yolo.export(
                    format="onnx", device="cpu", conf=CONFIDENCE, iou=SUPPRESSED_OVERLAP, **arguments
                )
            )

    def detector(self, device: str = "cpu", *, end_to_end: bool) -> Detector:
        """Return a copy that detects on a device (as Ultralytics writes it)."""
        import torch
        from ultralytics.nn.autobackend import AutoBackend

        place = torch.device("cpu" if device == "cpu" else f"cuda:{device}")
        model = AutoBackend(deepcopy(self._yolo.model), device=place, end2end=end_to_end, verbose=False)
        model.eval()

        def detect(images: NDArray[np.float32]) -> list[Detections]:
            with torch.inference_mode():
                return suppress(model(torch.from_numpy(images).to(place)), end_to_end=end_to_end)

        return detect


def _recorder(images: list[ImageResult]) -> type:
    """Return Ultralytics' validator, made to write down what it found on each image."""
    from ultralytics.models.yolo.detect import DetectionValidator
    from ultralytics.utils import ops

    class Recorder(DetectionValidator):  # type: ignore[misc]
        def update_metrics(self, preds: list[Any], batch: dict[str, Any]) -> None:
            super().update_metrics(preds, batch)
            for index, (found, matches) in enumerate(
                zip(preds, self.metrics.stats["tp"][-len(preds) :], strict=True)
            ):
                labelled = self._prepare_batch(index, batch)
                to_image = (labelled["imgsz"], labelled["ori_shape"], labelled["ratio_pad"])
                images.append(
                    ImageResult(
                        name=Path(labelled["im_file"]).name,
                        width=int(labelled["ori_shape"][1]),
                        height=int(labelled["ori_shape"][0]),
                        detections=_rows(_scale(found["bboxes"], *to_image), found["conf"], found["cls"]),
                        labels=_rows(_scale(labelled["bboxes"], *to_image), labelled["cls"]),
                        matches=np.asarray(matches, dtype=np.bool_).reshape(-1, self.niou),
                    )
                )

    def _scale(boxes: Any, size: Any, original: Any, ratio_pad: Any) -> Any:
        return ops.scale_boxes(size, boxes.clone(), original, ratio_pad)

    def _rows(boxes: Any, *columns: Any) -> NDArray[np.float32]:
        beside = [column.reshape(-1, 1).cpu().numpy() for column in columns]
        return np.hstack([boxes.reshape(-1, 4).cpu().numpy(), *beside]).astype(np.float32)

    return Recorder


def _best_f1(box: Any) -> tuple[float, float]:
    """Return the confidence at which the mean F1 is best, as Ultralytics chooses it, and that F1."""
    from ultralytics.utils.metrics import smooth

    if not np.any(box.f1_curve):
        return _SURE, 0.0
    best = int(smooth(box.f1_curve.mean(0), 0.1).argmax())
    return float(box.px[best]), float(box.f1_curve[:, best].mean())


def _classes_of(result: Any) -> dict[int, ClassFigures]:
    """Return the figures of each class that has boxes in the split."""
    recalls = np.linspace(0, 1, CURVE_POINTS)
    box = result.box
    return {
        int(class_id): ClassFigures(
            images=int(result.nt_per_image[class_id]),
            boxes=int(result.nt_per_class[class_id]),
            values={
                "mAP50": float(box.all_ap[index, 0]),
                "mAP50to95": float(box.all_ap[index].mean()),
                "precision": float(box.p[index]),
                "recall": float(box.r[index]),
            },
            curve=tuple(np.interp(recalls, box.px, box.prec_values[index]).round(4).tolist()),
        )
        for index, class_id in enumerate(box.ap_class_index)
    }


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
    return [np.asarray(detections.cpu(), dtype=np.float32) for detections in kept]


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
