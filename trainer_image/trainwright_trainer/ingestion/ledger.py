"""What was applied: every name's events, and the offset up to which the stream is done; one file, one writer.

An entry is written when the files that it tells of are durable. So whatever a crash leaves undone is applied
again, from the offset on.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from trainwright.errors import ConfigurationError, StorageError
from trainwright_trainer.ingestion.events import Event, Status

FILE = "ledger.sqlite"
VERSION = 1
"""Of the tables, kept in the file: a later one is not written to."""

_READING = ("offset", "time", "begun")
_VARIABLES = 500  # names asked for at once
_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
  name TEXT, key BLOB, at INTEGER, status INTEGER, validated INTEGER, labels TEXT, image TEXT, suffix TEXT,
  date INTEGER,
  PRIMARY KEY (name, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Position:
    """Up to where messages are applied; `time` is when the broker had the last one, if that is known."""

    offset: int
    time: int | None = None


class Ledger:
    """The ledger of one root of data trees; `durable` makes every entry survive a loss of power."""

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        self._path = folder / FILE
        with self._explained(), ExitStack() as stack:
            self._database = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
            stack.callback(self._database.close)
            # No write-ahead log: it needs shared memory, which network file systems do not have.
            for pragma in (
                "locking_mode = EXCLUSIVE",
                "journal_mode = TRUNCATE",
                f"synchronous = {'FULL' if durable else 'OFF'}",
                "cache_size = -65536",
                "trusted_schema = OFF",
            ):
                self._database.execute(f"PRAGMA {pragma}")
            self._check_version()
            self._database.executescript(f"{_SCHEMA} PRAGMA user_version = {VERSION}")
            stack.pop_all()

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    @property
    def is_new(self) -> bool:
        """Whether nothing was recorded yet, not even what an earlier consumer left."""
        return self._fact("images") is None

    @property
    def position(self) -> Position | None:
        """Up to where every message is applied, or None where none is."""
        offset = self._fact("offset")
        return None if offset is None else Position(offset, self._fact("time"))

    @property
    def begun(self) -> int | None:
        """The offset of the newest message whose files may have been written, done or not."""
        return self._fact("begun")

    @property
    def images(self) -> int:
        """How many images came in all: it only grows, and tells one state of the trees from another."""
        return self._fact("images") or 0

    def histories(self, names: Sequence[str]) -> dict[str, list[Event]]:
        """Return the events of those of the names that have any."""
        found: dict[str, list[Event]] = {}
        for start in range(0, len(names), _VARIABLES):
            some = names[start : start + _VARIABLES]
            marks = ",".join("?" * len(some))
            query = (
                "SELECT name, at, status, validated, labels, image, suffix, date"  # noqa: S608 - marks only
                f" FROM events WHERE name IN ({marks})"
            )
            with self._explained():
                rows = self._database.execute(query, some).fetchall()
            for name, at, status, validated, *rest in rows:
                event = Event(name, at, Status(status), bool(validated), *rest)
                found.setdefault(name, []).append(event)
        return found

    def begin(self, offset: int) -> None:
        """Write down that the files of messages up to this offset are about to be written."""
        with self._explained():
            self._database.execute(
                # A consumer that ended may have been further than this one is by now.
                "INSERT INTO facts VALUES ('begun', ?)"
                " ON CONFLICT (name) DO UPDATE SET value = MAX(value, excluded.value)",
                (offset,),
            )

    def rewind(self) -> None:
        """Forget the offset, and nothing else: the stream is read from its beginning again."""
        offset, begun = self._fact("offset"), self._fact("begun")
        done = ("offset", "time") if begun is None or offset is None or begun > offset else _READING
        with self._explained():
            self._database.executemany("DELETE FROM facts WHERE name = ?", [(name,) for name in done])

    def settle_directories(self, directories: str) -> str:
        """Return the names of the trees that the ledger tells of: these, where it tells of none yet."""
        with self._explained():
            self._database.execute("INSERT OR IGNORE INTO facts VALUES ('directories', ?)", (directories,))
            rows = self._database.execute("SELECT value FROM facts WHERE name = 'directories'").fetchall()
        return str(rows[0][0])

    @property
    def is_replaying(self) -> bool:
        """Whether dead letters were being applied when the last consumer ended."""
        return self._fact("replaying") is not None

    def begin_replay(self) -> None:
        """Write down that the files of dead letters are about to be written."""
        with self._explained():
            self._database.execute("INSERT OR REPLACE INTO facts VALUES ('replaying', 1)")

    def end_replay(self) -> None:
        """Write down that they are, and in the ledger."""
        with self._explained():
            self._database.execute("DELETE FROM facts WHERE name = 'replaying'")

    def record(self, events: Iterable[Event], *, position: Position | None) -> None:
        """Write down events that were applied, and up to where, in one transaction."""
        rows = [
            (e.name, e.key, e.at, e.status, e.validated, e.labels, e.image, e.suffix, e.date) for e in events
        ]
        with self._explained():
            self._database.execute("BEGIN")
            self._database.executemany(
                "INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows
            )
            self._add("images", sum(row[6] is not None for row in rows))
            if position is not None:
                facts = (("offset", position.offset), ("time", position.time))
                self._database.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts)
            self._database.execute("COMMIT")

    def _add(self, name: str, number: int) -> None:
        self._database.execute(
            "INSERT INTO facts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
            (name, number),
        )

    def _fact(self, name: str) -> int | None:
        with (
            self._explained(),
            closing(self._database.execute("SELECT value FROM facts WHERE name = ?", (name,))) as rows,
        ):
            row = rows.fetchone()
        return None if row is None or row[0] is None else int(row[0])

    def _check_version(self) -> None:
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise ConfigurationError(
                f"the ledger {self._path} is of version {version}, and this program knows {VERSION}",
                hint="Use the newer program that wrote it: this one would not understand what was applied.",
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Undo what fails, and say what it means."""
        try:
            yield
        except sqlite3.Error as error:
            with suppress(AttributeError, sqlite3.Error):  # there may be no database, or none that works
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
            code = getattr(error, "sqlite_errorcode", None) or 0
            hint = _HINTS.get(code & 0xFF, "See that the volume is there and works.")
            raise StorageError(
                f"the ledger {self._path} can't be used: {error}",
                hint=f"{hint} Nothing is lost: the messages are applied again.",
            ) from error


_DAMAGED = (
    "Restore it from a backup, or move it away: then the files of the trees are taken over as they are, and"
    " the stream is read on from the offset in offset.yaml."
)
_HINTS = {
    sqlite3.SQLITE_FULL: "Make room on the volume.",
    sqlite3.SQLITE_READONLY: "Mount the volume of the data trees writable for this consumer.",
    sqlite3.SQLITE_CANTOPEN: "Let the consumer's user write to the data trees.",
    sqlite3.SQLITE_BUSY: "Stop the other program that uses it: there is one consumer at a time.",
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
}
