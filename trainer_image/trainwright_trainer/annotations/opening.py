"""A folder of annotations, opened as the source that its format asks for."""

from __future__ import annotations

from pathlib import Path

from trainwright.contract import ClassesSettings, ClassMap, DatasetSettings
from trainwright.errors import DataError
from trainwright_trainer.annotations.classes import load_classes
from trainwright_trainer.annotations.coco import CocoSource, find_coco_files
from trainwright_trainer.annotations.coco_files import read_categories
from trainwright_trainer.annotations.folder import FolderSource, require_images, trees_of
from trainwright_trainer.annotations.formats import FILE_FORMATS, find_format
from trainwright_trainer.annotations.sources import Source

_CLASS_FILE = ClassesSettings().from_source or ""


def open_folder(root: Path, settings: DatasetSettings) -> Source:
    """Return the source below a root; COCO's categories are its classes unless a class map is given."""
    kind = find_format(root, trees_of(settings), settings.format)
    if kind != "Coco":
        require_images(root, settings, FILE_FORMATS[kind])  # said first: a wrong path has no class map either
        return FolderSource(root, settings, load_classes(settings.classes, root), FILE_FORMATS[kind])
    files = find_coco_files(root, settings)
    return CocoSource(root, settings, _coco_classes(root, settings.classes, files), files)


def _coco_classes(root: Path, settings: ClassesSettings, files: tuple[str, ...]) -> ClassMap:
    unset = settings.given is None and settings.from_source == _CLASS_FILE
    if not unset or (root / _CLASS_FILE).exists():
        return load_classes(settings, root)
    names = read_categories(root, files)
    if not names:
        raise DataError(
            f"the source has no class map: no {_CLASS_FILE}, and no categories in {', '.join(files)[:200]}",
            hint="Add categories to a COCO file, or set dataset.classes.",
        )
    return ClassMap.of_names(names, settings.variants or (), settings.slots)
