"""The files of the data trees: each is whole or absent, and of a name there is one set."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from trainwright.contract import Directories
from trainwright_trainer.ingestion.events import ADOPTED, Event, Placement, Status, Tree
from trainwright_trainer.ingestion.messages import SUFFIXES, PoisonError, check_name
from trainwright_trainer.ingestion.volume import unusable, using

_SYNCING_THREADS = 8
_PARTIAL = ".partial"
_LOG = logging.getLogger(__name__)
_EARLIEST = -(2**60)  # before everything that is told of


@dataclass
class Changes:
    """What is to be done to the files of many names: first all writes, then what puts them in place."""

    writes: list[tuple[str, bytes]] = field(default_factory=list)
    moves: list[tuple[str, str]] = field(default_factory=list)
    removals: list[str] = field(default_factory=list)

    def move(self, source: str | None, target: str) -> None:
        """Move a file, unless it is there."""
        if source is not None and source != target:
            self.moves.append((source, target))

    def replace(self, former: str | None, target: str, content: bytes) -> None:
        """Write a file, and remove the one that it takes the place of."""
        self.writes.append((target, content))
        if former is not None and former != target:
            self.removals.append(former)


class Trees:
    """The three trees below a root; `sync` makes every file survive a loss of power before it counts."""

    def __init__(self, root: Path, directories: Directories, *, sync: bool = True) -> None:
        names = {
            Tree.VALIDATED: directories.data,
            Tree.SEED: directories.seed,
            Tree.DELETED: directories.deleted,
        }
        self._images = {tree: f"{root / name}/images" for tree, name in names.items()}
        self._labels = {tree: f"{root / name}/labels" for tree, name in names.items()}
        self._pool = ThreadPoolExecutor(_SYNCING_THREADS) if sync else None

    def create(self) -> None:
        """Make the folders."""
        with using("the data trees"):
            folders = [Path(folder) for folder in (*self._images.values(), *self._labels.values())]
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
            if self._pool is not None:  # a folder is an entry of another one
                for parent in {
                    parent for folder in folders for parent in (folder.parent, folder.parent.parent)
                }:
                    _sync_folder(str(parent))

    def close(self) -> None:
        """Let go of the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def adopt(self) -> Iterator[Event]:
        """Yield events that stand for the files an earlier consumer left in the trees.

        A name that is there twice is where it is used: what was deleted and is there again was made anew.
        """
        names: set[str] = set()
        left: list[str] = []
        for tree in (Tree.VALIDATED, Tree.SEED, Tree.DELETED):
            for entry in sorted(os.scandir(self._images[tree]), key=lambda entry: entry.name):
                name, suffix = os.path.splitext(entry.name)  # noqa: PTH122 - a name of hundreds of thousands
                if name in names or suffix.lower() not in SUFFIXES or not _can_be_adopted(entry):
                    left.append(entry.path)
                    continue
                names.add(name)
                validated = tree is Tree.VALIDATED
                yield Event(name, _EARLIEST, Status.CREATED, validated, None, ADOPTED, suffix)
                if tree is Tree.DELETED:
                    yield Event(name, _EARLIEST + 1, Status.DELETED)
        if left:
            some = ", ".join(repr(path) for path in left[:5])
            _LOG.warning("%d files are left as they are, no images or of a name twice: %s", len(left), some)

    def sweep(self) -> None:
        """Remove what a crash left half written."""
        for folder in (*self._images.values(), *self._labels.values()):
            with os.scandir(folder) as entries:
                partial = [e.path for e in entries if e.name.startswith(".") and e.name.endswith(_PARTIAL)]
            for path in partial:
                os.unlink(path)  # noqa: PTH108

    def plan(
        self, name: str, before: Placement, after: Placement, images: Mapping[str, bytes], changes: Changes
    ) -> None:
        """Add what makes the files of a name those of `after`, from those of `before`."""
        image, label = self._image_of(name, after), self._label_of(name, after)
        old_image = old_label = None
        if before.has_files:
            old_image, old_label = self._image_of(name, before), self._label_of(name, before)
        # The label first: an image without one would be found unfit by a dataset that is built right now.
        if after.labels is not None and (after.labels != before.labels or old_label is None):
            changes.replace(old_label, label, after.labels.encode())
        else:
            changes.move(old_label, label)
        if after.image != before.image:
            changes.replace(old_image, image, images[str(after.image)])
        else:
            changes.move(old_image, image)

    def plan_again(
        self, name: str, before: Placement, after: Placement, images: Mapping[str, bytes], changes: Changes
    ) -> None:
        """Add the same for a name that a crash may have left anywhere between two placements."""
        wanted = (self._image_of(name, after), self._label_of(name, after))
        contents = (
            None if after.image == before.image else images[str(after.image)],
            None if after.labels is None else after.labels.encode(),
        )
        former: tuple[str | None, str | None] = (None, None)
        if before.has_files:
            former = (self._image_of(name, before), self._label_of(name, before))
        for target, content, first, places in zip(
            wanted, contents, former, self._all_places(name, {before.suffix, after.suffix}), strict=True
        ):
            found = [path for path in (first, *places) if path is not None and os.path.exists(path)]  # noqa: PTH110
            if content is not None:
                changes.writes.append((target, content))
            elif found and (found[0] == first or target not in found):
                changes.move(found[0], target)
                found = found[1:]
            changes.removals += [path for path in found if path != target]

    def _image_of(self, name: str, placement: Placement) -> str:
        assert placement.tree is not None  # noqa: S101 - what has an image is in a tree
        return f"{self._images[placement.tree]}/{name}{placement.suffix}"

    def _label_of(self, name: str, placement: Placement) -> str:
        assert placement.tree is not None  # noqa: S101 - what has an image is in a tree
        return f"{self._labels[placement.tree]}/{name}.txt"

    def _all_places(self, name: str, suffixes: set[str]) -> tuple[list[str], list[str]]:
        """Return wherever an image and a label of the name may be."""
        suffixes = (suffixes | SUFFIXES) - {""}
        images = [f"{folder}/{name}{suffix}" for folder in self._images.values() for suffix in suffixes]
        return images, [f"{folder}/{name}.txt" for folder in self._labels.values()]

    def carry_out(self, changes: Changes) -> list[str]:
        """Do what was planned; return the files that were to be moved and are not there."""
        try:
            if self._pool is None:
                for path, content in changes.writes:
                    _write(path, content, sync=False)
            else:
                list(self._pool.map(lambda write: _write(*write, sync=True), changes.writes))
            for path, _ in changes.writes:
                os.rename(_partial_of(path), path)  # noqa: PTH104 - strings, for speed
            missing = [source for source, target in changes.moves if not _move(source, target)]
            for path in changes.removals:
                with suppress(FileNotFoundError):
                    os.unlink(path)  # noqa: PTH108
            if self._pool is not None:
                self._sync_folders(changes)
        except OSError as error:
            for path, _ in changes.writes:
                with suppress(OSError):
                    os.unlink(_partial_of(path))  # noqa: PTH108
            raise unusable(error, "the data trees") from error
        return missing

    def _sync_folders(self, changes: Changes) -> None:
        assert self._pool is not None  # noqa: S101 - it is there where files are synced
        paths: Iterable[str] = (
            *(path for path, _ in changes.writes),
            *(path for move in changes.moves for path in move),
            *changes.removals,
        )
        list(self._pool.map(_sync_folder, {path.rpartition("/")[0] for path in paths}))


def _write(path: str, content: bytes, *, sync: bool) -> None:
    descriptor = os.open(_partial_of(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(descriptor, left) :]
        if sync:
            os.fsync(descriptor)
    except OSError as error:
        error.filename = path  # a descriptor has none
        raise
    finally:
        os.close(descriptor)


def _partial_of(path: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{folder}/.{name}{_PARTIAL}"


def _can_be_adopted(entry: os.DirEntry[str]) -> bool:
    """Whether it is a file, and of a name that a message can say."""
    try:
        check_name(os.path.splitext(entry.name)[0])  # noqa: PTH122
    except (PoisonError, ValueError):
        return False
    return entry.is_file()


def _move(source: str, target: str) -> bool:
    try:
        os.rename(source, target)  # noqa: PTH104
    except FileNotFoundError:
        return os.path.exists(target)  # noqa: PTH110 - moved before a crash
    return True


def _sync_folder(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
