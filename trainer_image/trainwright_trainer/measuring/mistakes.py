"""What goes wrong: which classes are taken for which, and the images with the most missed and false boxes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from heapq import nlargest

import numpy as np
from numpy.typing import NDArray

from trainwright.contract import ConfusedPair, ErrorBox, ImageErrors
from trainwright.contract.evaluation import BOXES_OF_AN_IMAGE, MOST_PAIRS, WORST_IMAGES
from trainwright_trainer.measuring.boxes import SAME_THING, overlaps
from trainwright_trainer.measuring.results import ImageResult

Names = Sequence[str]


def find_mistakes(
    images: Iterable[ImageResult], threshold: float, names: Names
) -> tuple[tuple[ConfusedPair, ...], tuple[ImageErrors, ...]]:
    """Return how often each class was found as which, and the worst images, counted from a confidence on."""
    counts: Counter[tuple[int | None, int | None]] = Counter()
    mistaken: list[tuple[int, float, ImageResult]] = []
    for image in images:
        pairs = _pair(image, threshold)
        wrong = [(label, found) for label, found in pairs if not _is_right(image, label, found)]
        counts.update(_classes_of(image, label, found) for label, found in pairs)
        if wrong:
            sureness = sum(float(image.detections[found, 4]) for _, found in wrong if found is not None)
            mistaken.append((len(wrong), sureness, image))
    worst = nlargest(WORST_IMAGES, mistaken, key=lambda entry: entry[:2])
    confusion = tuple(
        ConfusedPair(label=_name(label, names), found=_name(found, names), count=count)
        for (label, found), count in counts.most_common(MOST_PAIRS)
    )
    return confusion, tuple(_describe(image, threshold, names) for _, _, image in worst)


def _pair(image: ImageResult, threshold: float) -> list[tuple[int | None, int | None]]:
    """Give each label its detection, one of its class before others, then by overlap; None where none is."""
    sure = np.flatnonzero(image.detections[:, 4] >= threshold)
    shared = overlaps(image.labels, image.detections[sure])
    same = image.labels[:, None, 4] == image.detections[None, sure, 5]
    candidates = np.argwhere(shared >= SAME_THING)
    order = np.argsort(-(shared + same)[tuple(candidates.T)], kind="stable")
    label_of: dict[int, int] = {}
    for label, position in candidates[order].tolist():
        found = int(sure[position])
        if label not in label_of.values() and found not in label_of:
            label_of[found] = label
    missed = set(range(len(image.labels))) - set(label_of.values())
    return [
        *((label_of.get(found), found) for found in sure.tolist()),
        *((label, None) for label in sorted(missed)),
    ]


def _classes_of(image: ImageResult, label: int | None, found: int | None) -> tuple[int | None, int | None]:
    return (
        None if label is None else int(image.labels[label, 4]),
        None if found is None else int(image.detections[found, 5]),
    )


def _is_right(image: ImageResult, label: int | None, found: int | None) -> bool:
    ours, theirs = _classes_of(image, label, found)
    return ours is not None and ours == theirs


def _describe(image: ImageResult, threshold: float, names: Names) -> ImageErrors:
    wrong = [pair for pair in _pair(image, threshold) if not _is_right(image, *pair)]
    missed = [image.labels[label] for label, _ in wrong if label is not None]
    false = [image.detections[found] for _, found in wrong if found is not None]
    return ImageErrors(
        image=image.name,
        width=image.width,
        height=image.height,
        missed_count=len(missed),
        false_count=len(false),
        missed=tuple(_box(row, names[int(row[4])]) for row in missed[:BOXES_OF_AN_IMAGE]),
        false=tuple(_box(row, names[int(row[5])], row[4]) for row in false[:BOXES_OF_AN_IMAGE]),
    )


def _box(row: NDArray[np.float32], name: str, confidence: float | None = None) -> ErrorBox:
    left, top, right, bottom = (round(float(value), 1) for value in row[:4])
    sureness = None if confidence is None else round(float(confidence), 4)
    return ErrorBox(name=name, box=(left, top, right, bottom), confidence=sureness)


def _name(class_id: int | None, names: Names) -> str | None:
    return None if class_id is None else names[class_id]
