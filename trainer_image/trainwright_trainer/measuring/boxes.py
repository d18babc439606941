"""Boxes of x1, y1, x2, y2 in rows, and how much of them overlaps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float32]

SAME_THING = 0.5
"""Boxes that overlap by this much, of their union, are taken to mean the same thing."""


def overlaps(boxes: Boxes, others: Boxes) -> NDArray[np.float32]:
    """Return the intersection over union of each box with each of the others."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:4], others[None, :, 2:4])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    unions = _areas(boxes)[:, None] + _areas(others)[None] - shared
    return np.asarray(shared / np.maximum(unions, 1e-9), dtype=np.float32)


def _areas(boxes: Boxes) -> Any:
    return (boxes[:, 2:4] - boxes[:, :2]).prod(axis=1)
