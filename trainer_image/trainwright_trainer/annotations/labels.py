"""What a label must be like: lines of `class x y width height`, or boxes that an importer has read."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from trainwright_trainer.annotations.items import Label, Picture, Repair, Rule, Rules, UnfitError

MOST_LABEL_BYTES = 4 * 1024 * 1024
ROUNDING = 0.001
"""So far a coordinate may be beyond 0..1: few decimals do that to a box at the border."""

_PIXELS_BEYOND = 0.1  # so much larger than its image may be a box in pixels, before it is cut
_LEAST_EXTENT = 1e-6  # a thousandth of a pixel of a large image, and the last decimal we write
_MOST_PROBLEMS_TOLD = 3
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
_WHOLE = re.compile(r"\d{1,9}", re.ASCII)
_CLASS_ID = re.compile(r"(\d{1,9})(\.0*)?", re.ASCII)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a label, and the rule it breaks."""

    rule: Rule
    text: str


@dataclass(frozen=True)
class Box:
    """A box: its class, and its centre and size in parts of the image; `line` is how its label spells it."""

    class_id: int
    numbers: tuple[float, ...]
    line: str = ""

    @classmethod
    def between(cls, class_id: int, corners: Sequence[float], size: tuple[int, int]) -> Box:
        """Return the box between left, top, right and bottom, in pixels of an image of this size."""
        left, top, right, bottom = corners
        width, height = size
        centre = ((left + right) / 2 / width, (top + bottom) / 2 / height)
        return cls(class_id, (*centre, (right - left) / width, (bottom - top) / height))

    def to_line(self) -> str:
        """Return its label line."""
        return self.line or " ".join([str(self.class_id), *(f"{number:.6f}" for number in self.numbers)])


Row = Box | list[Problem]


