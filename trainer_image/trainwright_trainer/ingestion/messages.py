"""The platform's messages: from the bytes of one to the events it tells of, or to why it can't be read.

A message is a msgpack array; of one annotation (created date, name, medium, time, extension, detections as
JSON, image, role, e-mail, source, status), or of many (names, status, e-mail, created date). Later producers
may append elements and may compress the whole with gzip.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import msgpack

from trainwright_trainer.annotations.images import IMAGE_SUFFIXES, check_header
from trainwright_trainer.annotations.items import UnfitError
from trainwright_trainer.ingestion.events import Event, Status

MOST_BYTES = 64 * 1024 * 1024
"""Of a message, compressed or not; larger ones are refused."""

MOST_NAMES = 200_000
MOST_DETECTIONS = 10_000
MOST_ELEMENTS = MOST_NAMES + 10_000
"""Of all lists and maps of a message: a byte of it may be one, and take sixty of memory."""

MOST_DETECTION_BYTES = 8 * 1024 * 1024
SUFFIXES = IMAGE_SUFFIXES
VALIDATORS = frozenset({20, 40, 1000})
"""Roles whose word counts: validator, administrator, administrator of the API."""

STATUS_PROPERTY = "AnnotationStatus"
_GZIP = b"\x1f\x8b"
_GZIP_FORMAT = 16 + zlib.MAX_WBITS
_NAME = re.compile(r"[^\x00-\x1f\x7f/\\]{1,200}")
_NUMBERS = {  # what a detection's numbers are called, by those who wrote them
    "class": ("cl", "class", "classnumber", "classid"),
    "x": ("x", "cx", "centerx"),
    "y": ("y", "cy", "centery"),
    "width": ("w", "width"),
    "height": ("h", "height"),
}
_BOX = tuple(_NUMBERS)[1:]
_USUAL = tuple(spellings[0] for spellings in _NUMBERS.values())
_EPSILON = 1e-6  # boxes come from 32-bit numbers


class PoisonError(Exception):
    """A message that can't be applied, now or ever; `rule` is a word for metrics, the text says why."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


@dataclass(frozen=True)
class Message:
    """What one message tells: an event for each name, and the image that the one of them may bring."""

    names: tuple[str, ...]
    event: Event
    image: bytes | None = None

    def events(self, start: int = 0, end: int | None = None) -> Iterator[Event]:
        """Yield an event for each name, or for some of them, in the message's order."""
        e = self.event
        for name in self.names[start:end]:
            yield Event(name, e.at, e.status, e.validated, e.labels, e.image, e.suffix, e.date)

    @property
    def size(self) -> int:
        """About how much memory it takes, in bytes."""
        return len(self.image or b"") + len(self.event.labels or "") + sum(map(len, self.names))

    def images(self) -> Iterator[tuple[str, bytes]]:
        """Yield the image by its digest, if there is one."""
        if self.image is not None and self.event.image is not None:
            yield self.event.image, self.image


def read_message(body: bytes, properties: Mapping[Any, Any], *, broker_time: int) -> Message:
    """Return what a message tells, or raise `PoisonError`.

    `broker_time`, in microseconds, is when the broker had it: no event is later, whatever a clock said.
    """
    try:
        return _read_fields(_unpack(body), properties, broker_time)
    except PoisonError:
        raise
    except Exception as error:  # whatever a hostile message leads a library to: the stream goes on
        raise PoisonError("unexpected", f"reading it ended with {type(error).__name__}") from error


def _read_fields(fields: list[Any], properties: Mapping[Any, Any], broker_time: int) -> Message:
    bulk = next((index for index in (0, 1) if isinstance(fields[index], list)), None)
    if bulk is not None:
        return _read_bulk(fields, bulk, properties, broker_time)
    return _read_single(fields, properties, broker_time)


