"""Our own copies of checkpoints: Ultralytics writes its in place, so a crash could leave none that loads."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from trainwright.contract import Contract, Digest
from trainwright_trainer.files import copy_atomically, digest_file, write_atomically

_LOG = logging.getLogger(__name__)
_BEST = "best"


class CheckpointNote(Contract):
    """What is known of a checkpoint, in a file beside it: written last, so that it vouches for the copy."""

    epoch: int
    epochs: int
    batch_size: int
    metrics: dict[str, float]
    final: bool
    digest: Digest


@dataclass(frozen=True)
class Checkpoint:
    """A verified copy: `note.digest` was compared with the file."""

    path: Path
    note: CheckpointNote


class CheckpointStore:
    """A folder of checkpoints, of which the newest `keep` and the best one stay."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self._folder = folder
        self._keep = keep

    def save(self, source: Path, note: CheckpointNote) -> None:
        """Copy a checkpoint, and remove those that are too old."""
        self._copy(source, f"epoch-{note.epoch:06d}", note)
        for name in self._names_by_age()[self._keep :]:
            self._note_path(name).unlink(missing_ok=True)
            self._path(name).unlink(missing_ok=True)

    def save_best(self, source: Path, note: CheckpointNote) -> None:
        """Copy the checkpoint of the best epoch so far."""
        self._copy(source, _BEST, note)

    def newest(self) -> Checkpoint | None:
        """Return the newest copy that is whole; damaged ones are passed over."""
        return next((found for name in self._names_by_age() if (found := self._load(name))), None)

    def best(self) -> Checkpoint | None:
        """Return the copy of the best epoch, if it is whole."""
        return self._load(_BEST)

    def _copy(self, source: Path, name: str, note: CheckpointNote) -> None:
        self._note_path(name).unlink(missing_ok=True)
        copy_atomically(source, self._path(name))
        write_atomically(self._note_path(name), note.model_dump_json(by_alias=True).encode())

    def _load(self, name: str) -> Checkpoint | None:
        path = self._path(name)
        try:
            note = CheckpointNote.model_validate_json(self._note_path(name).read_bytes())
            if digest_file(path) == note.digest:
                return Checkpoint(path, note)
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            _LOG.warning("checkpoint %s can't be read (%s)", name, type(error).__name__)
            return None
        _LOG.warning("checkpoint %s is damaged: its digest differs from its note", name)
        return None

    def _names_by_age(self) -> list[str]:
        return sorted((path.stem for path in self._folder.glob("epoch-*.json")), reverse=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.pt"

    def _note_path(self, name: str) -> Path:
        return self._folder / f"{name}.json"
