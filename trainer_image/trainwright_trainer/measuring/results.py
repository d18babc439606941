"""What a model found on a split, and what that is worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ImageResult:
    """One image of a split: what is on it, what was found, and which of it is right.

    `detections` are rows of a box, confidence and class, `labels` of a box and class, in pixels of the image.
    `matches` says for each detection whether it is right at overlaps of 0.5, 0.55 … 0.95.
    """

    name: str
    width: int
    height: int
    detections: NDArray[np.float32]
    labels: NDArray[np.float32]
    matches: NDArray[np.bool_]


@dataclass(frozen=True)
class ClassFigures:
    """One class on a split: `values` are by the metrics' names, `curve` is precision over recall."""

    images: int
    boxes: int
    values: dict[str, float]
    curve: tuple[float, ...]


@dataclass(frozen=True)
class Validation:
    """What a model reaches on one split; precision and recall are those at `threshold`, where F1 is best."""

    metrics: dict[str, float]
    classes: dict[int, ClassFigures]
    threshold: float
    f1: float
    images: list[ImageResult]
