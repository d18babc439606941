"""The alterations: each takes a picture and its boxes, and draws what it does from a generator of its copy.

OpenCV does the work; a picture is what its decoder gives: height x width x 3, blue, green, red, 8 bit.
Boxes are rows of left, top, right, bottom in pixels, and are neither clipped nor dropped here.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from trainwright.contract import (
    Affine,
    BrightnessContrast,
    Flip,
    HueSaturationValue,
    MotionBlur,
    Noise,
)
from trainwright.contract.augmentation import AnyTransform

Pixels = NDArray[np.uint8]
Boxes = NDArray[np.float64]

_GREY = (114, 114, 114)  # the colour Ultralytics pads with: it means nothing to the model
_LEVELS = np.arange(256, dtype=np.float64)
_HUES = 180  # OpenCV counts hues in steps of two degrees


class Picture(NamedTuple):
    """A picture and where its objects are."""

    pixels: Pixels
    boxes: Boxes


def alter(picture: Picture, steps: Sequence[AnyTransform], rng: random.Random) -> Picture:
    """Apply each step as its probability has it; the same generator gives the same picture."""
    for step in steps:
        if rng.random() < step.probability:
            picture = _ALTERATIONS[type(step)](picture, step, rng)
    return picture


def _flip(picture: Picture, step: Flip, _: random.Random) -> Picture:
    height, width = picture.pixels.shape[:2]
    left, top, right, bottom = picture.boxes.T
    if step.direction == "Horizontal":
        boxes = np.stack((width - right, top, width - left, bottom), axis=1)
        return Picture(cv2.flip(picture.pixels, 1), boxes)
    boxes = np.stack((left, height - bottom, right, height - top), axis=1)
    return Picture(cv2.flip(picture.pixels, 0), boxes)


def _brightness_contrast(picture: Picture, step: BrightnessContrast, rng: random.Random) -> Picture:
    shift = 255 * _either_way(rng, step.brightness_percent) / 100
    factor = 1 + _either_way(rng, step.contrast_percent) / 100
    levels = (_LEVELS - 127.5) * factor + 127.5 + shift
    return Picture(cv2.LUT(picture.pixels, _to_levels(levels)), picture.boxes)


def _affine(picture: Picture, step: Affine, rng: random.Random) -> Picture:
    height, width = picture.pixels.shape[:2]
    scale = rng.uniform(step.scale_min, step.scale_max)
    turn = math.radians(_either_way(rng, step.rotate_degrees))
    shear_x, shear_y = (math.tan(math.radians(_either_way(rng, step.shear_degrees))) for _ in "xy")
    shift = [side * _either_way(rng, step.translate_percent) / 100 for side in (width, height)]
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    matrix = scale * rotation @ np.array([[1, shear_x], [shear_y, 1]])
    middle = np.array([width / 2, height / 2])
    offset = middle - matrix @ middle + shift
    # OpenCV counts from the middle of the first pixel, boxes from its corner.
    of_pixels = offset + matrix @ [0.5, 0.5] - 0.5
    pixels = cv2.warpAffine(
        picture.pixels, np.column_stack((matrix, of_pixels)), (width, height), borderValue=_GREY
    )
    return Picture(pixels, _boxes_around(_corners(picture.boxes) @ matrix.T + offset))


def _motion_blur(picture: Picture, step: MotionBlur, rng: random.Random) -> Picture:
    length = rng.randint(3, step.length_max)
    angle = rng.uniform(0, math.pi)
    size = length + 1 - length % 2  # a kernel has a middle
    middle, reach = size // 2, (length - 1) / 2
    across, down = round(reach * math.cos(angle)), round(reach * math.sin(angle))
    kernel = np.zeros((size, size), dtype=np.float32)
    cv2.line(kernel, (middle - across, middle - down), (middle + across, middle + down), 1.0)
    return Picture(cv2.filter2D(picture.pixels, -1, kernel / kernel.sum()), picture.boxes)


def _hue_saturation_value(picture: Picture, step: HueSaturationValue, rng: random.Random) -> Picture:
    hue = round(_either_way(rng, step.hue_degrees) / 2)
    saturation, value = (
        255 * _either_way(rng, percent) / 100 for percent in (step.saturation_percent, step.value_percent)
    )
    hues = ((_LEVELS + hue) % _HUES).astype(np.uint8)
    tables = (hues, _to_levels(_LEVELS + saturation), _to_levels(_LEVELS + value))
    channels = cv2.split(cv2.cvtColor(picture.pixels, cv2.COLOR_BGR2HSV))
    shifted = [cv2.LUT(channel, table) for channel, table in zip(channels, tables, strict=True)]
    return Picture(cv2.cvtColor(cv2.merge(shifted), cv2.COLOR_HSV2BGR), picture.boxes)


def _noise(picture: Picture, step: Noise, rng: random.Random) -> Picture:
    deviation = 255 * rng.uniform(0, step.deviation_percent_max) / 100
    draws = np.random.Generator(np.random.PCG64(rng.getrandbits(64)))
    noise = draws.standard_normal(picture.pixels.shape, dtype=np.float32) * deviation
    return Picture(_to_levels(picture.pixels + noise), picture.boxes)


_ALTERATIONS: dict[type[AnyTransform], Callable[[Picture, Any, random.Random], Picture]] = {
    Flip: _flip,
    BrightnessContrast: _brightness_contrast,
    Affine: _affine,
    MotionBlur: _motion_blur,
    HueSaturationValue: _hue_saturation_value,
    Noise: _noise,
}


def _either_way(rng: random.Random, limit: float) -> float:
    return rng.uniform(-limit, limit)


def _to_levels(values: NDArray[Any]) -> Pixels:
    levels: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return levels


def _corners(boxes: Boxes) -> Boxes:
    left, top, right, bottom = boxes.T
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    return np.stack([np.stack(corner, axis=1) for corner in corners], axis=1)


def _boxes_around(corners: Boxes) -> Boxes:
    return np.concatenate((corners.min(axis=1), corners.max(axis=1)), axis=1)
