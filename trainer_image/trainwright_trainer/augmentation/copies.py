"""The altered copies of a whole training split: those that are known already, and those still to be made."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trainwright.contract import AugmentationSettings
from trainwright_trainer.annotations.ledger import Placed, open_database
from trainwright_trainer.annotations.readings import ObjectStore
from trainwright_trainer.augmentation.making import Copy, CopyTask, Original, describe_making
from trainwright_trainer.workers import carry_out, usable_cpus

_BATCH = 4  # images, each altered several times
_WORTH_PROCESSES = 200  # copies
_ANSWERS_IN_A_COMMIT = 200
_SCHEMA = """
CREATE TABLE IF NOT EXISTS copies (
    key TEXT, number INTEGER, copy TEXT NOT NULL, PRIMARY KEY (key, number)) WITHOUT ROWID;
DROP TABLE IF EXISTS wanted;
CREATE TABLE wanted (key TEXT PRIMARY KEY) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class FailedCopy:
    """A copy that could not be made; its original is in the dataset all the same."""

    name: str
    number: int
    problem: str

    def to_line(self) -> str:
        """Return a line of the list of what failed."""
        return json.dumps({"name": self.name, "copy": self.number, "reason": self.problem}) + "\n"


class Copies:
    """The database of copies, each found by all that decides what it looks like; `open_copies` opens it."""

    def __init__(
        self, database: sqlite3.Connection, settings: AugmentationSettings, store: ObjectStore
    ) -> None:
        self._database = database
        self._settings = settings
        self._store = store
        self._made_by = describe_making(settings)

    def make(
        self,
        placed: Callable[[], Iterable[Placed]],
        advance: Callable[[int, int], None],
        *,
        processes: int | None = None,
    ) -> Iterator[FailedCopy]:
        """Make what is missing of the copies of all training images; yield those that failed."""
        if not self._settings.copies:
            return
        count = sum(len(original.numbers) for original in self._missing(placed()))
        if processes is None:
            processes = 0 if count < _WORTH_PROCESSES else usable_cpus()
        task = CopyTask(self._settings, self._store.folder)
        answers = carry_out(task, self._missing(placed()), processes=processes, batch=_BATCH)
        done = 0
        for step, answer in enumerate(answers, start=1):
            copies = [Copy.from_json(fields) for fields in answer["copies"]]
            self._record(answer["key"], [copy for copy in copies if not copy.problem])
            yield from (
                FailedCopy(answer["name"], copy.number, copy.problem) for copy in copies if copy.problem
            )
            done += len(copies)
            advance(done, count)
            if step % _ANSWERS_IN_A_COMMIT == 0:  # a build that is stopped goes on from there
                self._database.commit()
        self._database.commit()

    def named(self, item: Placed, is_taken: Callable[[str], bool]) -> dict[str, Copy]:
        """Return the copies of an image by their names without suffix; only training images have any.

        They are `NAME_1` and so on, unless an annotation is called so.
        """
        if item.split != "train" or not self._settings.copies:
            return {}
        known = self._known(self._key_of(item))
        copies = [known[number] for number in sorted(known) if number <= self._settings.copies]
        if not copies:
            return {}
        stem, names = item.name, [f"{item.name}_{copy.number}" for copy in copies]
        while any(map(is_taken, names)):
            stem += f"_{item.image[:12]}"
            names = [stem, *(f"{stem}_{copy.number}" for copy in copies)]
        return dict(zip(names[-len(copies) :], copies, strict=True))

    def forget_unwanted(self) -> None:
        """Drop copies that this build did not ask for."""
        self._database.execute("DELETE FROM copies WHERE key NOT IN (SELECT key FROM wanted)")
        self._database.execute("DELETE FROM copies WHERE number > ?", (self._settings.copies,))

    def _missing(self, placed: Iterable[Placed]) -> Iterator[Original]:
        for item in placed:
            if item.split != "train":
                continue
            key = self._key_of(item)
            self._database.execute("INSERT OR IGNORE INTO wanted VALUES (?)", (key,))
            known = self._known(key)
            numbers = tuple(n for n in range(1, self._settings.copies + 1) if n not in known)
            if numbers:
                yield Original(key, item.name + item.suffix, item.image, item.suffix, item.label, numbers)

    def _key_of(self, item: Placed) -> str:
        parts = "\0".join((self._made_by, item.image, item.suffix, item.label))
        return hashlib.blake2b(parts.encode(), digest_size=16).hexdigest()

    def _known(self, key: str) -> dict[int, Copy]:
        rows = self._database.execute("SELECT copy FROM copies WHERE key = ?", (key,))
        copies = [Copy.from_json(json.loads(text)) for (text,) in rows]
        has = self._store.has
        return {copy.number: copy for copy in copies if has(copy.image, copy.image_size, copy.image_time)}

    def _record(self, key: str, copies: Iterable[Copy]) -> None:
        rows = ((key, copy.number, json.dumps(copy.to_json())) for copy in copies)
        self._database.executemany("INSERT OR REPLACE INTO copies VALUES (?, ?, ?)", rows)


@contextmanager
def open_copies(path: Path, settings: AugmentationSettings, store: ObjectStore) -> Iterator[Copies]:
    """Open the database of copies, or begin one; a damaged one is begun again."""
    with open_database(path, _SCHEMA) as database:
        yield Copies(database, settings, store)
