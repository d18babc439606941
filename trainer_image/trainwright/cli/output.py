"""What the commands print: text for people, JSON for programs, one line and a hint for errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from trainwright.errors import StepError


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object on stdout."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def print_lines(*lines: str) -> None:
    """Print lines on stdout as they are, so that commands in them can be copied."""
    sys.stdout.write("\n".join(lines) + "\n")


@contextmanager
def show_progress(what: str) -> Iterator[None]:
    """Show on a terminal that something goes on; elsewhere say nothing."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status(what):
            yield
    else:
        yield


def print_error(error: StepError | OSError) -> None:
    """Print what is wrong and what to do about it on stderr; never a traceback."""
    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    if isinstance(error, StepError):
        message, hint = str(error), error.hint
    else:
        message, hint = f"{error.filename}: {error.strerror}" if error.filename else str(error), ""
    console.print(f"error: {message}", style="red" if console.is_terminal else None)
    if hint:
        console.print(f"hint: {hint}")
