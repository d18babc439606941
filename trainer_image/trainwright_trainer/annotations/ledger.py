"""The ledger: what the build knows of its annotations, in a database beside the images instead of in memory.

What was read stays in it: the next build of the same source reads only what changed. It is a cache: damaged
or lost, everything is read again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from trainwright_trainer.annotations.items import Rule
from trainwright_trainer.annotations.readings import Reading
from trainwright_trainer.annotations.splitting import Entry, Split

_LOG = logging.getLogger(__name__)
_READINGS_IN_A_COMMIT = 2000
_SCHEMA = """
PRAGMA journal_mode = TRUNCATE;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS readings (
    key BLOB PRIMARY KEY, rule TEXT NOT NULL, reason TEXT NOT NULL, suffix TEXT NOT NULL, media TEXT NOT NULL,
    image BLOB NOT NULL, image_size INTEGER NOT NULL, image_time INTEGER NOT NULL,
    width INTEGER NOT NULL, height INTEGER NOT NULL, look BLOB NOT NULL,
    label TEXT NOT NULL, boxes TEXT NOT NULL, repairs TEXT NOT NULL,
    small INTEGER NOT NULL, medium INTEGER NOT NULL, large INTEGER NOT NULL);
DROP TABLE IF EXISTS wanted;
CREATE TABLE wanted (
    name TEXT PRIMARY KEY, key BLOB NOT NULL, split TEXT, family INTEGER, earlier TEXT) WITHOUT ROWID;
