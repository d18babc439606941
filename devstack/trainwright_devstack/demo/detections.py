"""The opened model at work: onnxruntime alone, on images of a seed that no training used."""

from __future__ import annotations

import ast
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageDraw

from trainwright_trainer.annotations.sample import draw_sample

COLUMNS, ROWS, SCALE = 4, 3, 2
CONFIDENCE = 0.4
COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#42d4f4")


def draw_detections(model: Path, seed: int, image_size: int, picture: Path) -> int:
    """Save a sheet of held-out images with what the model finds on them; return how many boxes it found."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    names = ast.literal_eval(session.get_modelmeta().custom_metadata_map["names"])
    images = [_held_out(seed, index, image_size) for index in range(COLUMNS * ROWS)]
    # A model with a fixed batch takes its images one by one.
    found = [detect(session, image) for image in images]
    tile = image_size * SCALE
    sheet = Image.new("RGB", (COLUMNS * tile, ROWS * tile))
    for index, (image, boxes) in enumerate(zip(images, found, strict=True)):
        place = (index % COLUMNS * tile, index // COLUMNS * tile)
        sheet.paste(_mark(image, boxes, names), place)
    picture.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(picture)
    return sum(len(boxes) for boxes in found)


def detect(session: onnxruntime.InferenceSession, image: Image.Image) -> list[tuple[Any, ...]]:
    """Return (x1, y1, x2, y2, confidence, class) of each detection, in pixels of the image."""
    pixels = np.asarray(image, dtype=np.float32).transpose(2, 0, 1)[None] / 255
    (output,) = session.run(None, {session.get_inputs()[0].name: pixels})
    return [tuple(row) for row in output[0] if row[4] >= CONFIDENCE]


def _held_out(seed: int, index: int, image_size: int) -> Image.Image:
    return Image.open(BytesIO(draw_sample(seed, index, image_size).png)).convert("RGB")


def _mark(image: Image.Image, boxes: list[tuple[Any, ...]], names: dict[int, str]) -> Image.Image:
    large = image.resize((image.width * SCALE, image.height * SCALE), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(large)
    for x1, y1, x2, y2, confidence, class_id in boxes:
        colour = COLOURS[int(class_id) % len(COLOURS)]
        draw.rectangle([x1 * SCALE, y1 * SCALE, x2 * SCALE, y2 * SCALE], outline=colour, width=3)
        label = f"{names[int(class_id)]} {confidence:.2f}"
        where = (x1 * SCALE + 3, max(0, y1 * SCALE - 12))
        draw.rectangle(draw.textbbox(where, label), fill="black")
        draw.text(where, label, fill="white")
    return large
