"""Keeps a run's status small: with the pod's report it stays below 16 KiB, whatever is told in it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from trainwright.contract import TERMINATION_MESSAGE_BYTES

Object = dict[str, Any]

NOTICES_BYTES = 1024  # five notices, of four addresses each
MOST_BYTES = 16 * 1024 - TERMINATION_MESSAGE_BYTES - NOTICES_BYTES - 256  # a little for the keys around them
SHORT = 160
FEWEST_ATTEMPTS = 3


def fit(status: Object) -> Object:
    """Return the status, without its least needed details if it would be too large with them."""
    for shorten in STEPS:
        if _size(status) <= MOST_BYTES:
            break
        status = shorten(status)
    return status


def _shorten_old_attempts(status: Object) -> Object:
    if not status["attempts"]:
        return status
    *old, newest = status["attempts"]
    dispensable = ("image", "message", "queuedTime", "admittedTime")
    short = [{key: value for key, value in attempt.items() if key not in dispensable} for attempt in old]
    return status | {"attempts": [*short, newest]}


def _shorten_conditions(status: Object) -> Object:
    conditions = [{**c, "message": c["message"][:SHORT]} for c in status["conditions"]]
    return status | {"conditions": conditions}


def _shorten_failure(status: Object) -> Object:
    if "failure" not in status:
        return status
    failure = {key: value for key, value in status["failure"].items() if key != "logTail"}
    return status | {"failure": failure}


def _drop_old_attempts(status: Object) -> Object:
    return status | {"attempts": status["attempts"][-FEWEST_ATTEMPTS:]}


def _drop_metrics(status: Object) -> Object:
    return {key: value for key, value in status.items() if key != "metrics"}


STEPS: tuple[Callable[[Object], Object], ...] = (
    _shorten_conditions,
    _shorten_old_attempts,
    _drop_old_attempts,
    _shorten_failure,
    _drop_metrics,
)
"""What is given up, one after the other, until the rest fits."""


def _size(status: Object) -> int:
    return len(orjson.dumps(status))
