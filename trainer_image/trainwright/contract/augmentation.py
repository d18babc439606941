"""`dataset.augmentation` of a plan: altered copies of the training images, and how they are altered."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainwright.contract.words import Contract

MOST_COPIES = 31
MOST_TRANSFORMS = 16

Probability = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[float, Field(ge=0, le=100)]


class Flip(Contract):
    """Mirrors the image."""

    probability: Probability = 0.5
    direction: Literal["Horizontal", "Vertical"] = "Horizontal"


class BrightnessContrast(Contract):
    """Makes the image brighter or darker, and its contrast stronger or weaker, by up to so much."""

    probability: Probability = 0.5
    brightness_percent: Percent = 20
    contrast_percent: Percent = 20


class Affine(Contract):
    """Scales, turns, shears and shifts the image about its middle; what comes in from outside is grey."""

    probability: Probability = 0.5
    scale_min: float = Field(default=0.8, ge=0.1, le=10)
    scale_max: float = Field(default=1.2, ge=0.1, le=10)
    rotate_degrees: float = Field(default=35, ge=0, le=180)
    shear_degrees: float = Field(default=10, ge=0, le=60)
    translate_percent: float = Field(default=0, ge=0, le=50)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.scale_min > self.scale_max:
            raise ValueError(f"scaleMin {self.scale_min:g} is greater than scaleMax {self.scale_max:g}")
        return self


class MotionBlur(Contract):
    """Smears the image along a line of 3 to so many pixels, in any direction."""

    probability: Probability = 0.5
    length_max: int = Field(default=7, ge=3, le=99)


class HueSaturationValue(Contract):
    """Shifts hue, saturation and value, each by up to so much of its range."""

    probability: Probability = 0.5
    hue_degrees: float = Field(default=40, ge=0, le=180)
    saturation_percent: Percent = 12
    value_percent: Percent = 8


class Noise(Contract):
    """Adds the noise of a sensor: normally distributed, of up to this deviation."""

    probability: Probability = 0.5
    deviation_percent_max: float = Field(default=4, ge=0, le=50)


AnyTransform = Flip | BrightnessContrast | Affine | MotionBlur | HueSaturationValue | Noise


class Transform(Contract):
    """One step of an alteration: exactly one member is set."""

    flip: Flip | None = None
    brightness_contrast: BrightnessContrast | None = None
    affine: Affine | None = None
    motion_blur: MotionBlur | None = None
    hue_saturation_value: HueSaturationValue | None = None
    noise: Noise | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(value is not None for _, value in self) != 1:
            names = ", ".join(str(field.alias) for field in type(self).model_fields.values())
            raise ValueError(f"set exactly one of {names}")
        return self

    @property
    def chosen(self) -> AnyTransform:
        """The member that is set."""
        transform: AnyTransform = next(value for _, value in self if value is not None)
        return transform


PRESETS = {
    "standard": (
        Transform(flip=Flip(probability=0.6)),
        Transform(brightness_contrast=BrightnessContrast(probability=0.4)),
        Transform(affine=Affine(probability=0.8)),
        Transform(motion_blur=MotionBlur(probability=0.1)),
        Transform(hue_saturation_value=HueSaturationValue(probability=0.4)),
    ),
}
"""Lists of transforms that have a name."""


class AugmentationSettings(Contract):
    """How many altered copies are made of each training image, and how; `transforms` replace the preset."""

    copies: int = Field(default=0, ge=0, le=MOST_COPIES)
    preset: Literal["standard"] = "standard"
    transforms: Annotated[tuple[Transform, ...], Field(max_length=MOST_TRANSFORMS)] = ()
    min_box_pixels: float = Field(default=2, ge=0, le=1000)
    min_visible_percent: Percent = 10
    seed: int = Field(default=0, ge=0)

    @property
    def steps(self) -> tuple[AnyTransform, ...]:
        """The transforms, in the order they are applied."""
        return tuple(transform.chosen for transform in self.transforms or PRESETS[self.preset])
