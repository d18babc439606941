"""What the consumer that writes to the trees says of itself, for others that want to know how far it is."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from trainwright.contract import Contract, Directories
from trainwright_trainer.files import write_atomically
from trainwright_trainer.ingestion.volume import using

_FILE = "consumer.json"


class Announcement(Contract):
    """Which stream is read, and into which trees below the root."""

    stream: str
    directories: Directories

    def __str__(self) -> str:
        return f"stream {self.stream!r} into {self.directories}"

    def write(self, folder: Path) -> None:
        """Write it down."""
        with using(folder):
            write_atomically(folder / _FILE, self.model_dump_json(by_alias=True).encode())


def read_announcement(folder: Path) -> Announcement | None:
    """Return what the newest consumer said; None, as long as it has not."""
    try:
        return Announcement.model_validate_json((folder / _FILE).read_bytes())
    except (OSError, ValidationError):
        return None