def decode_text(data: bytes) -> str:
    """Return the text of a label; a byte order mark is no part of it."""
    if len(data) > MOST_LABEL_BYTES:
        raise UnfitError(Rule.LABEL_TOO_LARGE, f"label is larger than {MOST_LABEL_BYTES} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UnfitError(Rule.LABEL_ENCODING, "label is not UTF-8 text") from None


def check_label(text: str, class_ids: frozenset[int]) -> Label:
    """Return the boxes of `class x y width height` lines; raise `UnfitError` with what is wrong."""
    return check_boxes(_read_lines(text), class_ids)


def check_boxes(rows: Iterable[tuple[str, Row]], class_ids: frozenset[int]) -> Label:
    """Return the label of boxes that come with where each of them was found.

    A box that reaches beyond the image is cut to the part that is seen, and one that is there twice is
    dropped once.
    """
    problems: list[tuple[str, Problem]] = []
    lines: dict[tuple[float, ...], str] = {}
    repairs: set[Repair] = set()
    for place, row in rows:
        found = row if isinstance(row, list) else list(_problems_of(row, class_ids))
        problems += [(place, problem) for problem in found]
        if found or isinstance(row, list):
            continue
        box = _clip(row)
        key = (box.class_id, *box.numbers)
        repairs |= {Repair.BOX_CLIPPED} if box is not row else set()
        repairs |= {Repair.DUPLICATE_DROPPED} if key in lines else set()
        lines.setdefault(key, box.to_line())
    if problems:
        raise _refuse(problems)
    return Label("".join(line + "\n" for line in lines.values()), tuple(sorted(repairs)))


def _refuse(problems: Sequence[tuple[str, Problem]]) -> UnfitError:
    told = [f"{place}: {problem.text}" for place, problem in problems[:_MOST_PROBLEMS_TOLD]]
    more = len(problems) - len(told)
    return UnfitError(problems[0][1].rule, "; ".join(told) + (f" (and {more} more)" if more else ""))


def _read_lines(text: str) -> Iterator[tuple[str, Row]]:
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        columns = line.split()
        if columns:
            yield f"line {number}", _read_line(columns)


def _read_line(columns: Sequence[str]) -> Row:
    if len(columns) != 5:
        return [Problem(Rule.LABEL_COLUMNS, f"{len(columns)} columns, not 5{_guess(len(columns))}")]
    class_id, problems = read_class_id(columns[0])
    numbers, wrong = read_numbers(columns[1:])
    if problems or wrong:
        return [*problems, *wrong]
    return Box(class_id, tuple(numbers), line=" ".join([str(class_id), *columns[1:]]))


def _guess(columns: int) -> str:
    if columns == 6:
        return " (is the last one a confidence?)"
    return " (is it a polygon?)" if columns >= 7 and columns % 2 else ""


def read_class_id(text: str) -> tuple[int, list[Problem]]:
    """Return the class id of a column, or what is wrong with it."""
    if match := _CLASS_ID.fullmatch(text):
        return int(match[1]), []
    return -1, [Problem(Rule.LABEL_CLASS, f"class id {text[:12]!r} is not a whole number")]


def read_numbers(columns: Sequence[str]) -> tuple[list[float], list[Problem]]:
    """Return the coordinates of columns, or what is wrong with them; only plain decimal numbers count."""
    if not all(map(_NUMBER.fullmatch, columns)):
        finite = not any(map(_NOT_FINITE.fullmatch, columns))
        what = "a number" if finite else "finite"
        return [], [Problem(Rule.LABEL_NUMBER, f"a coordinate is not {what}")]
    numbers = [float(column) for column in columns]
    if not all(map(math.isfinite, numbers)):
        return [], [Problem(Rule.LABEL_NUMBER, "a coordinate is not finite")]
    return numbers, []


def _problems_of(box: Box, class_ids: frozenset[int]) -> Iterator[Problem]:
    if box.class_id not in class_ids:
        yield Problem(Rule.LABEL_CLASS, f"class id {box.class_id} is not in the class map")
    x, y, width, height = box.numbers
    beyond = ROUNDING if box.line else _PIXELS_BEYOND
    if not (_is_share(x) and _is_share(y) and max(width, height) <= 1 + beyond):
        what = "a coordinate is outside 0..1" if box.line else "it lies outside the image"
        yield Problem(Rule.LABEL_RANGE, what)
    elif min(_clip(box).numbers[2:]) < _LEAST_EXTENT:
        yield Problem(Rule.LABEL_AREA, "the box has no area")


def _is_share(number: float) -> bool:
    return -ROUNDING <= number <= 1 + ROUNDING


def _clip(box: Box) -> Box:
    """Return the part of a box that is inside the image, or the box itself but for its rounding."""
    x, y, width, height = box.numbers
    edges = (x - width / 2, x + width / 2, y - height / 2, y + height / 2)
    inside = all(0 <= number <= 1 for number in box.numbers)
    if inside and all(-ROUNDING <= edge <= 1 + ROUNDING for edge in edges):
        return box
    left, right, top, bottom = (min(max(edge, 0), 1) for edge in edges)
    numbers = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
    return Box(box.class_id, tuple(round(number, 6) for number in numbers))


def read_class_name(name: str, rules: Rules) -> tuple[int, list[Problem]]:
    """Return the class id of a name, or what is wrong with it; capitals do not count."""
    class_id = rules.class_names.get(name.strip().casefold())
    if class_id is not None:
        return class_id, []
    return -1, [Problem(Rule.LABEL_CLASS, f"class {name.strip()[:40]!r} is not in the class map")]


def check_frame(picture: Picture, *declared: object) -> None:
    """Refuse boxes that were drawn in an image of another width and height; none, or 0, says nothing.

    It may be the same image before its EXIF orientation was applied: then the boxes lie elsewhere.
    """
    sides = [int(text) if _WHOLE.fullmatch(text) else 0 for text in map(str, declared)]
    if all(sides) and sides != [picture.width, picture.height]:
        turned = " as viewers turn it" if Repair.IMAGE_TURNED in picture.repairs else ""
        raise UnfitError(
            Rule.LABEL_OF_ANOTHER_SIZE,
            f"label is for an image of {sides[0]} x {sides[1]} pixels, this one is {picture.width} x"
            f" {picture.height}{turned}",
        )
