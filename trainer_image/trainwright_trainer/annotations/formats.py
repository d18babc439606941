"""The formats that labels come in: where their files lie, how to tell them, and what reads one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainwright.contract import LabelFormat
from trainwright.errors import ConfigurationError
from trainwright_trainer.annotations.items import Label, Picture, Rules
from trainwright_trainer.annotations.labels import check_label, decode_text
from trainwright_trainer.annotations.oriented import read_oriented
from trainwright_trainer.annotations.pascal_voc import read_pascal_voc

COCO_FOLDER = "annotations"
_NO_LABELS = {"classes.txt"}  # annotation tools leave their class names among the labels


@dataclass(frozen=True)
class FileFormat:
    """A format with a label file for each image; the folders are those of a tree."""

    name: LabelFormat
    suffix: str
    read: Callable[[bytes, Picture, Rules], Label]
    image_folders: tuple[str, ...] = ("images",)
    label_folders: tuple[str, ...] = ("labels",)

    def is_label(self, file_name: str) -> bool:
        """Return whether a file in a folder of labels is one."""
        return file_name.lower().endswith(self.suffix) and file_name not in _NO_LABELS


def _read_yolo(data: bytes, _: Picture, rules: Rules) -> Label:
    return check_label(decode_text(data), rules.class_ids)


FILE_FORMATS: dict[LabelFormat, FileFormat] = {
    file_format.name: file_format
    for file_format in (
        FileFormat("Yolo", ".txt", _read_yolo),
        FileFormat("YoloObb", ".txt", read_oriented),
        FileFormat(
            name="PascalVoc",
            suffix=".xml",
            read=read_pascal_voc,
            image_folders=("images", "JPEGImages"),
            label_folders=("labels", "annotations", "Annotations"),
        ),
    )
}


def find_format(root: Path, trees: Sequence[str], wanted: LabelFormat) -> LabelFormat:
    """Return the format of trees, from the names of their files unless it is given."""
    if wanted != "Auto":
        return wanted
    found: list[LabelFormat] = [
        kind
        for kind in ("Yolo", "PascalVoc")
        if any(
            FILE_FORMATS[kind].is_label(name)
            for tree in trees
            for folder in FILE_FORMATS[kind].label_folders
            for name in _file_names(root / tree / folder)
        )
    ]
    if any(name.endswith(".json") for tree in trees for name in _file_names(root / tree / COCO_FOLDER)):
        found.append("Coco")
    if len(found) > 1:
        raise ConfigurationError(
            f"dataset.format is Auto, but labels of several formats are there: {', '.join(found)}",
            hint="Set dataset.format to the one that counts.",
        )
    return found[0] if found else "Yolo"


def _file_names(folder: Path) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            yield from (entry.name for entry in entries if not entry.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return
