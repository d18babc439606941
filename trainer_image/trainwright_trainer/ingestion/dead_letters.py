"""Messages that can't be applied: kept whole, each with the reason, until somebody tries them again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainwright_trainer.files import write_atomically
from trainwright_trainer.ingestion.messages import PoisonError
from trainwright_trainer.ingestion.volume import using

_BODY, _NOTE = ".message", ".json"


@dataclass(frozen=True)
class DeadLetter:
    """A message in the folder."""

    offset: int
    time: int
    rule: str
    reason: str
    properties: dict[str, Any]
    note: Path

    @property
    def body(self) -> Path:
        """The message itself, beside the note that tells of it."""
        return self.note.with_suffix(_BODY)

    def remove(self) -> None:
        """Take it out of the folder: it is applied."""
        self.note.unlink()
        self.body.unlink(missing_ok=True)


@dataclass(frozen=True)
class LostLetter:
    """A note that can't be understood, or whose message is gone: left to people."""

    note: Path
    reason: str


class DeadLetters:
    """The folder of dead letters: of each message there is one, however often it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(
        self, offset: int, time: int, properties: Mapping[Any, Any], body: bytes, error: PoisonError
    ) -> None:
        """Put a message into the folder; the reason is written last, so a note without a body is none."""
        note = {
            "offset": offset,
            "time": time,
            "rule": error.rule,
            "reason": str(error),
            "properties": {_plain(key): _plain(value) for key, value in properties.items()},
        }
        with using(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / f"{offset:020d}{_BODY}"
            if path.exists() and path.read_bytes() != body:  # the same offset of a stream that was made anew
                path = path.with_stem(f"{path.stem}-{hashlib.sha256(body).hexdigest()[:12]}")
            write_atomically(path, body)
            write_atomically(path.with_suffix(_NOTE), json.dumps(note, indent=1).encode())

    def sweep(self) -> None:
        """Remove what is left of a letter that was being removed."""
        with using(self.folder):
            for path in self.folder.glob(f"*{_BODY}"):
                if not path.with_suffix(_NOTE).exists():
                    path.unlink()

    def __iter__(self) -> Iterator[DeadLetter | LostLetter]:
        """Yield what is in the folder, the oldest first."""
        for path in sorted(self.folder.glob(f"*{_NOTE}")):
            yield _read(path)

    def __len__(self) -> int:
        return sum(1 for _ in self.folder.glob(f"*{_NOTE}"))


def _read(path: Path) -> DeadLetter | LostLetter:
    try:
        letter = DeadLetter(note=path, **json.loads(path.read_bytes()))
        numbers = type(letter.offset) is type(letter.time) is int
    except (OSError, ValueError, TypeError, RecursionError) as error:
        return LostLetter(path, f"its note can't be read: {type(error).__name__}")
    if not numbers or not isinstance(letter.properties, dict):
        return LostLetter(path, "its note can't be read: offset, time and properties are none")
    if not letter.body.is_file():
        return LostLetter(path, f"its message {letter.body.name} is not there")
    return letter


def _plain(value: Any) -> Any:
    """Return what JSON can hold of a property: its status is needed again, of others the beginning tells."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return value if isinstance(value, int | float | None) else str(value)[:200]
