"""Messages as the annotation platform publishes them, built for tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from io import BytesIO
from typing import Any

from PIL import Image

from trainwright_devstack.annotations import OPERATOR, VALIDATOR, encode_annotation, encode_bulk
from trainwright_trainer.ingestion.events import Status
from trainwright_trainer.ingestion.ingestor import Received

__all__ = ["OPERATOR", "VALIDATOR"]

START = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp()) * 1_000_000


@cache
def draw(number: int, image_format: str = "PNG") -> bytes:
    """Return a tiny image; every number has its own."""
    file = BytesIO()
    Image.new("RGB", (16, 16), (number % 256, number // 256 % 256, 7)).save(file, format=image_format)
    return file.getvalue()


def detection(class_id: int = 0, x: float = 0.5) -> dict[str, Any]:
    return {"an": "x", "cl": class_id, "x": x, "y": 0.5, "w": 0.2, "h": 0.2, "p": 0.9}


def at(minute: float) -> int:
    """Microseconds of a minute after the start."""
    return START + int(minute * 60_000_000)


def single(  # what one message tells
    name: str,
    status: Status,
    minute: float,
    *,
    role: int = OPERATOR,
    image: bytes = b"",
    detections: Any = None,
    suffix: str = ".png",
    more: tuple[Any, ...] = (),
) -> bytes:
    if not isinstance(detections, str):
        detections = json.dumps([detection()] if detections is None else detections)
    return encode_annotation(
        name, status, _date(minute), role=role, image=image, detections=detections, suffix=suffix, more=more
    )


def bulk(names: Sequence[str], status: Status, minute: float) -> bytes:
    return encode_bulk(names, status, _date(minute))


def _date(minute: float) -> datetime:
    return datetime.fromtimestamp(at(minute) / 1_000_000, UTC)


def received(offset: int, body: bytes, *, minute: float = 10_000, **properties: Any) -> Received:
    return Received(offset, at(minute), body, properties)