def _unpack(body: bytes) -> list[Any]:
    if body.startswith(_GZIP):
        body = _decompress(body)
    if len(body) > MOST_BYTES:
        raise PoisonError("size", f"it has {len(body)} bytes, more than {MOST_BYTES}")
    elements = _Allowance(MOST_ELEMENTS)
    try:
        fields = msgpack.unpackb(
            body,
            timestamp=3,
            strict_map_key=True,
            max_array_len=MOST_NAMES,
            max_map_len=1000,
            list_hook=elements.spend,
            object_hook=elements.spend,
        )
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise PoisonError("encoding", f"it is not msgpack: {type(error).__name__}") from error
    if not isinstance(fields, list) or len(fields) < 4:
        raise PoisonError("encoding", "it is not a msgpack array of at least 4 elements")
    return fields


class _Allowance:
    """Counts what is unpacked, and ends it when it is too much."""

    def __init__(self, elements: int) -> None:
        self._left = elements

    def spend(self, value: Any) -> Any:
        self._left -= len(value) + 1
        if self._left < 0:
            raise PoisonError("size", f"its lists and maps have more than {MOST_ELEMENTS} elements")
        return value


def _decompress(body: bytes) -> bytes:
    """Return what was compressed, but never more than a message may have."""
    try:
        member = zlib.decompressobj(_GZIP_FORMAT)
        unpacked = member.decompress(body, MOST_BYTES + 1)
        if member.eof and not member.unused_data:
            return unpacked
        with gzip.GzipFile(fileobj=BytesIO(body)) as file:  # it has several parts, or an end that is wrong
            return file.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise PoisonError("compression", "its gzip data is damaged or truncated") from error


def _read_bulk(
    fields: list[Any], names_index: int, properties: Mapping[Any, Any], broker_time: int
) -> Message:
    names = tuple(dict.fromkeys(check_name(name) for name in fields[names_index]))
    if not names:
        raise PoisonError("names", "it tells of many annotations and names none")
    rest = [field for index, field in enumerate(fields) if index != names_index]
    status = _status(properties, next((field for field in rest if type(field) is int), None))
    if status not in {Status.VALIDATED, Status.DELETED}:
        raise PoisonError("status", f"{status.name} can't be said of many annotations at once")
    date = next((field for field in rest if isinstance(field, datetime)), None)
    at, ahead = _read_date(date, broker_time)
    return Message(names, Event("", at, status, validated=True, date=ahead))


def _read_single(fields: list[Any], properties: Mapping[Any, Any], broker_time: int) -> Message:
    fields = [*fields, *[None] * (11 - len(fields))]
    status = _status(properties, fields[10])
    name, (at, ahead) = check_name(fields[1]), _read_date(fields[0], broker_time)
    validated = fields[7] in VALIDATORS
    if status in {Status.VALIDATED, Status.DELETED}:
        return Message((name,), Event("", at, status, validated=True, date=ahead))
    labels = _read_labels(fields[5])
    if status is Status.EDITED:
        return Message((name,), Event("", at, status, validated, labels, date=ahead))
    image, suffix = _check_image(fields[6]), _check_suffix(fields[4])
    digest = hashlib.sha256(image).hexdigest()
    return Message((name,), Event("", at, status, validated, labels, digest, suffix, ahead), image)


