"""Boxes of a label: read from its lines, held to the picture after an alteration, and written again."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainwright.contract import AugmentationSettings
from trainwright_trainer.augmentation.transforms import Boxes


class Label(NamedTuple):
    """The boxes of a picture in pixels, and the class of each."""

    classes: NDArray[np.int64]
    boxes: Boxes

    def counts(self) -> dict[str, int]:
        """Return how many boxes each class has that has any."""
        ids, numbers = np.unique(self.classes, return_counts=True)
        return {str(class_id): count for class_id, count in zip(ids.tolist(), numbers.tolist(), strict=True)}


def parse_label(text: str, width: int, height: int) -> Label:
    """Return the boxes of `class x y width height` lines that were checked before."""
    rows = [line.split() for line in text.splitlines()]
    parts = np.array([[float(value) for value in row[1:]] for row in rows]).reshape(-1, 4)
    middles, halves = parts[:, :2], parts[:, 2:] / 2
    boxes = np.concatenate((middles - halves, middles + halves), axis=1) * (width, height, width, height)
    return Label(np.array([int(row[0]) for row in rows], dtype=np.int64), boxes)


def hold_inside(label: Label, width: int, height: int, settings: AugmentationSettings) -> Label:
    """Clip boxes to the picture; leave out those of which too little is left."""
    limits = (width, height, width, height)
    clipped = label.boxes.clip(0, limits)
    sides = clipped[:, 2:] - clipped[:, :2]
    whole = np.prod(label.boxes[:, 2:] - label.boxes[:, :2], axis=1)
    visible = np.prod(sides, axis=1) >= whole * settings.min_visible_percent / 100
    kept = visible & (sides > 0).all(axis=1) & (sides >= settings.min_box_pixels).all(axis=1)
    return Label(label.classes[kept], clipped[kept])


def write_label(label: Label, width: int, height: int) -> str:
    """Return the lines of a label."""
    boxes = label.boxes / (width, height, width, height)
    middles, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    rows = np.concatenate((middles, sides), axis=1).clip(0, 1)
    return "".join(
        f"{class_id} " + " ".join(f"{value:.6f}" for value in row) + "\n"
        for class_id, row in zip(label.classes.tolist(), rows.tolist(), strict=True)
    )
