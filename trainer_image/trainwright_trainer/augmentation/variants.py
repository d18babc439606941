"""The altered copies of one image: made once, kept by what they were made of, and linked into the dataset.

What is drawn depends on the image's bytes, the settings and the number of the copy, and on nothing else: not
on the order, nor on how many processes work, nor on how many copies there are.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
from pydantic import ValidationError

from trainwright.contract import AugmentationSettings, Contract, Digest, digest_of
from trainwright_trainer.annotations.manifest import Variant
from trainwright_trainer.augmentation.boxes import hold_inside, parse_label, write_label
from trainwright_trainer.augmentation.transforms import Picture, Pixels, alter
from trainwright_trainer.files import digest_bytes, link_or_copy

_FORMAT = 1  # raised when the same settings come to give other bytes
_VERSIONS = [_FORMAT, version("opencv-python-headless"), version("numpy")]
_JPEG_SUFFIXES = frozenset({".jpg", ".jpeg"})
_JPEG_QUALITY = 95


class _Record(Contract):
    """What the store has of an image: its copies by their numbers."""

    variants: dict[int, Variant]


@dataclass(frozen=True)
class Original:
    """An image of the training split, where it lies in the dataset, and its label."""

    image: Path
    label: Path
    image_digest: Digest
    label_digest: Digest


@dataclass(frozen=True)
class FailedVariant:
    """A copy that could not be made; its original is in the dataset all the same."""

    original: str
    number: int
    reason: str


class VariantStore:
    """Keeps altered copies in a folder, under a key of all that decides what they look like.

    They are linked into the dataset, and so take no room twice; `prune` removes what no dataset has.
    """

    def __init__(self, folder: Path, settings: AugmentationSettings) -> None:
        self._folder = folder
        self._settings = settings
        how = settings.model_dump(mode="json", exclude={"copies", "preset", "transforms"})
        how["steps"] = [[type(step).__name__, step.model_dump(mode="json")] for step in settings.steps]
        self._made_by = json.dumps([_VERSIONS, how], sort_keys=True)

    def add_variants(self, original: Original) -> list[Variant | FailedVariant]:
        """Put the copies of an image beside it, making those that the store does not have."""
        key = digest_of(f"{self._made_by} {original.image_digest} {original.label_digest}").split(":")[1]
        entry = _Entry(self._folder / key[:2] / key)
        known = entry.read()
        source = _Source(original, self._settings)
        found = {number: known.get(number) or self._make(entry, source, number) for number in self._numbers}
        made = {number: item for number, item in found.items() if isinstance(item, Variant)}
        if made.keys() - known.keys():
            entry.write(known | made)
        return [
            entry.place(original, number, item) if isinstance(item, Variant) else item
            for number, item in found.items()
        ]

    @property
    def _numbers(self) -> range:
        return range(1, self._settings.copies + 1)

    def _make(self, entry: _Entry, source: _Source, number: int) -> Variant | FailedVariant:
        rng = random.Random(f"{self._made_by} {source.original.image_digest} {number}")  # noqa: S311 - drawing
        try:
            image, label, boxes = source.alter(rng)
        except (cv2.error, ValueError, ArithmeticError, MemoryError) as error:
            return FailedVariant(source.original.image.name, number, f"{type(error).__name__}: {error}"[:500])
        return entry.keep(number, source.suffix, image, label, boxes)


class _Source:
    """An original, decoded when the first copy is made of it."""

    def __init__(self, original: Original, settings: AugmentationSettings) -> None:
        self.original = original
        self._settings = settings

    @property
    def suffix(self) -> str:
        """The suffix of copies: those of what is not a JPEG are free of loss."""
        return ".jpg" if self.original.image.suffix.lower() in _JPEG_SUFFIXES else ".png"

    @cached_property
    def _pixels(self) -> Pixels:
        data = np.frombuffer(self.original.image.read_bytes(), dtype=np.uint8)
        # As Ultralytics reads it: turned as its EXIF block says.
        pixels: Pixels | None = cv2.imdecode(data, cv2.IMREAD_COLOR)
        if pixels is None:
            raise ValueError("OpenCV can't decode the image")
        return np.asarray(pixels, dtype=np.uint8)

    def alter(self, rng: random.Random) -> tuple[bytes, str, dict[int, int]]:
        """Return the bytes of an altered copy, the lines of its label, and its boxes by class."""
        height, width = self._pixels.shape[:2]
        label = parse_label(self.original.label.read_text(encoding="utf-8"), width, height)
        altered = alter(Picture(self._pixels, label.boxes), self._settings.steps, rng)
        label = hold_inside(label._replace(boxes=altered.boxes), width, height, self._settings)
        quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if self.suffix == ".jpg" else []
        _, encoded = cv2.imencode(self.suffix, altered.pixels, quality)
        return encoded.tobytes(), write_label(label, width, height), label.counts()


class _Entry:
    """The copies of one image in the store; its record is written after the files that it tells of."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[int, Variant]:
        """Return the copies that are there."""
        try:
            record = _Record.model_validate_json(self._record.read_bytes())
        except (OSError, ValidationError):
            return {}
        return {number: variant for number, variant in record.variants.items() if self._has(number, variant)}

    def write(self, variants: dict[int, Variant]) -> None:
        """Tell of the copies that are there."""
        self._write(self._record, _Record(variants=variants).model_dump_json(by_alias=True).encode())

    def keep(self, number: int, suffix: str, image: bytes, label: str, boxes: dict[int, int]) -> Variant:
        """Keep a copy."""
        self._write(self._file(number, suffix), image)
        self._write(self._file(number, ".txt"), label.encode())
        return Variant(
            name=f"{number}{suffix}",
            image=digest_bytes(image),
            image_size=len(image),
            label=digest_bytes(label.encode()),
            boxes=boxes,
        )

    def place(self, original: Original, number: int, variant: Variant) -> Variant:
        """Link a copy into the dataset as `<name>_<number>`; an original may have that name already."""
        suffix, stem = Path(variant.name).suffix, original.image.stem
        name = f"{stem}_{number}"
        try:
            link_or_copy(self._file(number, ".txt"), original.label.with_name(f"{name}.txt"))
        except FileExistsError:
            name = f"{stem}_{original.image_digest.split(':')[1][:12]}_{number}"
            link_or_copy(self._file(number, ".txt"), original.label.with_name(f"{name}.txt"))
        link_or_copy(self._file(number, suffix), original.image.with_name(name + suffix))
        return variant.model_copy(update={"name": name + suffix})

    @property
    def _record(self) -> Path:
        return self._path.with_name(f"{self._path.name}.json")

    def _file(self, number: int, suffix: str) -> Path:
        return self._path.with_name(f"{self._path.name}_{number}{suffix}")

    def _has(self, number: int, variant: Variant) -> bool:
        image = self._file(number, Path(variant.name).suffix)
        label = self._file(number, ".txt")
        return image.is_file() and image.stat().st_size == variant.image_size and label.is_file()

    def _write(self, path: Path, data: bytes) -> None:
        """Replace a file in one go: one with the same content may be made beside us, another linked."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        partial.write_bytes(data)
        partial.replace(path)


def prune(folder: Path) -> None:
    """Remove from a store what no dataset has; where there are no hard links, that is all of it."""
    for bucket in _list(folder):
        used = set()
        for path in _list(bucket):
            if path.suffix == ".json":
                continue
            if path.stat().st_nlink > 1:
                used.add(path.name.split("_")[0])
            else:
                path.unlink()
        for record in bucket.glob("*.json"):
            if record.stem not in used:
                record.unlink()


def _list(folder: Path) -> Iterator[Path]:
    return iter(list(folder.iterdir())) if folder.is_dir() else iter(())
