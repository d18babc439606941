"""The class map: which class each id of the labels means, and at which position YOLO counts it.

One format and one parser, whether the map comes from the plan, from a ConfigMap or from the source: a list of
names, a list of `{Id, Name, ShortName, Color}` as annotation tools keep it in `classes.json`, or a whole map
with `variants` and `slots` as `ClassMap.to_json` writes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, StringConstraints, ValidationError, field_validator, model_validator

from trainwright.contract.words import Contract, digest_of

MOST_SLOTS = 1000
LONGEST_CLASS_NAME = 63
_MOST_CHARACTERS = 1024 * 1024
_MOST_PROBLEMS = 5
_ENTRY_KEYS = {"id": "id", "name": "name", "shortname": "shortName", "color": "color", "offset": "offset"}

# No control characters: names are shown on terminals and written into files line by line.
_Name = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, min_length=1, max_length=LONGEST_CLASS_NAME, pattern=r"^[^\x00-\x1f\x7f]*$"
    ),
]
_ClassId = Annotated[int, Field(ge=0, lt=MOST_SLOTS)]


class ClassEntry(Contract):
    """One class; short name and colour are those that annotation tools show."""

    id: _ClassId
    name: _Name
    short_name: str = Field(default="", max_length=LONGEST_CLASS_NAME, pattern=r"^[^\x00-\x1f\x7f]*$")
    color: str = Field(default="", max_length=32, pattern=r"^[#A-Za-z0-9(),.% ]*$")


class ClassVariant(Contract):
    """One more form of every class: its ids are those of the classes, moved by the offset."""

    name: _Name
    offset: int = Field(ge=1, lt=MOST_SLOTS)


class ClassMapError(ValueError):
    """A text is no class map; the message lists all that is wrong with it."""


class ClassMap(Contract):
    """What the ids of labels mean: the classes, their variants, and how many classes the model counts.

    `slots` beyond the highest id leave room for classes to come: a model that has
    them can go on being trained when one is added.
    """

    classes: tuple[ClassEntry, ...] = Field(min_length=1, max_length=MOST_SLOTS)
    variants: tuple[ClassVariant, ...] = Field(default=(), max_length=MOST_SLOTS)
    slots: int | None = Field(default=None, ge=1, le=MOST_SLOTS)

    @classmethod
    def of_names(
        cls, names: Sequence[str], variants: Sequence[ClassVariant] = (), slots: int | None = None
    ) -> Self:
        """Return the map of names in the order of their ids."""
        classes = [{"id": index, "name": name} for index, name in enumerate(names)]
        return cls._make({"classes": classes, "variants": tuple(variants), "slots": slots})

    @classmethod
    def _make(cls, body: Mapping[str, Any]) -> Self:
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            raise ClassMapError(_few([_sentence(item) for item in error.errors()])) from None

    @field_validator("classes")
    @classmethod
    def _by_id(cls, classes: tuple[ClassEntry, ...]) -> tuple[ClassEntry, ...]:
        return tuple(sorted(classes, key=lambda entry: entry.id))

    @field_validator("variants")
    @classmethod
    def _by_offset(cls, variants: tuple[ClassVariant, ...]) -> tuple[ClassVariant, ...]:
        return tuple(sorted(variants, key=lambda variant: variant.offset))

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if problems := list(self._problems()):
            raise ValueError(_few(problems))
        return self

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        return cls.model_validate_json(text)

    def to_json(self) -> str:
        """Return the canonical JSON, as it goes into the metadata of a model: equal maps, equal bytes."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), sort_keys=True, separators=(",", ":"))

    @property
    def version(self) -> str:
        """The digest of the canonical JSON: two maps of one version are the same."""
        return digest_of(self.to_json())

    @cached_property
    def names_by_id(self) -> Mapping[int, str]:
        """The name of every id a label may have: those of the classes, and of each of their variants.

        Of several ids with one name all but the first get their id behind it, as results are told by name.
        """
        taken: dict[str, int] = {}
        for class_id, name in sorted(self._all_names()):
            taken.setdefault(name, class_id)
        return {
            class_id: name if taken[name] == class_id else f"{name}-{class_id}"
            for class_id, name in sorted(self._all_names())
        }

    @property
    def names(self) -> tuple[str, ...]:
        """A name for every position that YOLO counts: an id is its position, a free one is `unused-<id>`."""
        named = self.names_by_id
        count = self.slots or max(named) + 1
        return tuple(named.get(position, f"unused-{position}") for position in range(count))

    def compatible_with(self, parent: ClassMap) -> bool:
        """Return whether a model of the parent's classes can go on being trained on ours."""
        return not self.why_incompatible_with(parent)

    def why_incompatible_with(self, parent: ClassMap) -> str:
        """Return why a model of the parent's classes can't be trained on ours; empty if it can.

        Each of the parent's ids must mean what it did: its weights, and a comparison with it, rest on that.
        Further classes are fine.
        """
        ours = self.names_by_id
        problems = [
            f"class {class_id} was {theirs!r} and "
            + (f"is now {ours[class_id]!r}" if class_id in ours else "is gone")
            for class_id, theirs in parent.names_by_id.items()
            if ours.get(class_id, "").casefold() != theirs.casefold()
        ]
        if len(self.names) < len(parent.names):
            problems.append(f"the parent counts {len(parent.names)} classes, this map {len(self.names)}")
        return _few(problems)

    def replace_layout(self, variants: Sequence[ClassVariant] | None, slots: int | None) -> ClassMap:
        """Return the map with these variants and slots where they are given."""
        if not variants and slots is None:
            return self
        slots = self.slots if slots is None else slots
        body = {"classes": self.classes, "variants": tuple(variants or self.variants), "slots": slots}
        return ClassMap._make(body)

    def _all_names(self) -> Iterator[tuple[int, str]]:
        for entry in self.classes:
            yield entry.id, entry.name
            for variant in self.variants:
                yield entry.id + variant.offset, f"{entry.name} ({variant.name})"

    def _problems(self) -> Iterator[str]:
        most = self.slots or MOST_SLOTS
        found: dict[int, str] = {}
        for class_id, name in self._all_names():
            if class_id in found:
                yield f"id {class_id} is both {found[class_id]!r} and {name!r}"
            if class_id >= most:
                yield f"id {class_id} ({name!r}) is beyond the {most} slots, which end at {most - 1}"
            found[class_id] = name


