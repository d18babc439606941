"""`offset.yaml`: where the stream was read to, as people and earlier consumers read and write it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import yaml

from trainwright.errors import DataError
from trainwright_trainer.files import write_atomically
from trainwright_trainer.ingestion.volume import using

_LOG = logging.getLogger(__name__)

KEYS = ("offset", "offset_queue", "offset_command")
"""What the offset is called there: by us, and by earlier consumers."""


class OffsetFile:
    """The file beside the trees; other things in it stay as they are."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written: int | None = None

    def read(self) -> int | None:
        """Return an offset up to which everything is applied, or None where there is none.

        Some consumers wrote the last message's offset, others the next one's: we read that one message again.
        Raises `DataError` for a file that can't be understood: to start at the beginning could be wrong.
        """
        content = self._load()
        for key in KEYS:
            if key in content:
                value = content[key]
                if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                    raise self._unreadable(f"{key} is {str(value)[:40]!r}, no offset")
                return value - 1 if value else None
        if content:
            raise self._unreadable(f"it has none of {', '.join(KEYS)}")
        return None

    def read_applied(self) -> int | None:
        """Return the offset that a consumer of ours wrote last, or None where none has."""
        offset = self._load().get("offset")
        return offset if isinstance(offset, int) else None

    def remove(self) -> None:
        """Take the file away, with all that is in it."""
        with using(self.path):
            self.path.unlink(missing_ok=True)
        self._written = None

    def write(self, offset: int) -> None:
        """Write the offset down if it is another than last time."""
        if offset == self._written:
            return
        try:
            former = self._load()
            content = {key: value for key, value in former.items() if key not in KEYS}
        except DataError as error:
            _LOG.warning("%s; it is written anew: the ledger knows the offset", error)
            former, content = {}, {}
        if former.get("offset") == offset:
            self._written = offset
            return
        with using(self.path):
            write_atomically(self.path, yaml.safe_dump({"offset": offset, **content}).encode())
        self._written = offset

    def _load(self) -> dict[str, Any]:
        try:
            with using(self.path):
                if not self.path.exists():
                    return {}
                content = yaml.safe_load(self.path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise self._unreadable("it is no YAML") from error
        if content is None:
            return {}
        if isinstance(content, int) and not isinstance(content, bool):
            return {"offset": content}
        if not isinstance(content, dict):
            raise self._unreadable("it is no mapping")
        return content

    def _unreadable(self, why: str) -> DataError:
        return DataError(
            f"{self.path}: {why}",
            hint="Write `offset: NUMBER` of the last message that was applied, or remove the file: then the"
            " stream is read from its beginning, where there is no ledger yet.",
        )
