"""Altered copies: the same for the same image and settings, with boxes where the objects went."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from trainwright.contract import AugmentationSettings
from trainwright_trainer.augmentation.boxes import hold_inside, parse_label, write_label
from trainwright_trainer.augmentation.transforms import Picture, alter

WIDTH, HEIGHT = 160, 120


def _settings(*transforms: dict[str, Any], **fields: Any) -> AugmentationSettings:
    return AugmentationSettings.model_validate({"transforms": transforms, "copies": 3, **fields})


def _always(kind: str, **fields: Any) -> dict[str, Any]:
    return {kind: {"probability": 1, **fields}}


def _one_bright_box() -> Picture:
    """A dark picture with one bright rectangle: where it is can be seen in the pixels."""
    pixels = np.full((HEIGHT, WIDTH, 3), 10, dtype=np.uint8)
    pixels[30:60, 90:130] = (40, 200, 250)
    return Picture(pixels, np.array([[90.0, 30, 130, 60]]))


def _box_in_pixels(picture: Picture) -> list[float]:
    """Return the box around what is bright."""
    rows, columns = np.nonzero(picture.pixels[:, :, 2] > 180)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


MOVING = [
    _always("flip"),
    _always("flip", direction="Vertical"),
    _always("affine", rotateDegrees=0, shearDegrees=0),
    _always("affine", scaleMin=1, scaleMax=1, rotateDegrees=0, shearDegrees=0, translatePercent=15),
    _always("affine"),
]


@pytest.mark.parametrize("transform", MOVING, ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_a_box_goes_where_its_object_goes(transform: dict[str, Any], seed: int) -> None:
    altered = alter(_one_bright_box(), _settings(transform).steps, random.Random(seed))
    # Half bright pixels at the edges are not counted as the object.
    np.testing.assert_allclose(altered.boxes[0], _box_in_pixels(altered), atol=2.5)


@pytest.mark.parametrize("kind", ["brightnessContrast", "motionBlur", "hueSaturationValue", "noise"])
def test_what_changes_only_colours_leaves_boxes_alone(kind: str) -> None:
    before = _one_bright_box()
    after = alter(before, _settings(_always(kind)).steps, random.Random(4))
    assert (after.boxes == before.boxes).all()
    assert after.pixels.shape == before.pixels.shape
    assert after.pixels.dtype == np.uint8
    assert (after.pixels != before.pixels).any()


def test_colours_change_by_no_more_than_they_may() -> None:
    before = _one_bright_box()
    step = _always("brightnessContrast", brightnessPercent=10, contrastPercent=0)
    for seed in range(20):
        after = alter(before, _settings(step).steps, random.Random(seed))
        assert abs(after.pixels.astype(int) - before.pixels).max() <= 26


def test_motion_blur_keeps_the_brightness_of_a_picture() -> None:
    flat = Picture(np.full((40, 40, 3), 90, dtype=np.uint8), np.zeros((0, 4)))
    for seed in range(20):
        assert (
            alter(flat, _settings(_always("motionBlur", lengthMax=31)).steps, random.Random(seed)).pixels
            == 90
        ).all()


def test_a_probability_is_how_often_a_step_is_taken() -> None:
    picture, rng = _one_bright_box(), random.Random(1)
    steps = _settings({"flip": {"probability": 0.3}}).steps
    flipped = sum(alter(picture, steps, rng).boxes[0][0] != 90 for _ in range(2000))
    assert 520 < flipped < 680
    assert alter(picture, _settings({"flip": {"probability": 0}}).steps, rng) is picture


def test_boxes_are_clipped_and_left_out_when_little_remains() -> None:
    text = "0 0.5 0.5 0.5 0.5\n1 0.0 0.5 0.2 0.2\n2 0.999 0.5 0.1 0.1\n3 0.5 0.5 0.001 0.4\n"
    label = parse_label(text, 100, 100)
    label = label._replace(boxes=label.boxes + np.array([[0.0], [0], [4.6], [0]]))
    held = hold_inside(label, 100, 100, AugmentationSettings())
    assert held.counts() == {"0": 1, "1": 1}
    assert write_label(held, 100, 100) == (
        "0 0.500000 0.500000 0.500000 0.500000\n1 0.050000 0.500000 0.100000 0.200000\n"
    )
    strict = hold_inside(label, 100, 100, AugmentationSettings(min_visible_percent=60))
    assert strict.counts() == {"0": 1}


def test_a_label_without_boxes_stays_without() -> None:
    label = parse_label("", 100, 100)
    steps = AugmentationSettings().steps
    pixels = np.zeros((100, 100, 3), dtype=np.uint8)
    altered = [alter(Picture(pixels, label.boxes), steps, random.Random(seed)) for seed in range(9)]
    assert all(picture.boxes.shape == (0, 4) for picture in altered)
    assert write_label(hold_inside(label, 100, 100, AugmentationSettings()), 100, 100) == ""


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"copies": 32}, "copies"),
        ({"preset": "strong"}, "preset"),
        ({"transforms": [{"flip": {}, "noise": {}}]}, "exactly one of flip, brightnessContrast"),
        ({"transforms": [{}]}, "exactly one of"),
        ({"transforms": [{"flip": {"probability": 1.1}}]}, "probability"),
        ({"transforms": [{"affine": {"scaleMin": 1.5}}]}, "scaleMin 1.5 is greater than scaleMax 1.2"),
        ({"transforms": [{"blur": {}}]}, "blur"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AugmentationSettings.model_validate(section)
