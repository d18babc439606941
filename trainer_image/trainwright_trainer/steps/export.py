"""Export: an ONNX file whose bytes depend on weights, dataset and settings only, and what is made of it."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from trainwright.artifacts import Dataset, FurtherModel, OnnxModel, Weights
from trainwright.contract import FurtherFormat, OnnxSettings, RunPlan
from trainwright.errors import ConfigurationError
from trainwright_trainer import yolo
from trainwright_trainer.files import commit_folder, copy_atomically, digest_file
from trainwright_trainer.formats import FURTHER
from trainwright_trainer.places import Places
from trainwright_trainer.watching import Watcher

_LOG = logging.getLogger(__name__)
FOLDER = "export"
MODEL = f"{FOLDER}/model.onnx"
MAX_DETECTIONS = 300
LARGEST = 2**31 - 2**25  # one ONNX file is below 2 GiB, and the graph needs some room too
_KEPT_METADATA = (
    "names",
    "stride",
    "task",
    "license",
    "version",
    "channels",
)  # no date, no path, no arguments


def export_model(
    weights: Weights, dataset: Dataset, plan: RunPlan, places: Places, watcher: Watcher
) -> OnnxModel:
    """Export the weights; with `nms` the output is [batch, 300, 6]: x1, y1, x2, y2, confidence, class."""
    yolo.prepare(places.workspace / "ultralytics")
    scratch = places.workspace / f"{FOLDER}.partial"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    source = scratch / "model.pt"  # the exporter writes beside the weights
    shutil.copyfile(places.workspace / weights.path, source)
    model = yolo.Model(source)
    _check_size(model.parameter_bytes)
    end_to_end = plan.export.onnx.nms and model.end_to_end
    watcher.advance(0.1)
    exported = model.export_onnx(_export_arguments(plan, end_to_end=end_to_end))
    watcher.advance(0.7)
    opset = _normalise(exported, plan, dataset, end_to_end=end_to_end)
    target = places.workspace / MODEL
    copy_atomically(exported, target)
    shutil.rmtree(scratch)
    watcher.advance(0.8)
    return OnnxModel(
        path=MODEL,
        digest=digest_file(target),
        size=target.stat().st_size,
        opset=opset,
        end_to_end=end_to_end,
        further=tuple(_convert(name, places.workspace) for name in dict.fromkeys(plan.export.formats)),
    )


def _check_size(parameter_bytes: int) -> None:
    if parameter_bytes > LARGEST:
        raise ConfigurationError(
            f"the weights take {parameter_bytes / 2**30:.2f} GiB, and an ONNX file holds at most"
            f" {LARGEST / 2**30:.2f} GiB: larger ones would need a second file, which is not supported",
            hint="Set training.baseModel to a smaller model.",
        )


def _export_arguments(plan: RunPlan, *, end_to_end: bool) -> dict[str, Any]:
    settings = plan.export.onnx
    arguments: dict[str, Any] = {
        "imgsz": plan.export_image_size,
        "dynamic": settings.dynamic_batch or settings.dynamic_image_size,
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


def _normalise(path: Path, plan: RunPlan, dataset: Dataset, *, end_to_end: bool) -> int:
    """Leave only what describes the model in its metadata, and check the graph; return the opset."""
    import onnx  # noqa: PLC0415 - slow to import

    settings, image_size = plan.export.onnx, plan.export_image_size
    model = onnx.load(path)
    if settings.half:
        _sort_nodes(model)
    found = {entry.key: entry.value for entry in model.metadata_props}
    kept = {key: found[key] for key in _KEPT_METADATA if key in found}
    kept.update(
        imgsz=json.dumps([image_size, image_size]),
        batch=str(settings.max_batch),
        dataset=dataset.report.digest,
        classes=dataset.class_map.to_json(),
    )
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(sorted(kept.items())))
    model.doc_string = model.graph.doc_string = ""
    model.graph.name = "model"
    del model.graph.value_info[:]  # inferred shapes: their spelling differs from one process to the next
    _fix_shapes(model.graph, settings, image_size, end_to_end=end_to_end)
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


def _fix_shapes(graph: Any, settings: OnnxSettings, image_size: int, *, end_to_end: bool) -> None:
    """The exporter knows dynamic shapes or fixed ones: fix what was not asked to be dynamic."""
    given = graph.input[0].type.tensor_type.shape
    if not settings.dynamic_batch:
        given.dim[0].dim_value = settings.max_batch
    if not settings.dynamic_image_size:
        given.dim[2].dim_value = given.dim[3].dim_value = image_size
    said = graph.output[0].type.tensor_type.shape
    if settings.nms and not end_to_end:
        said.dim[1].dim_value, said.dim[2].dim_value = MAX_DETECTIONS, 6
    if end_to_end and 0 < said.dim[1].dim_value < MAX_DETECTIONS:  # 0 where the graph does not say
        _LOG.warning(
            "the output has %d rows instead of %d: on %d pixels an end-to-end head has no more places",
            said.dim[1].dim_value,
            MAX_DETECTIONS,
            image_size,
        )


def _convert(name: FurtherFormat, workspace: Path) -> FurtherModel:
    """Make a further format of the ONNX file, in a folder of its own."""
    final = workspace / FOLDER / name
    partial = final.with_name(f"{name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    FURTHER[name].convert(workspace / MODEL, partial)
    commit_folder(partial, final)
    files = {path.name: digest_file(path) for path in sorted(final.iterdir())}
    return FurtherModel(format=name, folder=f"{FOLDER}/{name}", files=files)
