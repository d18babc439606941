"""What every part of a custom resource shares: spelling, strictness, rules, built-in defaults, bounds.

A section's docstring and its fields' descriptions are what `kubectl explain` shows, so they speak to users.
No field that the operator's settings or a profile may set has a default in the schema: the API server would
stamp it into the stored object, and nobody could tell it from the user's. `built_in` holds those defaults
instead; the generator states them in words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, WithJsonSchema
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from trainwright.contract import Contract


class Rule(NamedTuple):
    """A CEL expression that must hold, and the sentence a user reads when it does not."""

    rule: str
    message: str


class Section(BaseModel):
    """Base of everything a user writes: camelCase, immutable, unknown fields refused."""

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, extra="forbid", frozen=True
    )

    rules: ClassVar[tuple[Rule, ...]] = ()
    built_in: ClassVar[Mapping[str, bool | int | float | str]] = {}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core_schema))
        for name, default in cls.built_in.items():
            field = schema["properties"][name]
            field["description"] = f"{field['description']} Default: {_in_words(default)}."
        if cls.rules:
            schema["x-kubernetes-validations"] = [rule._asdict() for rule in cls.rules]
        return schema


class Observed(BaseModel):
    """Base of everything the operator writes into a status; what a newer operator wrote is ignored."""

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, extra="ignore", frozen=True
    )


def built_in_of(settings: type[Contract]) -> dict[str, bool | int | float | str]:
    """Return the defaults a contract's section has, by the name a user writes."""
    return {
        str(field.alias): field.default
        for field in settings.model_fields.values()
        if isinstance(field.default, bool | int | float | str) and field.default != ""
    }


def one_of(*names: str) -> str:
    """Return a CEL expression that holds when exactly one of these fields is set."""
    return f"{_count(names)} == 1"


def at_most_one_of(*names: str) -> str:
    """Return a CEL expression that holds when none or one of these fields is set."""
    return f"{_count(names)} <= 1"


def _count(names: tuple[str, ...]) -> str:
    return " + ".join(f"(has(self.{name}) ? 1 : 0)" for name in names)


def _in_words(default: float | str) -> str:
    if isinstance(default, bool):
        return "true" if default else "false"
    return f"{default:g}" if isinstance(default, float) else str(default)


# --- bounded values --------------------------------------------------------------------------------------

QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"

ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
VersionName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
DataKey = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
RelativePath = Annotated[str, Field(min_length=1, max_length=512)]
StorageSize = Annotated[str, Field(min_length=1, max_length=32, pattern=QUANTITY)]
LabelValue = Annotated[str, Field(max_length=63)]
ShortText = Annotated[str, Field(max_length=256)]
Text = Annotated[str, Field(max_length=2048)]

Quantity = Annotated[
    int | str,
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "maxLength": 32,
            "pattern": QUANTITY,
        }
    ),
]

# Values of any type are declared as those of a map: CEL compares the keys of a map, but overlooks a renamed
# key in an object of unknown fields, and such a change would pass for none.
_ANY_VALUES = {"type": "object", "additionalProperties": {"x-kubernetes-preserve-unknown-fields": True}}


def opaque_map(entries: int) -> WithJsonSchema:
    """Return the schema of a map whose values the operator checks, not the API server."""
    return WithJsonSchema({**_ANY_VALUES, "maxProperties": entries})
