"""The class map: which name each class id of the labels stands for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from trainwright.contract import ClassesSettings
from trainwright.errors import ConfigurationError, DataError

MAX_CLASSES = 1000


class _ClassEntry(BaseModel):
    """One entry of a `classes.json`; short name and colour are for annotation tools."""

    model_config = ConfigDict(extra="ignore")

    class_id: int = Field(alias="Id", ge=0, lt=MAX_CLASSES)
    name: str = Field(alias="Name", min_length=1)


_CLASS_FILE = TypeAdapter(list[_ClassEntry | str])


def load_classes(settings: ClassesSettings, root: Path) -> dict[int, str]:
    """Return the names by id, from the plan or from the source's own file."""
    if settings.inline is not None:
        return _by_id(list(enumerate(settings.inline)), "dataset.classes.inline")
    if settings.from_source is None:
        raise ConfigurationError(
            "dataset.classes names no class map",
            hint="Set dataset.classes.inline or dataset.classes.fromSource.",
        )
    return _load_file(root, settings.from_source)


def names_by_position(classes: Mapping[int, str]) -> tuple[str, ...]:
    """Return a name for every id up to the highest, as YOLO counts classes; gaps are called `unused-<id>`."""
    return tuple(classes.get(index, f"unused-{index}") for index in range(max(classes) + 1))


def _load_file(root: Path, name: str) -> dict[int, str]:
    path = (root / name).resolve()
    if not path.is_relative_to(root):
        raise ConfigurationError(f"dataset.classes.fromSource {name!r} leads out of the source")
    hint = "A class file is a JSON list of {Id, Name, ShortName, Color}; or set dataset.classes.inline."
    if not path.is_file():
        raise DataError(f"the class file {name!r} is not in the source", hint=hint)
    try:
        entries = _CLASS_FILE.validate_python(json.loads(path.read_bytes()))
    except (ValidationError, ValueError) as error:
        raise DataError(f"the class file {name!r} can't be read as a list of classes", hint=hint) from error
    return _by_id([_to_pair(index, entry) for index, entry in enumerate(entries)], name)


def _to_pair(index: int, entry: _ClassEntry | str) -> tuple[int, str]:
    return (index, entry) if isinstance(entry, str) else (entry.class_id, entry.name)


def _by_id(pairs: list[tuple[int, str]], where: str) -> dict[int, str]:
    classes = dict(pairs)
    if not classes:
        raise DataError(f"{where} names no class")
    if len(classes) != len(pairs):
        raise DataError(f"{where} uses a class id twice")
    return classes
