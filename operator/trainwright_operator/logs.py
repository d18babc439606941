"""Logs: one JSON object per line, with the run it is about."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

NOISY = ("aiohttp.access", "asyncio")

_subject: ContextVar[dict[str, Any] | None] = ContextVar("subject", default=None)


@contextmanager
def about(namespace: str, run: str) -> Iterator[None]:
    """Have every line that is logged within the block name a run."""
    token = _subject.set({"namespace": namespace, "run": run})
    try:
        yield
    finally:
        _subject.reset(token)


def name_attempt(number: int) -> None:
    """Have the lines that follow in the block name an attempt, too."""
    if number and (subject := _subject.get()) is not None:
        subject["attempt"] = number


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **(_subject.get() or {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_as_json(level: str) -> None:
    """Write all logs to standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[handler], force=True)
    set_level(level)


def set_level(level: str) -> None:
    """Log from this level on; of the libraries' lines only what is wrong."""
    root = logging.getLogger()
    root.setLevel(level.upper())
    for name in NOISY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
