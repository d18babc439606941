"""One annotated image on its way into a dataset, and the rules it must obey."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

from PIL import Image, UnidentifiedImageError

# Bound before anybody imports Ultralytics: it replaces Pillow's own by one that, given bytes of no known
# format, looks for a package to install instead of refusing them.
from PIL.Image import open as open_image

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
MIN_SIDE = 10  # Ultralytics ignores smaller images
LOOK_SIZE = (9, 8)  # columns and rows of the small grey picture that near-duplicates are known by

_FRAME_SUFFIX = re.compile(r"[_-](?:f(?:rame)?[_-]?)?\d+$", re.IGNORECASE)
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_UNDECODABLE = (
    UnidentifiedImageError,
    OSError,
    ValueError,
    SyntaxError,
    Image.DecompressionBombError,
    ImportError,  # the end of that look for a package, where Ultralytics was imported before us
)


class UnfitError(Exception):
    """An image or a label breaks a rule; the text is the reason in the quarantine report."""


@dataclass(frozen=True)
class Rules:
    """What an annotation must obey beyond being well-formed."""

    class_ids: frozenset[int]


@dataclass(frozen=True)
class Picture:
    """A fully decodable image: our own bytes of it, and what its pixels told while they were at hand."""

    data: bytes
    width: int
    height: int
    look: bytes  # the whole of it in `LOOK_SIZE` grey pixels


@dataclass(frozen=True)
class Item:
    """An annotation that obeys the rules: its image, and its label lines."""

    name: str
    suffix: str
    media: str
    image: Picture
    label: str


def media_of(name: str) -> str:
    """Return the medium of a frame: its name without one trailing `_123`, `-123` or `_frame_123`."""
    return _FRAME_SUFFIX.sub("", name) or name


def check_label(text: str, class_ids: frozenset[int]) -> str:
    """Return `class x y width height` lines, or raise `UnfitError` with what is wrong."""
    lines = [line.split() for line in text.lstrip("\ufeff").splitlines() if line.strip()]
    problems = [
        f"line {number}: {problem}"
        for number, columns in enumerate(lines, start=1)
        for problem in _problems_of_line(columns, class_ids)
    ]
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise UnfitError("; ".join(problems[:3]) + more)
    return "".join(" ".join(columns) + "\n" for columns in lines)


def _problems_of_line(columns: Sequence[str], class_ids: frozenset[int]) -> list[str]:
    if len(columns) != 5:
        return [f"{len(columns)} columns, not 5"]
    problems = []
    if not columns[0].isascii() or not columns[0].isdecimal():
        problems.append(f"class id {columns[0][:12]!r} is not a whole number")
    elif int(columns[0]) not in class_ids:
        problems.append(f"class id {columns[0]} is not in the class map")
    try:
        box = [float(column) for column in columns[1:]]
    except ValueError:
        return [*problems, "a coordinate is not a number"]
    if not all(map(math.isfinite, box)):
        problems.append("a coordinate is not finite")
    elif not all(0 <= value <= 1 for value in box):
        problems.append("a coordinate is outside 0..1")
    elif box[2] == 0 or box[3] == 0:
        problems.append("the box has no area")
    return problems


def check_image(data: bytes) -> Picture:
    """Return what there is to know of a fully decodable image; raise `UnfitError` otherwise.

    Bytes after a JPEG's end are cut off: Ultralytics would rewrite such a file in place.
    """
    if not data:
        raise UnfitError("image is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a malformed EXIF block or a large image is no reason to warn
            with open_image(BytesIO(data)) as image:
                image.load()
                width, height = image.size
                look = _look_of(image)
    except _UNDECODABLE as error:
        raise UnfitError("image can't be decoded: unknown format, truncated or damaged") from error
    if min(width, height) < MIN_SIDE:
        raise UnfitError(f"image is {width} x {height} pixels, smaller than {MIN_SIDE}")
    if data.startswith(_JPEG_START):
        data = _trim_jpeg(data)
    return Picture(data, width, height, look)


def _look_of(image: Image.Image) -> bytes:
    grey = image.convert("L")  # the mean of each of its parts, whatever the size
    return grey.resize(LOOK_SIZE, Image.Resampling.BOX, reducing_gap=2.0).tobytes()


def _trim_jpeg(data: bytes) -> bytes:
    end = data.rfind(_JPEG_END)
    if end < 0:
        raise UnfitError("image is truncated: the end marker of the JPEG is missing")
    return data[: end + 2]
