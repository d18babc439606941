"""Pictures of the worst errors, small enough to be part of the page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw

from trainwright.contract import ErrorBox, ImageErrors

MOST_PICTURES = 12
_SIDE = 420
_MISSED, _FALSE = "#dc2626", "#d97706"


def draw_errors(images: Sequence[ImageErrors], folder: Path) -> list[tuple[ImageErrors, str]]:
    """Return the images that have the most errors, each with a data URL of its picture: missed boxes red."""
    drawn = []
    for errors in images[:MOST_PICTURES]:
        path = folder / errors.image
        if path.parent == folder and path.is_file():
            drawn.append((errors, _draw(errors, path)))
    return drawn


def _draw(errors: ImageErrors, path: Path) -> str:
    with Image.open(path) as opened:
        opened.draft("RGB", (2 * _SIDE, 2 * _SIDE))
        picture = opened.convert("RGB")
    scale = min(1.0, _SIDE / max(errors.width, errors.height))
    size = (max(1, round(errors.width * scale)), max(1, round(errors.height * scale)))
    picture = picture.resize(size)
    draw = ImageDraw.Draw(picture)
    for boxes, colour in ((errors.false, _FALSE), (errors.missed, _MISSED)):
        for box in boxes:
            _outline(draw, box, scale, colour)
    file = BytesIO()
    picture.save(file, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _outline(draw: ImageDraw.ImageDraw, box: ErrorBox, scale: float, colour: str) -> None:
    left, top, right, bottom = (value * scale for value in box.box)
    draw.rectangle((left, top, max(left, right), max(top, bottom)), outline=colour, width=2)
    text = box.name if box.confidence is None else f"{box.name} {box.confidence:.2f}"
    place, shown = (left + 3, top + 2), text.encode("ascii", "replace").decode()
    draw.rectangle(draw.textbbox(place, shown), fill=colour)
    draw.text(place, shown, fill="white")
