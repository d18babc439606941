"""Checkpoints beside the workspace, so that another attempt goes on from them on any node.

    NAMESPACE/RUN/UID/TRAINING/EXECUTION/epoch-000012-DIGEST.json    the manifest, written last
                                         DIGEST.pt                   the files that it names

Each execution writes into a folder of its own, and removes only what is there and what it found when it
began: one that was given up, but still runs on a lost node, can't harm the one that took its place.
A manifest is believed if it was reported to the run's status, which only the run's current pod may write;
the files are believed for the manifest's digests. Whoever else may write to the store can plant nothing.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from trainwright.bucket import MissingError
from trainwright.contract import CheckpointReport, Digest, RunIdentity
from trainwright.errors import StepError
from trainwright_trainer.checkpoints import CheckpointManifest, CheckpointNote
from trainwright_trainer.files import digest_bytes, digest_file
from trainwright_trainer.storage import Storage

_LOG = logging.getLogger(__name__)
_MANIFEST = re.compile(
    r"(?P<training>[0-9a-f]{16})/(?P<attempt>\d{4,})-[0-9a-f]{8}/epoch-(?P<epoch>\d{6,})-[0-9a-f]{16}\.json"
)


@dataclass(frozen=True)
class Reported:
    """What the run's status says of checkpoints: the digests that may be believed."""

    checkpoint: CheckpointReport | None = None

    @property
    def digests(self) -> frozenset[str]:
        """The manifests that were reported."""
        found = self.checkpoint
        return frozenset() if found is None else frozenset({found.digest, *found.earlier})


@dataclass(frozen=True)
class Fetched:
    """A checkpoint that was fetched and verified: its files lie in a folder of the workspace."""

    manifest: CheckpointManifest
    last: Path
    best: Path | None


class CheckpointStore:
    """The checkpoints of one run in a storage, as one execution sees them."""

    def __init__(
        self, storage: Storage, run: RunIdentity, *, attempt: int, keep: int, reported: Reported | None
    ) -> None:
        """`reported` is None where there is no cluster whose status could be asked: all is believed then."""
        self._storage = storage
        self._root = f"{run.namespace}/{run.name}/{run.uid or 'local'}/"
        self._execution = f"{attempt:04d}-{secrets.token_hex(4)}"
        self._keep = keep
        self._reported = reported
        self._found: list[str] = []
        self._files: set[str] = set()
        self._manifests: list[CheckpointManifest] = []

    def open(self) -> None:
        """Look what is there, and prove that we may write, read and delete; else raise what is wrong."""
        self._found = self._storage.list(self._root)
        probe = f"{self._root}{self._execution}.probe"
        self._storage.put_bytes(b"probe", probe)
        self._storage.read(probe)
        self._storage.delete(probe)

    def fetch_newest(
        self, training: Digest, folder: Path, *, after: int, is_harmless: Callable[[Path], bool]
    ) -> Fetched | None:
        """Fetch the newest whole checkpoint later than epoch `after`; damaged ones are passed over."""
        for key in self._names_by_age(training, after):
            try:
                fetched = self._fetch(key, training, folder)
            except MissingError as error:
                _LOG.warning("checkpoint %s is passed over: %s", key, error)
                continue
            if fetched is None:
                continue
            if all(is_harmless(path) for path in (fetched.last, fetched.best) if path is not None):
                return fetched
            _LOG.warning("checkpoint %s is passed over: it holds more than weights", key)
        return None

    def save(self, manifest: CheckpointManifest, last: Path, best: Path | None) -> None:
        """Store a checkpoint, its manifest last; then remove those that are old or of earlier executions."""
        folder = self._folder(manifest.training)
        for note, path in ((manifest.last, last), (manifest.best, best)):
            if note is not None and path is not None and _file(note) not in self._files:
                self._storage.put(path, folder + _file(note))
                self._files.add(_file(note))
        self._storage.put_bytes(manifest.to_bytes(), folder + _name(manifest))
        self._manifests.append(manifest)
        try:
            self._remove_old(folder, keep=1 if manifest.last.final else self._keep)
        except StepError as error:
            _LOG.warning("old checkpoints stay in the store: %s", error)

    def _folder(self, training: Digest) -> str:
        return f"{self._root}{_short(training)}/{self._execution}/"

    def _names_by_age(self, training: Digest, after: int) -> Iterator[str]:
        """Yield the keys of manifests, the newest epoch first, and of those the newest attempt's."""
        start = len(self._root)
        found = [(match, key) for key in self._found if (match := _MANIFEST.fullmatch(key, start))]
        ours = [(match, key) for match, key in found if match["training"] == _short(training)]
        if found and not ours:
            _LOG.warning(
                "the annotations have changed since an earlier attempt: its checkpoints in the store are of"
                " another dataset, and training starts from zero"
            )
        by_age = sorted(ours, key=lambda item: (int(item[0]["epoch"]), int(item[0]["attempt"])), reverse=True)
        return (key for match, key in by_age if int(match["epoch"]) > after)

    def _fetch(self, key: str, training: Digest, folder: Path) -> Fetched | None:
        data = self._storage.read(key)
        if self._reported is not None and digest_bytes(data) not in self._reported.digests:
            _LOG.warning("checkpoint %s is passed over: it was never reported to the run's status", key)
            return None
        try:
            manifest = CheckpointManifest.model_validate_json(data)
        except ValidationError:
            _LOG.warning("checkpoint %s is passed over: its manifest can't be read", key)
            return None
        if manifest.training != training:
            _LOG.warning("checkpoint %s is passed over: it is of another training", key)
            return None
        place = key.rpartition("/")[0] + "/"
        last = self._fetch_file(place, manifest.last, folder)
        best = None if manifest.best is None else self._fetch_file(place, manifest.best, folder)
        if last is None or (manifest.best is not None and best is None):
            _LOG.warning("checkpoint %s is passed over: a file is not the one that was stored", key)
            return None
        return Fetched(manifest, last, best)

    def _fetch_file(self, place: str, note: CheckpointNote, folder: Path) -> Path | None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / _file(note)
        if not path.is_file() or digest_file(path) != note.digest:
            self._storage.get(place + _file(note), path)
        return path if digest_file(path) == note.digest else None

    def _remove_old(self, folder: str, keep: int) -> None:
        """Manifests go before the files that only they name."""
        old, self._manifests = self._manifests[:-keep], self._manifests[-keep:]
        for manifest in old:
            if _name(manifest) not in map(_name, self._manifests):
                self._storage.delete(folder + _name(manifest))
        kept = {
            _file(note) for each in self._manifests for note in (each.last, each.best) if note is not None
        }
        for name in sorted(self._files - kept):
            self._storage.delete(folder + name)
        self._files &= kept
        for key in sorted(self._found, key=lambda found: not found.endswith(".json")):
            self._storage.delete(key)
        self._found = []


def _short(digest: Digest) -> str:
    return digest.removeprefix("sha256:")[:16]


def _file(note: CheckpointNote) -> str:
    return f"{note.digest.removeprefix('sha256:')}.pt"


def _name(manifest: CheckpointManifest) -> str:
    return f"epoch-{manifest.last.epoch:06d}-{_short(manifest.digest)}.json"
