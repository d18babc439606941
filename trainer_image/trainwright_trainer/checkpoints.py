"""Our own copies of checkpoints: Ultralytics writes its in place, so a crash could leave none that loads."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from trainwright.contract import Contract, Digest
from trainwright_trainer.files import copy_atomically, digest_bytes, digest_file, write_atomically

_LOG = logging.getLogger(__name__)
_BEST = "best"


class CheckpointNote(Contract):
    """What is known of a checkpoint; `digest` leads to the copy that it vouches for."""

    epoch: int
    epochs: int
    batch_size: int
    metrics: dict[str, float]
    final: bool
    digest: Digest
    time: datetime


class CheckpointManifest(Contract):
    """A checkpoint as a whole: the training it belongs to, its last epoch, and the best one up to it."""

    training: Digest
    last: CheckpointNote
    best: CheckpointNote | None = None

    def to_bytes(self) -> bytes:
        """Return the bytes whose digest stands for the checkpoint."""
        return self.model_dump_json(by_alias=True).encode()

    @property
    def digest(self) -> str:
        """`sha256:` and the hex digest of its bytes."""
        return digest_bytes(self.to_bytes())


@dataclass(frozen=True)
class Checkpoint:
    """A verified copy: `note.digest` was compared with the file."""

    path: Path
    note: CheckpointNote


class CheckpointFolder:
    """The checkpoints of one training in a workspace, of which the newest `keep` and the best one stay.

    A copy is named by its digest and written before its note, and what no note leads to any more is removed
    last: at every moment a crash leaves what the notes promise. `training` is the digest of all that the
    weights come from; checkpoints of any other training in the folder are removed.
    """

    def __init__(self, folder: Path, training: Digest, keep: int = 2) -> None:
        self._folder = folder / training.removeprefix("sha256:")[:16]
        self._keep = keep
        self._training = training
        self._copied: set[Digest] = set()  # by us: an epoch may be the newest and the best
        for other in set(folder.glob("*")) - {self._folder}:
            _LOG.warning("checkpoints of another dataset or plan are removed: %s", other.name)
            shutil.rmtree(other) if other.is_dir() else other.unlink()

    def save(self, source: Path, note: CheckpointNote) -> Checkpoint:
        """Copy a checkpoint, and remove those that are too old; return the copy."""
        self._copy(source, f"epoch-{note.epoch:06d}", note)
        return Checkpoint(self.path_of(note), note)

    def save_best(self, source: Path, note: CheckpointNote) -> None:
        """Copy the checkpoint of the best epoch so far, in the place of the former best."""
        self._copy(source, _BEST, note)

    def newest(self) -> Checkpoint | None:
        """Return the newest copy that is whole; damaged ones are passed over."""
        return next((found for name in self._names_by_age() if (found := self._load(name))), None)

    def best(self) -> Checkpoint | None:
        """Return the copy of the best epoch, if it is whole."""
        return self._load(_BEST)

    @property
    def training(self) -> Digest:
        """The digest of all that the weights come from."""
        return self._training

    def path_of(self, note: CheckpointNote) -> Path:
        """Return where the copy is that a note vouches for."""
        return self._folder / f"{note.digest.removeprefix('sha256:')[:16]}.pt"

    def describe(self, checkpoint: Checkpoint) -> CheckpointManifest:
        """Return the manifest of a checkpoint of this folder."""
        return CheckpointManifest(training=self._training, last=checkpoint.note, best=self._read_note(_BEST))

    def _copy(self, source: Path, name: str, note: CheckpointNote) -> None:
        if note.digest not in self._copied or not self.path_of(note).is_file():
            copy_atomically(source, self.path_of(note))
            self._copied.add(note.digest)
        write_atomically(self._note_path(name), note.model_dump_json(by_alias=True).encode())
        for old in self._names_by_age()[self._keep :]:
            self._note_path(old).unlink()
        self._remove_forgotten()

    def _remove_forgotten(self) -> None:
        """Remove the copies that no note leads to, and what an interrupted one left."""
        notes = filter(None, map(self._read_note, [*self._names_by_age(), _BEST]))
        for path in set(self._folder.glob("*.pt*")) - set(map(self.path_of, notes)):
            path.unlink()

    def _load(self, name: str) -> Checkpoint | None:
        note = self._read_note(name)
        if note is None:
            return None
        path = self.path_of(note)
        if path.is_file() and digest_file(path) == note.digest:
            return Checkpoint(path, note)
        _LOG.warning("checkpoint %s is missing or damaged: its digest differs from its note", name)
        return None

    def _read_note(self, name: str) -> CheckpointNote | None:
        try:
            return CheckpointNote.model_validate_json(self._note_path(name).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            _LOG.warning("the note of checkpoint %s can't be read (%s)", name, type(error).__name__)
            return None

    def _names_by_age(self) -> list[str]:
        return sorted((path.stem for path in self._folder.glob("epoch-*.json")), reverse=True)

    def _note_path(self, name: str) -> Path:
        return self._folder / f"{name}.json"
