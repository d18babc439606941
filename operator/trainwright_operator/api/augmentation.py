"""`spec.dataset.augmentation`: altered copies of the training images."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainwright import contract
from trainwright.contract.augmentation import MOST_COPIES, MOST_TRANSFORMS
from trainwright_operator.api.section import Rule, Section, built_in_of, one_of

Probability = Annotated[
    float | None, Field(ge=0, le=1, description="How likely it is that a copy is altered so.")
]
_TURN = "By up to so many degrees, either way."


class Flip(Section):
    """Mirrors the image. Not for what has a left and a right, such as writing."""

    built_in = built_in_of(contract.Flip)

    probability: Probability = None
    direction: Literal["Horizontal", "Vertical"] | None = Field(
        default=None, description="Horizontal swaps left and right, Vertical top and bottom."
    )


class BrightnessContrast(Section):
    """Makes the image brighter or darker, and its contrast stronger or weaker."""

    built_in = built_in_of(contract.BrightnessContrast)

    probability: Probability = None
    brightness_percent: float | None = Field(
        default=None, ge=0, le=100, description="By up to so many percent of full brightness."
    )
    contrast_percent: float | None = Field(
        default=None, ge=0, le=100, description="By up to so many percent of the contrast it has."
    )


class Affine(Section):
    """Scales, turns, shears and shifts the image about its middle. What comes in from outside is grey."""

    built_in = built_in_of(contract.Affine)

    probability: Probability = None
    scale_min: float | None = Field(default=None, ge=0.1, le=10, description="Smallest scale: 1 is as it is.")
    scale_max: float | None = Field(default=None, ge=0.1, le=10, description="Largest scale: 1 is as it is.")
    rotate_degrees: float | None = Field(default=None, ge=0, le=180, description=_TURN)
    shear_degrees: float | None = Field(default=None, ge=0, le=60, description=_TURN)
    translate_percent: float | None = Field(
        default=None, ge=0, le=50, description="By up to so many percent of width and height, either way."
    )

    rules = (
        Rule(
            f"(has(self.scaleMin) ? self.scaleMin : {contract.Affine().scale_min})"
            f" <= (has(self.scaleMax) ? self.scaleMax : {contract.Affine().scale_max})",
            "spec.dataset.augmentation.transforms[].affine: scaleMin must not be greater than scaleMax",
        ),
    )


class MotionBlur(Section):
    """Smears the image along a line in any direction, as a moving camera does."""

    built_in = built_in_of(contract.MotionBlur)

    probability: Probability = None
    length_max: int | None = Field(
        default=None, ge=3, le=99, description="The longest line, in pixels; the shortest is 3."
    )


class HueSaturationValue(Section):
    """Shifts the colours. Not for classes that differ by colour alone."""

    built_in = built_in_of(contract.HueSaturationValue)

    probability: Probability = None
    hue_degrees: float | None = Field(
        default=None, ge=0, le=180, description="By up to so many degrees of the colour circle, either way."
    )
    saturation_percent: float | None = Field(
        default=None, ge=0, le=100, description="By up to so many percent of full saturation, either way."
    )
    value_percent: float | None = Field(
        default=None, ge=0, le=100, description="By up to so many percent of full brightness, either way."
    )


class Noise(Section):
    """Adds the noise of a sensor."""

    built_in = built_in_of(contract.Noise)

    probability: Probability = None
    deviation_percent_max: float | None = Field(
        default=None,
        ge=0,
        le=50,
        description="Largest standard deviation, in percent of full brightness.",
    )


_KINDS = ("flip", "brightnessContrast", "affine", "motionBlur", "hueSaturationValue", "noise")


class Transform(Section):
    """One step of an alteration. Set exactly one of its fields; `{}` takes that one's defaults."""

    flip: Flip | None = None
    brightness_contrast: BrightnessContrast | None = None
    affine: Affine | None = None
    motion_blur: MotionBlur | None = None
    hue_saturation_value: HueSaturationValue | None = None
    noise: Noise | None = None

    rules = (
        Rule(
            one_of(*_KINDS),
            f"spec.dataset.augmentation.transforms: each must have exactly one of {', '.join(_KINDS)}",
        ),
    )


class Augmentation(Section):
    """Altered copies of the training images, boxes included. Validation and test images are never altered."""

    built_in = built_in_of(contract.AugmentationSettings)

    copies: int | None = Field(
        default=None,
        ge=0,
        le=MOST_COPIES,
        description="Altered copies of each training image, beside the original: 7 make a set eight times as"
        " large.",
    )
    preset: Literal["standard"] | None = Field(
        default=None,
        description="Which alterations: standard flips, changes brightness, contrast and colours, scales,"
        " turns and shears, and rarely smears.",
    )
    transforms: tuple[Transform, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=MOST_TRANSFORMS,
        description="Alterations in the preset's place, in the order they are made.",
    )
    min_box_pixels: float | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="Boxes that are narrower or lower than this once they are clipped to the image are left"
        " out.",
    )
    min_visible_percent: float | None = Field(
        default=None,
        ge=0,
        le=100,
        description="Boxes of which fewer percent than this are still in the image are left out.",
    )
    seed: int | None = Field(
        default=None, ge=0, le=2**31 - 1, description="The same seed alters the same images alike."
    )
