"""Where the class map of a dataset comes from, and which parent it allows."""

from __future__ import annotations

from pathlib import Path

from trainwright.contract import ClassesSettings, ClassMap, ClassMapError, parse_class_map
from trainwright.errors import ConfigurationError, DataError

_MOST_BYTES = 4 * 1024 * 1024
_HINT = (
    "A class file is a JSON list of names, or of {Id, Name, ShortName, Color}; or set dataset.classes.inline."
)


def load_classes(settings: ClassesSettings, root: Path) -> ClassMap:
    """Return the class map, from the plan or from the source's own file."""
    given = settings.given
    if given is not None:
        return given
    if settings.from_source is None:
        raise ConfigurationError(
            "dataset.classes names no class map",
            hint="Set dataset.classes.inline or dataset.classes.fromSource.",
        )
    try:
        return parse_class_map(_read_file(root, settings.from_source)).replace_layout(
            settings.variants, settings.slots
        )
    except ClassMapError as error:
        raise DataError(f"the class file {settings.from_source!r}: {error}", hint=_HINT) from error


def refuse_other_classes(ours: ClassMap, parent: ClassMap, parent_name: str) -> None:
    """Refuse to train a parent on labels whose ids mean something else than they did to it."""
    if why := ours.why_incompatible_with(parent):
        raise ConfigurationError(
            f"model.parent {parent_name!r} can't be trained on these classes: {why}",
            hint="Keep the ids and names of the parent's classes and add new ones behind them or in free"
            " slots; or train without a parent.",
        )


def _read_file(root: Path, name: str) -> str:
    path = (root / name).resolve()
    if not path.is_relative_to(root):
        raise ConfigurationError(f"dataset.classes.fromSource {name!r} leads out of the source")
    if not path.is_file():
        raise DataError(f"the class file {name!r} is not in the source", hint=_HINT)
    with path.open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise DataError(f"the class file {name!r} is larger than {_MOST_BYTES} bytes", hint=_HINT)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"the class file {name!r} is not UTF-8 text", hint=_HINT) from None