def _status(properties: Mapping[Any, Any], told: Any) -> Status:
    """Return the status: a property's word or number, as bytes or text; else what the message says."""
    for key, value in properties.items():
        if _text(key) == STATUS_PROPERTY:
            told = value
    text = _text(told).strip()
    try:
        return Status(int(text)) if text.isdecimal() else Status[text.upper()]
    except (ValueError, KeyError):
        known = ", ".join(f"{status.name.title()} {status.value}" for status in Status)
        raise PoisonError("status", f"its status is {text[:40]!r}, none of {known}") from None


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def check_name(name: Any) -> str:
    """Return a name that is one part of a path and nothing else."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name[0] == "." or not name.isprintable():
        shown = repr(name)[:80] if isinstance(name, str) else type(name).__name__
        raise PoisonError("name", f"its name {shown} can't be a file's: at most 200 characters, no path")
    if len(name.encode()) > 200:
        raise PoisonError("name", f"its name {name[:40]!r}… has more than 200 bytes")
    return name


def _check_suffix(extension: Any) -> str:
    suffix = "." + _text(extension or "").strip().lower().lstrip(".")
    if suffix not in SUFFIXES:
        known = ", ".join(sorted(SUFFIXES))
        raise PoisonError("extension", f"its image is a {suffix[:20]!r}, none of {known}")
    return suffix


def _check_image(image: Any) -> bytes:
    """Return the bytes of what is an image that can be trained on, by its header; a dataset decodes it."""
    if not isinstance(image, bytes) or not image:
        raise PoisonError("image", "it has no image")
    try:
        check_header(image)
    except UnfitError as error:
        raise PoisonError("image", f"its {error}") from error
    return image


def _read_date(date: Any, broker_time: int) -> tuple[int, int | None]:
    """Return a date as microseconds since 1970, at most the broker's, and that where there is none.

    The other is the date as it was told, where it is after the broker's time.
    """
    if isinstance(date, str):
        try:
            date = datetime.fromisoformat(date)
        except ValueError:
            return broker_time, None
    if not isinstance(date, datetime):
        return broker_time, None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    told = int(date.timestamp() * 1_000_000)
    return (broker_time, told) if told > broker_time else (told, None)


def _read_labels(detections: Any) -> str:
    """Return YOLO lines for the detections; all that is wrong with them is said at once."""
    if isinstance(detections, str | bytes) and len(detections) > MOST_DETECTION_BYTES:
        raise PoisonError("detections", f"its detections have more than {MOST_DETECTION_BYTES} bytes")
    try:
        found = json.loads(detections) if isinstance(detections, str | bytes) else detections
    except (ValueError, RecursionError) as error:
        raise PoisonError("detections", "its detections are no JSON") from error
    found = [] if found is None else found
    if not isinstance(found, list) or len(found) > MOST_DETECTIONS:
        raise PoisonError("detections", f"its detections are no list of at most {MOST_DETECTIONS}")
    lines, problems = [], []
    for number, detection in enumerate(found, start=1):
        try:
            lines.append(_label_line(detection))
        except ValueError as error:
            problems.append(f"detection {number}: {error}")
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise PoisonError("detections", "; ".join(problems[:3]) + more)
    return "".join(lines)


def _label_line(detection: Any) -> str:
    if not isinstance(detection, dict):
        raise ValueError("it is no object")  # noqa: TRY004 - like all else that may be wrong with it
    class_id, *box = _numbers_of(detection)
    if class_id != int(class_id) or not 0 <= class_id < 1000:
        raise ValueError(f"its class is {class_id}, no number from 0 to 999")
    if min(box) < -_EPSILON or max(box) > 1 + _EPSILON:
        outside = [
            name for name, value in zip(_BOX, box, strict=True) if not -_EPSILON <= value <= 1 + _EPSILON
        ]
        raise ValueError(f"its {', '.join(outside)} is outside 0..1")
    if box[2] <= 0 or box[3] <= 0:
        raise ValueError("its box has no area")
    x, y, width, height = (min(abs(value), 1.0) for value in box)
    return f"{int(class_id)} {x:.6f} {y:.6f} {width:.6f} {height:.6f}\n"


def _numbers_of(detection: dict[str, Any]) -> list[float]:
    """Return class, x, y, width and height, whatever they are called."""
    try:
        values = [detection[spelling] for spelling in _USUAL]
    except KeyError:
        lower = {str(key).lower(): value for key, value in detection.items()}
        values = [
            next((lower[spelling] for spelling in spellings if spelling in lower), None)
            for spellings in _NUMBERS.values()
        ]
    for wanted, value in zip(_NUMBERS, values, strict=True):
        if type(value) not in {int, float} or not math.isfinite(value):
            raise ValueError(f"its {wanted} is {str(value)[:20]!r}, no number")
    return values