DROP TABLE IF EXISTS earlier;
CREATE TABLE earlier (image BLOB PRIMARY KEY, split TEXT NOT NULL) WITHOUT ROWID;
"""
_PASSING = (Rule.CRASH, Rule.UNREADABLE)  # rights and memory may be there the next time
_FIT = "FROM wanted JOIN readings USING (key) WHERE rule = ''"


@dataclass(frozen=True)
class Placed:
    """A fit annotation with the split it belongs to."""

    name: str
    suffix: str
    media: str
    split: Split
    image: str
    image_size: int
    width: int
    height: int
    label: str
    boxes: dict[int, int]


class Ledger:
    """The database of one build; `open_ledger` opens it."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._unwritten = 0
        database.create_function("in_order", 1, _in_order, deterministic=True)

    def want(self, name: str, key: bytes) -> bool:
        """Note a name of the source; return whether it is new among the wanted ones."""
        cursor = self._database.execute("INSERT OR IGNORE INTO wanted (name, key) VALUES (?, ?)", (name, key))
        return cursor.rowcount == 1

    def want_nothing(self) -> None:
        """Begin to note the names of the source."""
        self._database.execute("DELETE FROM wanted")

    def has_name(self, name: str) -> bool:
        """Return whether an annotation of the source is called so."""
        return self._database.execute("SELECT 1 FROM wanted WHERE name = ?", (name,)).fetchone() is not None

    def find_image(self, key: bytes) -> tuple[str, int, int] | None:
        """Return digest, size and time of the image of an earlier reading; the digest is empty if unfit.

        What could not be read for reasons that are not in the file is to be tried again.
        """
        query = "SELECT image, image_size, image_time FROM readings WHERE key = ? AND rule NOT IN (?, ?)"
        row = self._database.execute(query, (key, *_PASSING)).fetchone()
        return None if row is None else (row[0].hex(), row[1], row[2])

    def record(self, key: bytes, reading: Reading) -> None:
        """Keep a reading; every so many are on disk, so that a build that is stopped goes on from there."""
        self._database.execute(
            "INSERT OR REPLACE INTO readings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                key,
                reading.rule or "",
                reading.reason,
                reading.suffix,
                reading.media,
                bytes.fromhex(reading.image),
                reading.image_size,
                reading.image_time,
                reading.width,
                reading.height,
                bytes.fromhex(reading.look),
                reading.label,
                json.dumps(reading.boxes or {}),
                json.dumps(reading.repairs),
                *reading.box_sizes,
            ),
        )
        self._unwritten += 1
        if self._unwritten >= _READINGS_IN_A_COMMIT:
            self.commit()

    def commit(self) -> None:
        """Write down what was recorded."""
        self._database.commit()
        self._unwritten = 0

    def note_earlier(self, sides: Iterable[tuple[str, Split]]) -> None:
        """Note on which side images, by their digests, were in an earlier dataset."""
        rows = ((bytes.fromhex(image.removeprefix("sha256:")), split) for image, split in sides)
        self._database.executemany("INSERT OR IGNORE INTO earlier VALUES (?, ?)", rows)

    def unfit(self, most: int = -1) -> Iterator[tuple[str, str, str]]:
        """Yield the names that were left out, the rule they break, and how."""
        query = (
            "SELECT name, rule, reason FROM wanted JOIN readings USING (key) WHERE rule != '' ORDER BY name"
        )
        yield from self._database.execute(f"{query} LIMIT ?", (most,))

    def count(self) -> tuple[int, int]:
        """Return how many annotations are wanted, and how many of them are unfit."""
        query = "SELECT COUNT(*), COALESCE(SUM(rule != ''), 0) FROM wanted JOIN readings USING (key)"
        wanted, unfit = self._database.execute(query).fetchone()
        return wanted, unfit

    def count_by_rule(self) -> dict[str, int]:
        """Return how many annotations were left out for each rule."""
        query = "SELECT rule, COUNT(*) FROM wanted JOIN readings USING (key) WHERE rule != '' GROUP BY rule"
        return dict(self._database.execute(query))

    def count_by_repair(self) -> dict[str, int]:
        """Return in how many annotations each thing was put right."""
        query = f"SELECT value, COUNT(DISTINCT name) {_FIT.replace('WHERE', ', json_each(repairs) WHERE')}"
        return dict(self._database.execute(f"{query} GROUP BY value"))

    def entries(self) -> Iterator[Entry]:
        """Yield what the split needs of each fit annotation, media in the order of their names."""
        query = (
            "SELECT name, media, image, look, earlier.split"
            " FROM wanted JOIN readings USING (key) LEFT JOIN earlier USING (image)"
            " WHERE rule = '' ORDER BY in_order(media), in_order(name), name"
        )
        for name, media, image, look, split in self._database.execute(query):
            yield Entry(name, media, image.hex(), look, split)

    def place(self, placed: Iterable[tuple[str, Split, int]]) -> None:
        """Note the split of each name, and the number of the family it must stay with."""
        rows = ((split, family, name) for name, split, family in placed)
        self._database.executemany("UPDATE wanted SET split = ?, family = ? WHERE name = ?", rows)

    def placed(self) -> Iterator[Placed]:
        """Yield every fit annotation in the order of the names of their images."""
        query = (
            "SELECT name, suffix, media, split, image, image_size, width, height, label, boxes"
            f" {_FIT} ORDER BY name || suffix"
        )
        for row in self._database.execute(query):
            name, suffix, media, split, image, size, width, height, label, boxes = row
            counts = {int(class_id): count for class_id, count in json.loads(boxes).items()}
            yield Placed(name, suffix, media, split, image.hex(), size, width, height, label, counts)

    def total(self, split: Split) -> dict[str, int]:
        """Return sums over a split: images, backgrounds, bytes, families, and boxes by size."""
        query = (
            "SELECT COUNT(*) AS images, COUNT(CASE WHEN label = '' THEN 1 END) AS backgrounds,"
            " COALESCE(SUM(image_size), 0) AS bytes, COUNT(DISTINCT family) AS groups,"
            " COALESCE(SUM(small), 0) AS smallBoxes, COALESCE(SUM(medium), 0) AS mediumBoxes,"
            f" COALESCE(SUM(large), 0) AS largeBoxes {_FIT} AND split = ?"
        )
        cursor = self._database.execute(query, (split,))
        return dict(zip((column[0] for column in cursor.description), cursor.fetchone(), strict=True))

    def image_sizes(self, most: int) -> list[tuple[int, int, int]]:
        """Return width, height and count of the sizes that images most often have."""
        query = f"SELECT width, height, COUNT(*) {_FIT} GROUP BY width, height ORDER BY 3 DESC, 1, 2 LIMIT ?"
        return list(self._database.execute(query, (most,)))

    def forget_unwanted(self) -> None:
        """Drop readings of what the source no longer has."""
        self._database.execute("DELETE FROM readings WHERE key NOT IN (SELECT key FROM wanted)")


@contextmanager
def open_ledger(path: Path) -> Iterator[Ledger]:
    """Open a ledger, or begin one; a damaged one is begun again."""
    with open_database(path, _SCHEMA) as database:
        yield Ledger(database)


@contextmanager
def open_database(path: Path, schema: str) -> Iterator[sqlite3.Connection]:
    """Open a database of what need not be done again, or begin one; a damaged one is begun again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        database = _connect(path, schema)
    except sqlite3.DatabaseError as error:
        _LOG.warning("%s can't be read (%s): everything in it is done again", path.name, error)
        path.unlink()
        database = _connect(path, schema)
    with closing(database):
        try:
            yield database
        finally:
            database.commit()


def key_of(name: str, stamp: str, rules: str) -> bytes:
    """Return what a reading is found by again: the same files and the same rules give the same reading."""
    return hashlib.blake2b(f"{rules}\0{name}\0{stamp}".encode(), digest_size=16).digest()


def _connect(path: Path, schema: str) -> sqlite3.Connection:
    database = sqlite3.connect(path)
    try:
        database.executescript(schema)
    except sqlite3.DatabaseError:
        database.close()
        raise
    return database


def _in_order(name: str) -> str:
    """Return the name with its numbers padded: belt_9 comes before belt_10."""
    return re.sub(r"\d+", lambda number: number[0].zfill(20), name)
