"""The reference page of the API, written from the CRDs: every field, its bounds, its description."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

_SPECIAL = {"x-kubernetes-preserve-unknown-fields": "any", "x-kubernetes-int-or-string": "quantity"}


def build_reference(definitions: list[Schema]) -> str:
    """Return docs/api.md: every field with its type, its bounds and its description."""
    lines = [
        "# API reference",
        "",
        "Generated from `operator/trainwright_operator/api` by `make generate`; `kubectl explain` shows the"
        " same. A field that is left out takes its value from the operator's settings, else the default named"
        " here.",
    ]
    for definition in definitions:
        names = definition["spec"]["names"]
        schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        lines += ["", f"## {names['kind']}", "", _sentence(schema), ""]
        lines += [f"Short names: {', '.join(f'`{name}`' for name in names['shortNames'])}.", ""]
        lines += ["| Field | Type | Description |", "|---|---|---|"]
        for part in ("spec", "status"):
            lines += _rows(part, schema["properties"][part])
        lines += ["", f"### Rules of {names['kind']}", ""]
        lines += [f"- {message}" for message in _rule_messages(schema)]
    return "\n".join(lines) + "\n"


def _rows(path: str, schema: Schema, *, required: bool = False) -> Iterator[str]:
    kind = _type_in_words(schema) + (", required" if required else "")
    yield f"| `{path}` | {kind} | {_sentence(schema)} |"
    inner, prefix = (schema["items"], f"{path}[]") if "items" in schema else (schema, path)
    for name, field in inner.get("properties", {}).items():
        yield from _rows(f"{prefix}.{name}", field, required=name in inner.get("required", ()))


def _sentence(schema: Schema) -> str:
    return " ".join(str(schema.get("description", "")).split()).replace("|", "\\|")


def _type_in_words(schema: Schema) -> str:
    for mark, name in _SPECIAL.items():
        if mark in schema:
            return name
    if "enum" in schema:
        return "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
    if "items" in schema:
        return f"list, at most {schema['maxItems']}, of {_type_in_words(schema['items'])}"
    if "additionalProperties" in schema:
        values = _type_in_words(schema["additionalProperties"])
        return f"map, at most {schema['maxProperties']}, of {values}"
    if schema.get("format") == "date-time":
        return "time"
    return str(schema["type"]) + _bounds_in_words(schema)


def _bounds_in_words(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    bounds = ""
    if low is not None and high is not None:
        bounds = f" {low:g} to {high:g}" if isinstance(low, float) else f" {low} to {high}"
    elif low is not None:
        bounds = f" from {low}"
    if "multipleOf" in schema:
        bounds += f", a multiple of {schema['multipleOf']}"
    if "maxLength" in schema:
        bounds += f", at most {schema['maxLength']} characters"
    return bounds


def _rule_messages(schema: Schema) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", ()):
        yield rule["message"]
    for field in schema.get("properties", {}).values():
        yield from _rule_messages(field)
    if "items" in schema:
        yield from _rule_messages(schema["items"])
