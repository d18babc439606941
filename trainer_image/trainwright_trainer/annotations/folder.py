"""A tree of annotations on a volume: `data/images`, `data/labels` and a class map. Only ever read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from trainwright.contract import ClassMap, DatasetSettings
from trainwright.errors import ConfigurationError, DataError
from trainwright_trainer.annotations.formats import FileFormat
from trainwright_trainer.annotations.images import IMAGE_SUFFIXES, MOST_IMAGE_BYTES, check_image
from trainwright_trainer.annotations.items import (
    Item,
    Label,
    Picture,
    Repair,
    Rule,
    Rules,
    UnfitError,
    make_item,
)
from trainwright_trainer.annotations.labels import MOST_LABEL_BYTES
from trainwright_trainer.annotations.listing import ListedFile, Stamp, group_files, scan_folder


@dataclass(frozen=True)
class FolderCandidate:
    """A name below a tree, with the image and label files found for it; either may be missing.

    Paths are relative to the root of the source.
    """

    name: str
    root: Path
    images: tuple[Path, ...]
    label: Path | None
    format: FileFormat
    stamp: str = ""

    def read(self, rules: Rules) -> Item:
        """Return the checked item, or raise `UnfitError`."""
        if not self.name.isprintable():
            raise UnfitError(Rule.NAME, "the name has characters that can't be printed, or is not UTF-8")
        if not self.images:
            raise UnfitError(Rule.IMAGE_MISSING, "image is missing")
        if len(self.images) > 1:
            names = ", ".join(path.name for path in self.images)
            raise UnfitError(Rule.IMAGE_AMBIGUOUS, f"several images share the name: {names}")
        if self.label is None and not rules.allow_missing_labels:
            raise UnfitError(Rule.LABEL_MISSING, "label is missing")
        data = read_inside(self.root, self.images[0], MOST_IMAGE_BYTES, Rule.IMAGE_TOO_LARGE)
        picture = check_image(data, self.images[0].suffix)
        return make_item(self.name, picture, self._read_label(picture, rules))

    def _read_label(self, picture: Picture, rules: Rules) -> Label:
        if self.label is None:
            return Label("", (Repair.BACKGROUND_ASSUMED,))
        data = read_inside(self.root, self.label, MOST_LABEL_BYTES, Rule.LABEL_TOO_LARGE)
        return self.format.read(data, picture, rules)


def find_root(path: str, data: Path | None, *, make: bool = False) -> Path:
    """Return the folder of a source; below the data folder of the execution it exists, or is to be made."""
    if data is None:
        raise ConfigurationError(
            "dataset.source.folder needs a data folder",
            hint="Name it: --data DIR, or Places(data=...).",
        )
    root = (data / path.lstrip("/")).resolve()
    if not root.is_relative_to(data.resolve()):
        raise ConfigurationError(f"dataset.source.folder.path {path!r} leads out of the data folder")
    if make and data.is_dir():
        with suppress(OSError):  # what uses it tells why it can't
            root.mkdir(parents=True, exist_ok=True)
    if not root.is_dir():
        raise DataError(
            f"dataset.source.folder.path {path!r}: there is no such folder below the data folder",
            hint="Check the path of the source, and that the volume holds the annotations.",
        )
    return root


@dataclass(frozen=True)
class FolderSource:
    """The wanted trees below a root; of two annotations of one name the validated one counts."""

    root: Path
    settings: DatasetSettings
    classes: ClassMap
    format: FileFormat

    @property
    def stamp(self) -> str:
        """Sizes, times and inodes of all files of the wanted trees."""
        stamp = Stamp()
        for tree, name in enumerate(trees_of(self.settings)):
            for kind in (*self.format.image_folders, *self.format.label_folders):
                for file, file_stamp in scan_folder(self.root / name / kind):
                    stamp.add(f"{tree}/{kind}/{file}", file_stamp)
        return str(stamp)

    def candidates(self, scratch: Path) -> Iterator[FolderCandidate]:
        """Yield every name that has an image or a label."""
        for name, files in group_files(self._files(), scratch):
            labels = [Path(file.path) for file in files if file.kind == "label"]
            yield FolderCandidate(
                name=name,
                root=self.root,
                images=tuple(Path(file.path) for file in files if file.kind == "image"),
                label=labels[0] if labels else None,
                format=self.format,
                stamp=" ".join([self.format.name, *(f"{file.path}:{file.stamp}" for file in files)]),
            )

    def _files(self) -> Iterator[ListedFile]:
        # The validated ones last: what is validated meanwhile is seen there, having been seen before or not.
        for tree, name in reversed(list(enumerate(trees_of(self.settings)))):
            for folder in (f"{name}/{kind}" for kind in self.format.image_folders):
                for file, stamp in scan_folder(self.root / folder):
                    stem, suffix = os.path.splitext(file)  # noqa: PTH122 - a million names: no objects for them
                    if suffix.lower() in IMAGE_SUFFIXES:
                        yield ListedFile(tree, stem, "image", f"{folder}/{file}", stamp)
            for folder in (f"{name}/{kind}" for kind in self.format.label_folders):
                for file, stamp in scan_folder(self.root / folder):
                    if self.format.is_label(file):
                        stem, _ = os.path.splitext(file)  # noqa: PTH122
                        yield ListedFile(tree, stem, "label", f"{folder}/{file}", stamp)


def trees_of(settings: DatasetSettings) -> tuple[str, ...]:
    """Return the wanted trees below the root; of two annotations of one name that of the first counts."""
    directories = settings.directories
    return (directories.data, directories.seed) if settings.include_seed else (directories.data,)


def require_images(root: Path, settings: DatasetSettings, kind: FileFormat) -> None:
    """Raise `DataError` for a root without a single image."""
    folders = [f"{tree}/{folder}" for tree in trees_of(settings) for folder in kind.image_folders]
    files = (file for folder in folders for file, _ in scan_folder(root / folder))
    if not any(Path(file).suffix.lower() in IMAGE_SUFFIXES for file in files):
        raise no_images(folders)


def no_images(looked_at: Iterable[str]) -> DataError:
    """Return the error of a source without a single image."""
    return DataError(
        f"no images found in {', '.join(looked_at)}",
        hint=f"Images ({', '.join(sorted(IMAGE_SUFFIXES))}) belong in images/, their labels beside it.",
    )


def read_inside(root: Path, path: Path, limit: int, too_large: Rule) -> bytes:
    """Read a file of the source; a link out of it could show us what the annotations' owner may not read."""
    path = root / path
    if not path.resolve().is_relative_to(root):
        raise UnfitError(Rule.OUTSIDE_THE_SOURCE, f"{path.name} is a link out of the source")
    if not path.is_file():
        raise UnfitError(Rule.NOT_A_FILE, f"{path.name} is not a file")
    if path.stat().st_size > limit:
        raise UnfitError(too_large, f"{path.name} is larger than {limit} bytes")
    return path.read_bytes()
