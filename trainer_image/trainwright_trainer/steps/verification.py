"""Verification: the exported model, run by another engine, detects what its weights detect."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainwright.artifacts import Dataset, OnnxModel, VerifiedModel, Weights
from trainwright.contract import RunPlan
from trainwright.errors import DataError, StepError
from trainwright_trainer import yolo
from trainwright_trainer.places import Places
from trainwright_trainer.watching import Watcher

_LOG = logging.getLogger(__name__)
_SURE = 0.25  # detections above this confidence must be found by both
_AT_LEAST = 5  # but at least this many of each image, so that an unsure model is compared too
_LEAST = 1.2 * yolo.CONFIDENCE  # if they are surer than this: the other may have dropped one at the threshold
_SAME_BOX, _SAME_CONFIDENCE = 0.9, 0.02
_HALF_SAME_BOX, _HALF_SAME_CONFIDENCE = 0.8, 0.05
# Unsure detections that overlap tie if their confidences differ by no more than this share: either may be
# kept then, as either class.
_TIE = 0.01


@dataclass(frozen=True)
class _Tolerance:
    """How near two detections of the same class must be."""

    overlap: float
    confidence: float


@dataclass(frozen=True)
class _Comparison:
    """How many of the detections had a match, and the largest difference of a matched confidence."""

    wanted: int
    matched: int
    max_difference: float


def verify_model(  # noqa: PLR0913, PLR0917 - everything the proof is about
    onnx: OnnxModel, weights: Weights, dataset: Dataset, plan: RunPlan, places: Places, watcher: Watcher
) -> VerifiedModel:
    """Compare both models on images of the test split; too few matching detections are an error."""
    yolo.prepare(places.workspace / "ultralytics")
    images = _list_test_images(places.workspace / dataset.folder, plan.export.parity.images)
    reference = yolo.load_detector(places.workspace / weights.path, end_to_end=onnx.end_to_end)
    exported = _open_session(places.workspace / onnx.path, suppressed=plan.export.onnx.nms)
    half = plan.export.onnx.half
    tolerance = _Tolerance(
        _HALF_SAME_BOX if half else _SAME_BOX, _HALF_SAME_CONFIDENCE if half else _SAME_CONFIDENCE
    )
    comparisons = []
    batch_size = plan.export.onnx.max_batch
    for start in range(0, len(images), batch_size):
        chunk = images[start : start + batch_size]
        batch = np.stack([load_image(path, plan.export_image_size) for path in chunk])
        if not plan.export.onnx.dynamic_batch:
            batch = np.resize(batch, (batch_size, *batch.shape[1:]))
        pairs = zip(reference(batch), exported(batch), strict=True)
        comparisons += [_compare(ours, theirs, tolerance) for ours, theirs in list(pairs)[: len(chunk)]]
        watcher.advance((start + len(chunk)) / len(images))
    return _judge(onnx, comparisons, plan.export.parity.min_match_percent)


def load_image(path: Path, size: int) -> NDArray[np.float32]:
    """Return an image as the model wants it: RGB in 0..1, scaled to fit size x size, padded with grey."""
    import cv2  # noqa: PLC0415 - slow to import

    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(f"OpenCV can't decode the test image {path.name}")
    height, width = image.shape[:2]
    scale = size / max(height, width)
    fitted = cv2.resize(image, (max(round(width * scale), 1), max(round(height * scale), 1)))
    canvas = np.full((size, size, 3), 114, dtype=np.uint8)
    top, left = (size - fitted.shape[0]) // 2, (size - fitted.shape[1]) // 2
    canvas[top : top + fitted.shape[0], left : left + fitted.shape[1]] = fitted
    return np.ascontiguousarray(canvas[:, :, ::-1].transpose(2, 0, 1)).astype(np.float32) / np.float32(255)


def _list_test_images(dataset: Path, limit: int) -> list[Path]:
    return sorted((dataset / "images" / "test").iterdir())[:limit]


def _open_session(path: Path, *, suppressed: bool) -> yolo.Detector:
    import onnxruntime  # noqa: PLC0415 - slow to import

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def detect(images: NDArray[np.float32]) -> list[yolo.Detections]:
        return yolo.suppress(session.run(None, {name: images})[0], end_to_end=suppressed)

    return detect


def _compare(ours: yolo.Detections, theirs: yolo.Detections, tolerance: _Tolerance) -> _Comparison:
    """Look for each sure detection of either side among all of the other's."""
    differences = [*_differences(ours, theirs, tolerance), *_differences(theirs, ours, tolerance)]
    matched = [difference for difference in differences if difference is not None]
    return _Comparison(len(differences), len(matched), max(matched, default=0.0))


def _differences(
    wanted: yolo.Detections, among: yolo.Detections, tolerance: _Tolerance
) -> Iterator[float | None]:
    order = np.argsort(-wanted[:, 4])
    for rank, index in enumerate(order):
        detection = wanted[index]
        if detection[4] < (_LEAST if rank < _AT_LEAST else _SURE):
            break
        apart, overlaps = np.abs(among[:, 4] - detection[4]), _overlaps(detection, among)
        near = (apart <= tolerance.confidence) & (overlaps >= tolerance.overlap)
        near &= among[:, 5] == detection[5]
        if detection[4] < _SURE:
            near |= (apart <= _TIE * detection[4]) & (overlaps >= yolo.SUPPRESSED_OVERLAP)
        yield float(apart[near].min()) if near.any() else None


def _overlaps(detection: NDArray[np.float32], others: yolo.Detections) -> NDArray[np.float32]:
    """Return the intersection over union of one box with each of the others."""
    low = np.maximum(detection[:2], others[:, :2])
    high = np.minimum(detection[2:4], others[:, 2:4])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    areas = (others[:, 2:4] - others[:, :2]).prod(axis=1)
    own = (detection[2:4] - detection[:2]).prod()
    return np.asarray(shared / np.maximum(areas + own - shared, 1e-9), dtype=np.float32)


def _judge(onnx: OnnxModel, comparisons: list[_Comparison], min_percent: float) -> VerifiedModel:
    wanted = sum(comparison.wanted for comparison in comparisons)
    matched = sum(comparison.matched for comparison in comparisons)
    percent = 100 * matched / wanted if wanted else 100.0
    if percent < min_percent:
        raise StepError(
            f"the exported model matches {percent:.1f} % of {wanted} detections of its weights on"
            f" {len(comparisons)} test images; export.parity.minMatchPercent is {min_percent:g}",
            hint="Try another export.onnx.opset, simplify: false, or half: false.",
        )
    if wanted == 0:
        _LOG.warning(
            "nothing to compare: neither the weights nor the exported model detect anything surer than %g on"
            " %d test images; the export is well formed, but not proven to be the same",
            _LEAST,
            len(comparisons),
        )
    else:
        _LOG.info("%.1f %% of %d detections on %d test images match", percent, wanted, len(comparisons))
    return VerifiedModel(
        onnx=onnx,
        parity_images=len(comparisons),
        compared=wanted,
        match_percent=round(percent, 2),
        max_difference=max((comparison.max_difference for comparison in comparisons), default=0.0),
    )
