"""Verification: the exported model, run by another engine, detects what its weights detect."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainwright.artifacts import Dataset, OnnxModel, Parity, VerifiedModel, Weights
from trainwright.contract import OnnxSettings, RunPlan
from trainwright.errors import StepError
from trainwright_trainer import yolo
from trainwright_trainer.formats import FURTHER, Run, open_onnx
from trainwright_trainer.measuring.boxes import overlaps
from trainwright_trainer.measuring.pictures import list_images, load_image
from trainwright_trainer.places import Places
from trainwright_trainer.watching import Watcher

_LOG = logging.getLogger(__name__)
_SURE = 0.25  # detections above this confidence must be found by both
_AT_LEAST = 5  # but at least this many of each image, so that an unsure model is compared too
_LEAST = 1.2 * yolo.CONFIDENCE  # if they are surer than this: the other may have dropped one at the threshold
# Unsure detections that overlap tie if their confidences differ by no more than this share: either may be
# kept then, as either class.
_TIE = 0.01


@dataclass(frozen=True)
class _Tolerance:
    """How near two detections of the same class must be."""

    overlap: float
    confidence: float


_SMALL = 128  # an end-to-end head has not enough places for its detections on smaller images
_FULL, _HALF = _Tolerance(0.9, 0.02), _Tolerance(0.8, 0.05)


@dataclass(frozen=True)
class _Comparison:
    """How many of the detections had a match, and the largest difference of a matched confidence."""

    wanted: int
    matched: int
    max_difference: float


@dataclass(frozen=True)
class _Trial:
    """Images that are given to a model in one call, scaled to one height and width."""

    paths: tuple[Path, ...]
    size: tuple[int, int]

    def load(self) -> NDArray[np.float32]:
        return np.stack([load_image(path, self.size) for path in self.paths])


def verify_model(  # noqa: PLR0913, PLR0917 - everything the proof is about
    onnx: OnnxModel, weights: Weights, dataset: Dataset, plan: RunPlan, places: Places, watcher: Watcher
) -> VerifiedModel:
    """Compare each format with the weights on images of the test split; too few matches are an error."""
    yolo.prepare(places.workspace / "ultralytics")
    images = list_images(places.workspace / dataset.folder, "test", plan.export.parity.images)
    trials = _plan_trials(images, plan.export.onnx, plan.export_image_size)
    model = yolo.Model(places.workspace / weights.path)
    reference = model.detector(end_to_end=onnx.end_to_end)
    engines = _open_engines(onnx, places.workspace)
    tolerance = _HALF if plan.export.onnx.half else _FULL
    comparisons: dict[str, list[_Comparison]] = {name: [] for name in engines}
    for done, trial in enumerate(trials, start=1):
        batch = trial.load()
        wanted = reference(batch)
        for name, run in engines.items():
            found = yolo.suppress(run(batch), end_to_end=plan.export.onnx.nms)
            pairs = zip(wanted, found, strict=True)
            comparisons[name] += [_compare(ours, theirs, tolerance) for ours, theirs in pairs]
        watcher.advance(done / len(trials))
    least = plan.export.parity.min_match_percent
    return VerifiedModel(
        onnx=onnx,
        parity_images=len({path for trial in trials for path in trial.paths}),
        batch_sizes=tuple(sorted({len(trial.paths) for trial in trials})),
        image_sizes=tuple(sorted({trial.size for trial in trials})),
        parities=tuple(_judge(name, found, least) for name, found in comparisons.items()),
    )


def _plan_trials(images: list[Path], settings: OnnxSettings, image_size: int) -> list[_Trial]:
    """Give every image at least once: in batches of one, three and the most, and other sizes if allowed."""
    most = settings.max_batch
    batches = sorted({1, min(3, most), most}) if settings.dynamic_batch else [most]
    sizes = [(image_size, image_size)]
    if settings.dynamic_image_size:
        half = image_size // 64 * 32
        other = half if half >= _SMALL else image_size + 64
        sizes += [(other, other), (other, image_size)]
    given, batch_sizes = cycle(images), cycle(batches)
    trials: list[_Trial] = []
    left = len(images)
    while left > 0 or len(trials) < len(batches):
        batch = next(batch_sizes)
        trials.append(_Trial(tuple(islice(given, batch)), sizes[0]))
        left -= batch
    return trials + [_Trial(tuple(islice(given, most)), size) for size in sizes[1:]]


def _open_engines(onnx: OnnxModel, workspace: Path) -> dict[str, Run]:
    engines: dict[str, Run] = {"onnxruntime": open_onnx(workspace / onnx.path)}
    for made in onnx.further:
        engines[made.format] = FURTHER[made.format].open(workspace / made.folder)
    return engines


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
        apart, shared = np.abs(among[:, 4] - detection[4]), overlaps(detection[None], among)[0]
        near = (apart <= tolerance.confidence) & (shared >= tolerance.overlap)
        near &= among[:, 5] == detection[5]
        if detection[4] < _SURE:
            near |= (apart <= _TIE * detection[4]) & (shared >= yolo.SUPPRESSED_OVERLAP)
        yield float(apart[near].min()) if near.any() else None


def _judge(engine: str, comparisons: list[_Comparison], min_percent: float) -> Parity:
    wanted = sum(comparison.wanted for comparison in comparisons)
    matched = sum(comparison.matched for comparison in comparisons)
    percent = 100 * matched / wanted if wanted else 100.0
    if percent < min_percent:
        raise StepError(
            f"the exported model, run by {engine}, matches {percent:.1f} % of {wanted} detections of its"
            f" weights on {len(comparisons)} test images; export.parity.minMatchPercent is {min_percent:g}",
            hint="Try another export.onnx.opset, simplify: false, or half: false.",
        )
    if wanted == 0:
        _LOG.warning(
            "nothing to compare: neither the weights nor the exported model, run by %s, detect anything surer"
            " than %g on %d test images; the export is well formed, but not proven to be the same",
            engine,
            _LEAST,
            len(comparisons),
        )
    else:
        _LOG.info(
            "%s: %.1f %% of %d detections on %d test images match", engine, percent, wanted, len(comparisons)
        )
    return Parity(
        engine=engine,
        compared=wanted,
        match_percent=round(percent, 2),
        max_difference=max((comparison.max_difference for comparison in comparisons), default=0.0),
    )
