"""What COCO's JSON files say, read piece by piece into a database on disk: boxes may be millions."""

from __future__ import annotations

import json
import math
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import ijson

from trainwright.errors import DataError

_TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE found (path BLOB PRIMARY KEY, stamp TEXT);
CREATE TABLE images (file INTEGER, id TEXT, path BLOB, width TEXT, height TEXT);
CREATE TABLE boxes (file INTEGER, image TEXT, id TEXT, category TEXT, bbox TEXT, crowd INTEGER);
CREATE TABLE categories (file INTEGER, id TEXT, name TEXT);
"""
_INDEXES = """
CREATE INDEX boxes_of_image ON boxes (file, image);
CREATE INDEX images_of_file ON images (file, id);
CREATE INDEX images_by_path ON images (path);
CREATE INDEX categories_of_file ON categories (file, id);
"""
_IMAGES = """
SELECT path, max(listed), max(file), max(id), max(width), max(height), max(stamp) FROM (
    SELECT path, count(*) AS listed, min(file) AS file, min(id) AS id, min(width) AS width,
        min(height) AS height, '' AS stamp FROM images GROUP BY path
    UNION ALL SELECT path, 0, -1, '', '', '', stamp FROM found
) GROUP BY path ORDER BY path
"""
_BOXES_OF = """
SELECT id, (SELECT name FROM categories WHERE file = boxes.file AND id = boxes.category), bbox, crowd
FROM boxes WHERE file = ? AND image = ? ORDER BY rowid
"""
_ORPHANS = """
SELECT DISTINCT file, image FROM boxes
WHERE NOT EXISTS (SELECT 1 FROM images WHERE file = boxes.file AND id = boxes.image)
"""
_HINT = "A COCO file is an object with the lists images, annotations and categories."
_SECTIONS = ("categories", "images", "annotations")
_STARTS, _ENDS = {"start_map", "start_array"}, {"end_map", "end_array"}
_DEEPEST = 100
_LONGEST_ID = 100

_Entry = dict[str, Any]
_ToRow = Callable[[_Entry, str], tuple[str | bytes | bool, ...]]


@dataclass(frozen=True)
class CocoImage:
    """An image by its path in the folder of the images: how often it is listed, and where if once.

    Its stamp is that of its file, and empty where there is none.
    """

    path: str
    listed: int
    file: int
    id: str
    width: str
    height: str
    stamp: str


@dataclass(frozen=True)
class CocoBox:
    """A box as a file lists it: `bbox` is still JSON, `category` None where the file has none of its id."""

    id: str
    category: str | None
    bbox: str
    crowd: bool


class Listing:
    """What all files say, to be asked image by image."""

    def __init__(self, connection: sqlite3.Connection, files: tuple[str, ...]) -> None:
        self._connection = connection
        self._files = files

    def add_found(self, files: Iterable[tuple[str, str]]) -> None:
        """Add images that are there, by path and stamp."""
        rows = ((os.fsencode(path), stamp) for path, stamp in files)
        self._connection.executemany("INSERT INTO found VALUES (?, ?)", rows)

    def images(self) -> Iterator[CocoImage]:
        """Yield every image that is listed or there, in the order of paths."""
        for path, *fields in self._connection.execute(_IMAGES):
            yield CocoImage(os.fsdecode(path), *fields)

    def boxes_of(self, image: CocoImage) -> tuple[CocoBox, ...]:
        """Return the boxes of an image, in the order of the file."""
        rows = self._connection.execute(_BOXES_OF, (image.file, image.id))
        return tuple(CocoBox(box_id, category, bbox, bool(crowd)) for box_id, category, bbox, crowd in rows)

    def orphans(self) -> Iterator[tuple[str, str]]:
        """Yield file and id of each image that has boxes and is not listed."""
        for file, image in self._connection.execute(_ORPHANS):
            yield self._files[file], image


@contextmanager
def open_listing(root: Path, files: tuple[str, ...], scratch: Path) -> Iterator[Listing]:
    """Read files into a database in `scratch`, for as long as the listing is open."""
    path = scratch / "coco.sqlite"
    try:
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(_TABLES)
            for number, file in enumerate(files):
                _read_file(connection, number, root, file)
            connection.executescript(_INDEXES)
            yield Listing(connection, files)
    finally:
        path.unlink(missing_ok=True)


def read_categories(root: Path, files: tuple[str, ...]) -> list[str]:
    """Return the names of the categories of all files, in the order of their ids."""
    found: dict[str, float] = {}
    for file in files:
        for section, place, entry in _entries(root, file):
            if section == "categories":
                found.setdefault(_text_of(entry, "name", place), _order(entry.get("id")))
    return sorted(found, key=lambda name: (found[name], name))


def _order(category_id: Any) -> float:
    return category_id if isinstance(category_id, int | float) else math.inf


def _read_file(connection: sqlite3.Connection, number: int, root: Path, file: str) -> None:
    tables: dict[str, tuple[str, _ToRow]] = {
        "categories": ("INSERT INTO categories VALUES (?, ?, ?)", _category_row),
        "images": ("INSERT INTO images VALUES (?, ?, ?, ?, ?)", _image_row),
        "annotations": ("INSERT INTO boxes VALUES (?, ?, ?, ?, ?, ?)", _box_row),
    }
    for section, place, entry in _entries(root, file):
        insert, to_row = tables[section]
        connection.execute(insert, (number, *to_row(entry, place)))


def _category_row(entry: _Entry, place: str) -> tuple[str, ...]:
    return _id_of(entry, "id", place), _text_of(entry, "name", place)


def _image_row(entry: _Entry, place: str) -> tuple[str | bytes, ...]:
    # A file of another system has its separators.
    path = str(PurePosixPath(_text_of(entry, "file_name", place).replace("\\", "/")))
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError:
        raise DataError(f"{place} has a file_name that is no text", hint=_HINT) from None
    return _id_of(entry, "id", place), encoded, _short(entry.get("width")), _short(entry.get("height"))


def _box_row(entry: _Entry, place: str) -> tuple[str | bytes | bool, ...]:
    ids = (_id_of(entry, "image_id", place), _short(entry.get("id")), _short(entry.get("category_id")))
    return *ids, json.dumps(entry.get("bbox")), entry.get("iscrowd") in (1, True, "1")


def _entries(root: Path, file: str) -> Iterator[tuple[str, str, _Entry]]:
    """Yield section, place and content of each entry of a file."""
    numbers = dict.fromkeys(_SECTIONS, 0)
    try:
        with (root / file).open("rb") as opened:
            for section, entry in _parse(ijson.basic_parse(opened, use_float=True)):
                place = f"{file}: {section}.{numbers[section]}"
                numbers[section] += 1
                if entry is None:
                    raise DataError(f"{place} is not an object", hint=_HINT)
                yield section, place, entry
    except (ijson.JSONError, _TooDeepError) as error:
        problem = str(error).splitlines()[0][:100]
        raise DataError(f"{file} is not JSON that can be read: {problem}", hint=_HINT) from None


class _TooDeepError(ValueError):
    """A document nests deeper than anything that is meant seriously."""


def _parse(events: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, _Entry | None]]:
    """Yield the entries of each section with their own values and their bbox; None for what is no object.

    What else an entry holds, outlines for the most part, is never put together: it may be of any size.
    """
    depth, section, key = 0, "", ""
    entry: _Entry = {}
    for event, value in events:
        if event == "map_key":
            section, key = (value, "") if depth == 1 else (section, value if depth == 3 else key)
        elif event in _STARTS:
            depth += 1
            if depth == 3:
                entry = {}
            elif depth == 4 and key == "bbox":
                entry[key] = []
            elif depth > _DEEPEST:
                raise _TooDeepError("nested too deeply")
        elif event in _ENDS:
            if depth == 3 and section in _SECTIONS:
                yield section, entry if event == "end_map" else None
            depth -= 1
        elif depth == 3:
            entry[key] = value
        elif depth == 4 and key == "bbox" and len(entry[key]) < 5:
            entry[key].append(value)
        elif depth == 2 and section in _SECTIONS:
            yield section, None


def _id_of(entry: _Entry, key: str, place: str) -> str:
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise DataError(f"{place} has no {key}", hint=_HINT)
    return _short(value)


def _text_of(entry: _Entry, key: str, place: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{place} has no {key}", hint=_HINT)
    return value.strip()


def _short(value: Any) -> str:
    return str(value)[:_LONGEST_ID]
