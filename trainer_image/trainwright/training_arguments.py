"""Which Ultralytics settings `training.arguments` may hold: a table generated from the pinned version.

The operator checks a run against it without having Ultralytics; `python -m
trainwright_trainer.argument_table` writes the table beside this file.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from trainwright.contract import ArgumentValue

TABLE = "training_arguments.json"
USE = "use "  # so begins the reason why a setting with a field of its own is refused


def check_arguments(arguments: Mapping[str, ArgumentValue]) -> list[str]:
    """Return a sentence for every argument that is unknown, refused or of the wrong type."""
    return [problem for name, value in arguments.items() if (problem := _problem_of(name, value))]


def _problem_of(name: str, value: ArgumentValue) -> str | None:
    table = _load_table()
    if name in table["refused"]:
        return f"{name} can't be set here: {table['refused'][name]}"
    if name not in table["arguments"]:
        return f"{name} is not known" + _nearest_to(name, table)
    types = table["arguments"][name]
    if not any(_is_of_type(value, wanted) for wanted in types):
        return f"{name} is {value!r}, which is no {' or '.join(types)}"
    return None


def _nearest_to(name: str, table: dict[str, Any]) -> str:
    """Ask whether the setting of the nearest name was meant: an argument, or a field of its own."""
    fields = {
        known: reason.removeprefix(USE)
        for known, reason in table["refused"].items()
        if reason.startswith(USE)
    }
    known = {argument: argument for argument in table["arguments"]} | fields
    nearest = difflib.get_close_matches(name, known, n=1)
    return f", did you mean {known[nearest[0]]}?" if nearest else ""


def _is_of_type(value: ArgumentValue, wanted: str) -> bool:
    if isinstance(value, bool):
        return wanted == "boolean"
    match wanted:
        case "integer":
            return isinstance(value, int)
        case "number":
            return isinstance(value, int | float)
        case "string":
            return isinstance(value, str)
        case _:
            return False


@cache
def _load_table() -> dict[str, Any]:
    text = files("trainwright").joinpath(TABLE).read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text)
    return table
