"""Readings: what is kept of an annotation once it was read, in a few hundred bytes; its image is a file."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from trainwright_trainer.annotations.items import Item, Repair, Rule, Rules, UnfitError
from trainwright_trainer.annotations.sources import Candidate

SMALL_BOX, LARGE_BOX = 32 * 32, 96 * 96  # pixels; the bounds that COCO's metrics have made usual


@dataclass(frozen=True)
class Reading:
    """What one candidate turned out to be; with a `rule` it is unfit, and all but the reason is empty."""

    name: str
    rule: Rule | None = None
    reason: str = ""
    suffix: str = ""
    media: str = ""
    image: str = ""  # SHA-256, in hex
    image_size: int = 0
    image_time: int = 0  # of the file in the store: what was written into since is not what was checked
    width: int = 0
    height: int = 0
    look: str = ""
    label: str = ""
    boxes: dict[str, int] | None = None
    box_sizes: tuple[int, int, int] = (0, 0, 0)  # small, medium, large
    repairs: tuple[Repair, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` takes."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Return the reading that another process made."""
        rule, repairs = fields["rule"], fields["repairs"]
        typed = {
            "rule": None if rule is None else Rule(rule),
            "repairs": tuple(Repair(repair) for repair in repairs),
            "box_sizes": tuple(fields["box_sizes"]),
        }
        return cls(**{**fields, **typed})


class ObjectStore:
    """Images by the SHA-256 of their bytes: each is written once, whole or not at all, and then read-only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path_of(self, digest: str) -> Path:
        """Return where the image of this digest is, or would be."""
        return self.folder / digest[:2] / digest

    def has(self, digest: str, size: int, time: int) -> bool:
        """Return whether the image is there as it was kept."""
        try:
            found = self.path_of(digest).stat()
        except OSError:
            return False
        return (found.st_size, found.st_mtime_ns) == (size, time)

    def keep(self, data: bytes) -> tuple[str, int]:
        """Keep an image and return its digest, and the time of the file."""
        digest = hashlib.sha256(data).hexdigest()
        path = self.path_of(digest)
        try:
            same = path.read_bytes() == data
        except FileNotFoundError:
            same = False
        if not same:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Several builds may share the store; what one of them left is in nobody's way.
            partial = path.with_name(f".{digest}.{uuid4().hex}")
            try:
                _write_read_only(partial, data)
                partial.replace(path)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
        return digest, path.stat().st_mtime_ns


def read_candidate(candidate: Candidate, rules: Rules, store: ObjectStore) -> Reading:
    """Read, check and keep one annotation; what is unfit is a reading too."""
    try:
        item = candidate.read(rules)
    except UnfitError as error:
        return Reading(candidate.name, error.rule, error.reason)
    except (
        PermissionError,
        FileNotFoundError,
        IsADirectoryError,
    ) as error:  # any other is the volume's fault
        return Reading(candidate.name, Rule.UNREADABLE, f"can't be read: {error.strerror}")
    return _describe(item, store)


def _describe(item: Item, store: ObjectStore) -> Reading:
    lines = [line.split() for line in item.label.splitlines()]
    pixels = item.image.width * item.image.height
    areas = [_area_of([float(column) for column in line[1:]]) * pixels for line in lines]
    small = sum(area < SMALL_BOX for area in areas)
    large = sum(area >= LARGE_BOX for area in areas)
    digest, time = store.keep(item.image.data)
    return Reading(
        name=item.name,
        suffix=item.suffix,
        media=item.media,
        image=digest,
        image_size=len(item.image.data),
        image_time=time,
        width=item.image.width,
        height=item.image.height,
        look=item.image.look.hex(),
        label=item.label,
        boxes=dict(sorted(Counter(line[0] for line in lines).items(), key=lambda pair: int(pair[0]))),
        box_sizes=(small, len(areas) - small - large, large),
        repairs=item.repairs,
    )


def _area_of(numbers: list[float]) -> float:
    """Return the part of the image that a box covers, or a polygon of corners one after the other."""
    if len(numbers) == 4:
        return numbers[2] * numbers[3]
    corners = list(zip(numbers[::2], numbers[1::2], strict=True))
    edges = zip(corners, corners[1:] + corners[:1], strict=True)
    return abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in edges)) / 2


def _write_read_only(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
