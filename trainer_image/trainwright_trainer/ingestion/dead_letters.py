"""Messages that can't be applied: kept whole, each with the reason, until somebody tries them again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainwright_trainer.files import write_atomically
from trainwright_trainer.ingestion.messages import PoisonError


@dataclass(frozen=True)
class DeadLetter:
    """A message in the folder."""

    offset: int
    time: int
    rule: str
    reason: str
    properties: dict[str, Any]
    body: Path

    @property
    def note(self) -> Path:
        """The file beside the message that tells of it."""
        return self.body.with_suffix(".json")

    def remove(self) -> None:
        """Take it out of the folder: it is applied."""
        self.note.unlink()
        self.body.unlink()


class DeadLetters:
    """The folder of dead letters: of each offset there is one, however often it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(
        self, offset: int, time: int, properties: Mapping[Any, Any], body: bytes, error: PoisonError
    ) -> None:
        """Put a message into the folder; the reason is written last, so a note without a body is none."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{offset:020d}.message"
        write_atomically(path, body)
        note = {
            "offset": offset,
            "time": time,
            "rule": error.rule,
            "reason": str(error),
            "properties": {_plain(key): _plain(value) for key, value in properties.items()},
        }
        write_atomically(path.with_suffix(".json"), json.dumps(note, indent=1).encode())

    def __iter__(self) -> Iterator[DeadLetter]:
        """Yield what is in the folder, the oldest first."""
        for path in sorted(self.folder.glob("*.json")):
            note = json.loads(path.read_bytes())
            yield DeadLetter(body=path.with_suffix(".message"), **note)

    def __len__(self) -> int:
        return sum(1 for _ in self.folder.glob("*.json"))


def _plain(value: Any) -> Any:
    """Return what JSON can hold of a property: an e-mail or a token in one is not asked for, and not kept."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")[:200]
    return value if isinstance(value, int | float | str | None) else str(value)[:200]
