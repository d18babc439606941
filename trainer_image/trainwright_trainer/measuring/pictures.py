"""Images of a dataset as a model takes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainwright.errors import DataError


def list_images(dataset: Path, split: str, limit: int) -> list[Path]:
    """Return the first images of a split, by name."""
    return sorted((dataset / "images" / split).iterdir())[:limit]


def load_image(path: Path, size: tuple[int, int]) -> NDArray[np.float32]:
    """Return an image as a model takes it: RGB in 0..1, scaled to fit height x width, padded with grey."""
    import cv2  # noqa: PLC0415 - slow to import

    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(f"OpenCV can't decode the test image {path.name}")
    height, width = image.shape[:2]
    scale = min(size[0] / height, size[1] / width)
    fitted = cv2.resize(image, (max(round(width * scale), 1), max(round(height * scale), 1)))
    canvas = np.full((*size, 3), 114, dtype=np.uint8)
    top, left = (size[0] - fitted.shape[0]) // 2, (size[1] - fitted.shape[1]) // 2
    canvas[top : top + fitted.shape[0], left : left + fitted.shape[1]] = fitted
    return np.ascontiguousarray(canvas[:, :, ::-1].transpose(2, 0, 1)).astype(np.float32) / np.float32(255)
