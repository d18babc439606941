"""Oriented boxes, `class x1 y1 x2 y2 x3 y3 x4 y4` as YOLO writes them: learned as the boxes around them."""

from __future__ import annotations

from collections.abc import Iterator

from trainwright_trainer.annotations.items import Label, Picture, Rule, Rules
from trainwright_trainer.annotations.labels import (
    Box,
    Problem,
    Row,
    check_boxes,
    decode_text,
    read_class_id,
    read_numbers,
)

_COLUMNS = 9


def read_oriented(data: bytes, _: Picture, rules: Rules) -> Label:
    """Return the upright boxes around oriented ones."""
    return check_boxes(_read_lines(decode_text(data)), rules.class_ids)


def _read_lines(text: str) -> Iterator[tuple[str, Row]]:
    for number, line in enumerate(text.splitlines(), start=1):
        columns = line.split()
        if columns:
            yield f"line {number}", _read_line(columns)


def _read_line(columns: list[str]) -> Row:
    if len(columns) != _COLUMNS:
        text = f"{len(columns)} columns, not the {_COLUMNS} of a class and four corners"
        return [Problem(Rule.LABEL_COLUMNS, text)]
    class_id, problems = read_class_id(columns[0])
    numbers, wrong = read_numbers(columns[1:])
    if problems or wrong:
        return [*problems, *wrong]
    corners = (min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2]))
    return Box.between(class_id, corners, (1, 1))
