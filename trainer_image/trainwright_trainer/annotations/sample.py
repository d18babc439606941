"""The built-in source: images of coloured shapes, the same for the same seed and index on every machine."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw

from trainwright.contract import ClassMap, SampleSource
from trainwright_trainer.annotations.images import check_image
from trainwright_trainer.annotations.items import Item, Rules

CLASS_NAMES = ("circle", "square", "triangle")

_MAX_SHAPES = 3
_PLACING_TRIES = 30
_SUPERSAMPLING = 4  # shapes are drawn larger and scaled down, so that their edges are smooth


@dataclass(frozen=True)
class Shape:
    """One shape: its class and its box in parts of the image."""

    class_id: int
    x: float
    y: float
    size: float

    def to_line(self) -> str:
        """Return the YOLO label line."""
        return f"{self.class_id} {self.x:.6f} {self.y:.6f} {self.size:.6f} {self.size:.6f}"

    def overlaps(self, other: Shape) -> bool:
        """Return whether the boxes touch."""
        reach = (self.size + other.size) / 2
        return abs(self.x - other.x) < reach and abs(self.y - other.y) < reach


@dataclass(frozen=True)
class SampleImage:
    """A drawn image with its shapes."""

    name: str
    png: bytes
    shapes: tuple[Shape, ...]


@dataclass(frozen=True)
class SampleCandidate:
    """An image of a sample source that has not been drawn yet."""

    source: SampleSource
    index: int

    @property
    def name(self) -> str:
        """What the image is called."""
        return _name_of(self.source.seed, self.index)

    @property
    def stamp(self) -> str:
        """What the image depends on besides its name."""
        return f"{self.source.image_size} px"

    def read(self, rules: Rules) -> Item:
        """Draw the image; its label obeys every rule."""
        drawn = draw_sample(self.source.seed, self.index, self.source.image_size)
        return Item(
            name=drawn.name,
            suffix=".png",
            media=drawn.name,  # every drawing is a scene of its own
            image=check_image(drawn.png),
            label="".join(shape.to_line() + "\n" for shape in drawn.shapes),
        )


@dataclass(frozen=True)
class DrawnSource:
    """A sample source, opened."""

    source: SampleSource

    @property
    def classes(self) -> ClassMap:
        """Every shape is a class."""
        return ClassMap.of_names(CLASS_NAMES)

    @property
    def stamp(self) -> str:
        """What every image depends on."""
        return self.source.model_dump_json()

    def candidates(self, scratch: Path) -> Iterator[SampleCandidate]:
        """Yield the images in the order of their index; nothing is kept."""
        return (SampleCandidate(self.source, index) for index in range(self.source.images))


def draw_sample(seed: int, index: int, image_size: int) -> SampleImage:
    """Return image `index` of `seed`: it depends on nothing else, so that disjoint indexes share no image."""
    rng = random.Random(f"{seed}/{index}")  # noqa: S311 - reproducible drawing, not a secret
    shapes = _place_shapes(rng)
    background = tuple(rng.randrange(0, 256) for _ in range(3))
    large = Image.new("RGB", (image_size * _SUPERSAMPLING,) * 2, background)
    draw = ImageDraw.Draw(large)
    for shape in shapes:
        _draw_shape(draw, shape, large.width, _contrasting_colour(rng, background))
    file = BytesIO()
    large.resize((image_size, image_size), Image.Resampling.BOX).save(file, format="PNG")
    return SampleImage(name=_name_of(seed, index), png=file.getvalue(), shapes=shapes)


def _name_of(seed: int, index: int) -> str:
    return f"sample-{seed}-{index:06d}"


def _place_shapes(rng: random.Random) -> tuple[Shape, ...]:
    shapes: list[Shape] = []
    wanted = rng.randint(1, _MAX_SHAPES)
    for _ in range(_PLACING_TRIES):
        size = rng.uniform(0.22, 0.45)
        shape = Shape(
            class_id=rng.randrange(len(CLASS_NAMES)),
            x=rng.uniform(size / 2, 1 - size / 2),
            y=rng.uniform(size / 2, 1 - size / 2),
            size=size,
        )
        if not any(shape.overlaps(other) for other in shapes):
            shapes.append(shape)
        if len(shapes) == wanted:
            break
    return tuple(shapes)


def _contrasting_colour(rng: random.Random, background: tuple[int, ...]) -> tuple[int, ...]:
    while True:
        colour = tuple(rng.randrange(0, 256) for _ in range(3))
        if math.dist(colour, background) > 120:
            return colour


def _draw_shape(draw: ImageDraw.ImageDraw, shape: Shape, width: int, colour: tuple[int, ...]) -> None:
    left, top = (shape.x - shape.size / 2) * width, (shape.y - shape.size / 2) * width
    right, bottom = left + shape.size * width, top + shape.size * width
    match CLASS_NAMES[shape.class_id]:
        case "circle":
            draw.ellipse((left, top, right, bottom), fill=colour)
        case "square":
            draw.rectangle((left, top, right, bottom), fill=colour)
        case "triangle":
            draw.polygon(((left, bottom), (right, bottom), ((left + right) / 2, top)), fill=colour)