def parse_class_map(text: str) -> ClassMap:
    """Return the class map of a JSON or YAML text, in any of its forms; raise `ClassMapError` otherwise."""
    value = _load(text)
    if isinstance(value, list):
        value = {"classes": value}
    if not isinstance(value, dict):
        raise ClassMapError("not a list of class names, nor of {Id, Name, ShortName, Color} objects")
    known = {str(key).lower(): item for key, item in value.items()}
    entries, variants = known.get("classes"), known.get("variants") or []
    if not isinstance(entries, list) or not isinstance(variants, list):
        raise ClassMapError("not a list of classes, nor an object with classes (and variants, both lists)")
    if not entries:
        raise ClassMapError("names no class")
    body = {
        "classes": [_entry(position, item) for position, item in enumerate(entries[: MOST_SLOTS + 1])],
        "variants": [_entry(None, item) for item in variants[: MOST_SLOTS + 1]],
        "slots": known.get("slots"),
    }
    return ClassMap._make(body)


def _entry(position: int | None, item: Any) -> Any:
    """Return an entry in our spelling; what else annotation tools keep of a class is left out."""
    if isinstance(item, str):
        return {"id": position, "name": item}
    if not isinstance(item, dict):
        return item
    spelled = ((_ENTRY_KEYS.get(str(key).lower()), value) for key, value in item.items())
    return {key: value for key, value in spelled if key is not None and value is not None}


def _load(text: str) -> Any:
    if len(text) > _MOST_CHARACTERS:
        raise ClassMapError(f"{len(text)} characters, more than {_MOST_CHARACTERS}")
    text = text.removeprefix("\ufeff")
    try:
        return json.loads(text)
    except RecursionError:
        raise ClassMapError("nested too deeply") from None
    except ValueError:
        return _load_yaml(text)


class _PlainLoader(yaml.SafeLoader):
    """Reads YAML without references: a few of them within each other would fill the memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse an alias, else read on."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("references (*name) are not allowed in a class map")
        return super().compose_node(parent, index)


def _load_yaml(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_PlainLoader)  # noqa: S506 - a safe loader
    except RecursionError:
        raise ClassMapError("nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:  # a date that is none is a ValueError
        raise ClassMapError(f"not JSON or YAML: {str(error).splitlines()[0]}") from None


def _sentence(error: Any) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:
        return message
    place = ".".join(str(part) for part in error["loc"])
    return f"{place}: {message} (it is {_shown(error['input'])})"


def _shown(value: Any) -> str:
    return repr(value)[:40] if isinstance(value, str | int | float) else f"a {type(value).__name__}"


def _few(problems: list[str]) -> str:
    more = f" (and {len(problems) - _MOST_PROBLEMS} more)" if len(problems) > _MOST_PROBLEMS else ""
    return "; ".join(problems[:_MOST_PROBLEMS]) + more
