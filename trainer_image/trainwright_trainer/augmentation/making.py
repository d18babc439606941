"""Making the altered copies of one image: what a worker does, and all that decides what comes out of it.

What is drawn depends on the image's bytes, the settings and the number of the copy, and on nothing else: not
on names or order, nor on how many processes work, nor on how many copies there are.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np

from trainwright.contract import AugmentationSettings
from trainwright_trainer.annotations.readings import ObjectStore
from trainwright_trainer.augmentation.boxes import hold_inside, parse_label, write_label
from trainwright_trainer.augmentation.transforms import Picture, Pixels, alter
from trainwright_trainer.workers import Answer

_FORMAT = 1  # raised when the same settings come to give other bytes
_VERSIONS = (_FORMAT, version("opencv-python-headless"), version("numpy"))
_JPEG_SUFFIXES = frozenset({".jpg", ".jpeg"})
_JPEG_QUALITY = 95


@dataclass(frozen=True)
class Copy:
    """An altered copy whose image is in the store; with a `problem` there is none."""

    number: int
    problem: str = ""
    image: str = ""  # SHA-256, in hex
    image_size: int = 0
    image_time: int = 0  # of the file in the store
    suffix: str = ""
    label: str = ""
    boxes: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` takes."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Return the copy that another process made."""
        return cls(**fields)


@dataclass(frozen=True)
class Original:
    """An image of the training split in the store, and the numbers of the copies to make of it."""

    key: str
    name: str
    image: str  # SHA-256, in hex
    suffix: str
    label: str
    numbers: tuple[int, ...]

    def answer(self, copies: Sequence[Copy]) -> Answer:
        """Return the answer of a worker about this image."""
        return {"key": self.key, "name": self.name, "copies": [copy.to_json() for copy in copies]}


@dataclass(frozen=True)
class CopyTask:
    """The task of a worker: make the copies of one image and keep them in the store."""

    settings: AugmentationSettings
    objects: Path

    def carry_out(self, original: Original) -> Answer:
        """Return the copies; one that fails does not keep the others from being made."""
        cv2.setNumThreads(1)  # there is a worker for every CPU
        source = _Source(original, self.settings, ObjectStore(self.objects))
        return original.answer([source.copy(number) for number in original.numbers])

    def tell_crash(self, original: Original, what: str) -> Answer:
        """Return the answer for an image that ended its worker."""
        problem = f"altering it ended the process: {what}"
        return original.answer([Copy(number, problem) for number in original.numbers])


def describe_making(settings: AugmentationSettings) -> str:
    """Return all that a copy depends on besides its original: settings and versions, as a text."""
    how = settings.model_dump(mode="json", exclude={"copies", "preset", "transforms"})
    how["steps"] = [[type(step).__name__, step.model_dump(mode="json")] for step in settings.steps]
    return json.dumps([_VERSIONS, how], sort_keys=True)


class _Source:
    """An original, decoded when the first copy is made of it."""

    def __init__(self, original: Original, settings: AugmentationSettings, store: ObjectStore) -> None:
        self._original = original
        self._settings = settings
        self._store = store
        self._seed = settings.seed
        self._suffix = ".jpg" if original.suffix in _JPEG_SUFFIXES else ".png"  # a PNG loses nothing

    @cached_property
    def _pixels(self) -> Pixels:
        data = np.frombuffer(self._store.path_of(self._original.image).read_bytes(), dtype=np.uint8)
        pixels: Pixels | None = cv2.imdecode(data, cv2.IMREAD_COLOR)  # as Ultralytics reads it
        if pixels is None:
            raise ValueError("OpenCV can't decode the image")
        return np.asarray(pixels, dtype=np.uint8)

    def copy(self, number: int) -> Copy:
        """Return a copy that is in the store, or what kept it from being made."""
        rng = random.Random(f"{self._seed} {self._original.image} {number}")  # noqa: S311 - drawing
        try:
            data, label, boxes = self._alter(rng)
        except (cv2.error, ValueError, ArithmeticError, MemoryError) as error:
            return Copy(number, f"{type(error).__name__}: {error}"[:500])
        image, time = self._store.keep(data)
        return Copy(number, "", image, len(data), time, self._suffix, label, boxes)

    def _alter(self, rng: random.Random) -> tuple[bytes, str, dict[str, int]]:
        height, width = self._pixels.shape[:2]
        label = parse_label(self._original.label, width, height)
        altered = alter(Picture(self._pixels, label.boxes), self._settings.steps, rng)
        label = hold_inside(label._replace(boxes=altered.boxes), width, height, self._settings)
        quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if self._suffix == ".jpg" else []
        _, encoded = cv2.imencode(self._suffix, altered.pixels, quality)
        return encoded.tobytes(), write_label(label, width, height), label.counts()
