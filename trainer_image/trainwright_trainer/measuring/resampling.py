"""How sure a difference of two models is: the images of a split, drawn anew a thousand times.

Each drawing weighs the images; what a model reaches under all the weights is a few products of matrices. So
that they stay small, images are dealt into at most `_BLOCKS` blocks, which are drawn as wholes, and a class's
detections, the surest first, into at most `_BINS` bins. With fewer of either nothing is rounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from trainwright_trainer.measuring.results import ImageResult, Validation

RESAMPLES = 1000
_SEED = 0
_BLOCKS = 1000
_BINS = 256
_AT_ONCE = 100  # drawings: their arrays stay within a few megabytes

Weights = NDArray[np.float32]
"""A row for each drawing: how often each block is in it."""


def draw_blocks(images: int, resamples: int = RESAMPLES) -> tuple[NDArray[np.intp], Weights]:
    """Return the block of each image, and how often each block is in each drawing; always the same ones."""
    random = np.random.default_rng(_SEED)
    blocks = min(images, _BLOCKS)
    weights = random.multinomial(blocks, np.full(blocks, 1 / blocks), size=resamples)
    return random.permutation(images) % blocks, weights.astype(np.float32)


def resample(
    result: Validation, classes: Sequence[int], metric: str, blocks: NDArray[np.intp], weights: Weights
) -> NDArray[np.float64]:
    """Return the metric's mean over the classes for each drawing; a class absent from it does not count."""
    table = _Table(result.images, blocks)
    values = np.stack([_MEASURES[metric](table, class_id, result.threshold, weights) for class_id in classes])
    present = ~np.isnan(values)
    total = np.where(present, values, 0).sum(axis=0)
    return np.asarray(total / np.maximum(present.sum(axis=0), 1), dtype=np.float64)


class _Table:
    """All detections of a split, class by class, the surest first, with the block each is in."""

    def __init__(self, images: Sequence[ImageResult], blocks: NDArray[np.intp]) -> None:
        detections = np.concatenate([image.detections for image in images])
        matches = np.concatenate([image.matches for image in images])
        found_in = np.repeat(blocks, [len(image.detections) for image in images])
        order = np.lexsort((-detections[:, 4], detections[:, 5]))
        self._classes = detections[order, 5]
        self._sureness, self._matches, self._found_in = detections[order, 4], matches[order], found_in[order]
        self._labels = np.concatenate([image.labels[:, 4] for image in images])
        self._labelled_in = np.repeat(blocks, [len(image.labels) for image in images])
        self._blocks = int(blocks.max()) + 1

    def of_class(self, class_id: int) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.intp]]:
        """Return confidence, matches and block of each detection of a class."""
        start, end = np.searchsorted(self._classes, (class_id, class_id + 0.5))
        return self._sureness[start:end], self._matches[start:end], self._found_in[start:end]

    def labels_of(self, class_id: int) -> NDArray[np.float32]:
        """Return how many boxes of a class each block has."""
        return self.count(self._labelled_in[self._labels == class_id])

    def count(self, blocks: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return how often each block occurs."""
        return np.bincount(blocks, minlength=self._blocks).astype(np.float32)


def _average_precision(table: _Table, class_id: int, weights: Weights, overlap_count: int) -> Weights:
    """Return the area below the curve of precision over recall, as a mean over the overlaps."""
    _, matches, found_in = table.of_class(class_id)
    right = np.flatnonzero(matches[:, 0])
    labels = weights @ table.labels_of(class_id)
    if not right.size:
        return np.where(labels > 0, 0, np.nan)
    last = int(right[-1]) + 1  # what is less sure than the last right one changes nothing
    bins = min(last, _BINS)
    bin_of = np.arange(last) * bins // last
    matched = np.zeros((weights.shape[1], overlap_count, bins), dtype=np.float32)
    found = np.zeros((weights.shape[1], bins), dtype=np.float32)
    for overlap in range(overlap_count):
        np.add.at(matched[:, overlap], (found_in[:last], bin_of), matches[:last, overlap])
    np.add.at(found, (found_in[:last], bin_of), 1)
    areas = [
        _areas(part, matched, found, labels[start : start + _AT_ONCE])
        for start in range(0, len(weights), _AT_ONCE)
        for part in [weights[start : start + _AT_ONCE]]
    ]
    return np.where(labels > 0, np.concatenate(areas), np.nan)


def _areas(weights: Weights, matched: Weights, found: Weights, labels: Weights) -> Weights:
    blocks, overlap_count, bins = matched.shape
    gained = (weights @ matched.reshape(blocks, -1)).reshape(-1, overlap_count, bins)
    precision = gained.cumsum(axis=2) / np.maximum((weights @ found).cumsum(axis=1), 1)[:, None]
    best_from_here = np.maximum.accumulate(precision[:, :, ::-1], axis=2)[:, :, ::-1]
    area = np.einsum("rob,rob->r", gained, best_from_here) / overlap_count
    return np.asarray(area / np.maximum(labels, 1))


def _map50(table: _Table, class_id: int, threshold: float, weights: Weights) -> Weights:
    return _average_precision(table, class_id, weights, 1)


def _map50to95(table: _Table, class_id: int, threshold: float, weights: Weights) -> Weights:
    return _average_precision(table, class_id, weights, 10)


def _precision(table: _Table, class_id: int, threshold: float, weights: Weights) -> Weights:
    right, found, labels = _counts(table, class_id, threshold, weights)
    return np.where(labels > 0, right / np.maximum(found, 1), np.nan)


def _recall(table: _Table, class_id: int, threshold: float, weights: Weights) -> Weights:
    right, _, labels = _counts(table, class_id, threshold, weights)
    return np.where(labels > 0, right / np.maximum(labels, 1), np.nan)


def _counts(
    table: _Table, class_id: int, threshold: float, weights: Weights
) -> tuple[Weights, Weights, Weights]:
    """Return the right, the found and the labelled boxes of a class for each drawing."""
    sureness, matches, found_in = table.of_class(class_id)
    sure = sureness >= threshold
    right = table.count(found_in[sure & matches[:, 0]])
    return weights @ right, weights @ table.count(found_in[sure]), weights @ table.labels_of(class_id)


_MEASURES = {"mAP50": _map50, "mAP50to95": _map50to95, "precision": _precision, "recall": _recall}
"""How the gate's metrics are measured anew."""


def drop_interval(
    ours: Validation, parents: Validation, classes: Sequence[int], metric: str
) -> tuple[float, float]:
    """Return between what the drop from the parent lies with 95 % confidence, on the same images."""
    blocks, weights = draw_blocks(len(ours.images))
    by_name: Mapping[str, ImageResult] = {image.name: image for image in parents.images}
    aligned = replace(parents, images=[by_name[image.name] for image in ours.images])
    drops = resample(aligned, classes, metric, blocks, weights)
    drops -= resample(ours, classes, metric, blocks, weights)
    low, high = np.percentile(drops, (2.5, 97.5))
    return float(low), float(high)
