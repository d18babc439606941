"""Export: an ONNX file whose bytes depend on the weights and the export settings only."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from trainwright.artifacts import OnnxModel, Weights
from trainwright.contract import OnnxSettings, RunPlan
from trainwright.errors import ConfigurationError
from trainwright_trainer import yolo
from trainwright_trainer.files import digest_file, write_atomically
from trainwright_trainer.places import Places
from trainwright_trainer.watching import Watcher

FOLDER = "export"
MODEL = f"{FOLDER}/model.onnx"
MAX_DETECTIONS = 300
_KEPT_METADATA = (
    "names",
    "stride",
    "task",
    "license",
    "version",
    "channels",
)  # no date, no path, no arguments


def export_model(weights: Weights, plan: RunPlan, places: Places, watcher: Watcher) -> OnnxModel:
    """Export the weights; with `nms` the output is [batch, 300, 6]: x1, y1, x2, y2, confidence, class."""
    yolo.prepare(places.workspace / "ultralytics")
    settings = plan.export.onnx
    image_size = plan.export_image_size
    scratch = places.workspace / f"{FOLDER}.partial"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    source = scratch / "model.pt"
    shutil.copyfile(places.workspace / weights.path, source)
    end_to_end = settings.nms and yolo.is_end_to_end(source)
    watcher.advance(0.1)
    exported = yolo.export_onnx(source, _export_arguments(settings, image_size, end_to_end=end_to_end))
    watcher.advance(0.8)
    opset = _normalise(exported, settings, image_size)
    target = places.workspace / MODEL
    write_atomically(target, exported.read_bytes())
    shutil.rmtree(scratch)
    return OnnxModel(
        path=MODEL,
        digest=digest_file(target),
        size=target.stat().st_size,
        opset=opset,
        end_to_end=end_to_end,
    )


def _export_arguments(settings: OnnxSettings, image_size: int, *, end_to_end: bool) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "imgsz": image_size,
        "dynamic": settings.dynamic_batch,
        "batch": settings.max_batch,
        "simplify": settings.simplify,
        "max_det": MAX_DETECTIONS,
        # Three states: True builds suppression in, False keeps an end-to-end head, None leaves it raw.
        "nms": False if end_to_end else (True if settings.nms else None),
    }
    if settings.opset is not None:
        arguments["opset"] = settings.opset
    if settings.half:
        arguments["quantize"] = 16
    return arguments


def _normalise(path: Path, settings: OnnxSettings, image_size: int) -> int:
    """Leave only what describes the model in its metadata, and check the graph; return the opset."""
    import onnx  # noqa: PLC0415 - slow to import

    model = onnx.load(path)
    if settings.half:
        _sort_nodes(model)
    found = {entry.key: entry.value for entry in model.metadata_props}
    kept = {key: found[key] for key in _KEPT_METADATA if key in found}
    kept.update(imgsz=json.dumps([image_size, image_size]), batch=str(settings.max_batch))
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(sorted(kept.items())))
    model.doc_string = model.graph.doc_string = ""
    model.graph.name = "model"
    del model.graph.value_info[:]  # inferred shapes: their spelling differs from one process to the next
    _fix_image_size(model.graph.input[0].type.tensor_type.shape, image_size)
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.checker.ValidationError as error:
        raise ConfigurationError(
            f"the exported model does not pass the ONNX checker: {str(error)[:300]}",
            hint="Try export.onnx.opset or export.onnx.simplify: false.",
        ) from error
    path.write_bytes(model.SerializeToString(deterministic=True))
    return int(model.opset_import[0].version)


def _sort_nodes(model: Any) -> None:
    """Put the casts that the conversion to half precision appended where the standard wants them."""
    from onnxruntime.transformers.onnx_model import OnnxModel as Graph  # noqa: PLC0415 - slow to import

    Graph(model).topological_sort()


def _fix_image_size(shape: Any, image_size: int) -> None:
    """Only the batch is dynamic: height and width of the input are those it was trained for."""
    for axis in (2, 3):
        shape.dim[axis].dim_value = image_size
