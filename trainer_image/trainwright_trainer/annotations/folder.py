"""A tree of annotations on a volume: `data/images`, `data/labels` and a class map. Only ever read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trainwright.contract import DatasetSettings
from trainwright.errors import ConfigurationError, DataError
from trainwright_trainer.annotations.images import IMAGE_SUFFIXES, MOST_IMAGE_BYTES, check_image
from trainwright_trainer.annotations.items import Item, Label, Repair, Rule, Rules, UnfitError, make_item
from trainwright_trainer.annotations.labels import MOST_LABEL_BYTES, check_label, decode_text


@dataclass(frozen=True)
class FolderCandidate:
    """A name below a tree, with the image and label files found for it; either may be missing."""

    name: str
    root: Path
    images: tuple[Path, ...]
    label: Path | None
    stamp: str = ""

    def read(self, rules: Rules) -> Item:
        """Return the checked item, or raise `UnfitError`."""
        if not self.images:
            raise UnfitError(Rule.IMAGE_MISSING, "image is missing")
        if len(self.images) > 1:
            names = ", ".join(path.name for path in self.images)
            raise UnfitError(Rule.IMAGE_AMBIGUOUS, f"several images share the name: {names}")
        label = self._read_label(rules)
        data = read_inside(self.root, self.images[0], MOST_IMAGE_BYTES, Rule.IMAGE_TOO_LARGE)
        return make_item(self.name, check_image(data, self.images[0].suffix), label)

    def _read_label(self, rules: Rules) -> Label:
        if self.label is not None:
            data = read_inside(self.root, self.label, MOST_LABEL_BYTES, Rule.LABEL_TOO_LARGE)
            return check_label(decode_text(data), rules.class_ids)
        if rules.allow_missing_labels:
            return Label("", (Repair.BACKGROUND_ASSUMED,))
        raise UnfitError(Rule.LABEL_MISSING, "label is missing")


def find_root(path: str, data: Path | None) -> Path:
    """Return the folder of a source; it must exist below the data folder of the execution."""
    if data is None:
        raise ConfigurationError(
            "dataset.source.folder needs a data folder",
            hint="Name it: --data DIR, or Places(data=...).",
        )
    root = (data / path.lstrip("/")).resolve()
    if not root.is_relative_to(data.resolve()):
        raise ConfigurationError(f"dataset.source.folder.path {path!r} leads out of the data folder")
    if not root.is_dir():
        raise DataError(
            f"dataset.source.folder.path {path!r}: there is no such folder below the data folder",
            hint="Check the path of the source, and that the volume holds the annotations.",
        )
    return root


def find_candidates(root: Path, settings: DatasetSettings) -> list[FolderCandidate]:
    """Return all names of the wanted trees in order; of two annotations the validated one counts."""
    trees = [settings.directories.data, *([settings.directories.seed] if settings.include_seed else [])]
    found: dict[str, FolderCandidate] = {}
    for tree in reversed(trees):
        found.update({candidate.name: candidate for candidate in _walk_tree(root, tree)})
    if not any(candidate.images for candidate in found.values()):
        looked_at = ", ".join(f"{tree}/images" for tree in trees)
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise DataError(
            f"no images found in {looked_at}",
            hint=f"Images ({suffixes}) belong in images/, their labels in labels/ beside it.",
        )
    return [found[name] for name in sorted(found)]


def _walk_tree(root: Path, tree: str) -> Iterator[FolderCandidate]:
    images: dict[str, list[Path]] = {}
    for path in _list_files(root / tree / "images"):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            images.setdefault(path.stem, []).append(path)
    labels = {path.stem: path for path in _list_files(root / tree / "labels") if path.suffix == ".txt"}
    for name in images.keys() | labels.keys():
        yield FolderCandidate(name, root, tuple(sorted(images.get(name, ()))), labels.get(name))


def _list_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def read_inside(root: Path, path: Path, limit: int, too_large: Rule) -> bytes:
    """Read a file of the source; a link out of it could show us what the annotations' owner may not read."""
    if not path.resolve().is_relative_to(root):
        raise UnfitError(Rule.OUTSIDE_THE_SOURCE, f"{path.name} is a link out of the source")
    if not path.is_file():
        raise UnfitError(Rule.NOT_A_FILE, f"{path.name} is not a file")
    if path.stat().st_size > limit:
        raise UnfitError(too_large, f"{path.name} is larger than {limit} bytes")
    return path.read_bytes()
