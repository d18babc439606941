"""Conditions of a run's status, with the times they last changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from trainwright_operator.names import ConditionType, Reason
from trainwright_operator.times import format_time

Object = dict[str, Any]

MESSAGE_CHARACTERS = 1500
"""A message is cut here: twelve conditions and ten attempts have to fit into 16 KiB with the report."""


@dataclass(frozen=True)
class Condition:
    """One statement about a run; `holds` is None while nobody can tell."""

    type: ConditionType
    holds: bool | None
    reason: Reason
    message: str = ""

    @property
    def status(self) -> str:
        """`True`, `False` or `Unknown`."""
        return "Unknown" if self.holds is None else str(self.holds)


def stamp(
    conditions: Iterable[Condition], previous: Iterable[Object], generation: int, now: datetime
) -> list[Object]:
    """Return conditions as the API wants them: one whose status is as before keeps its time."""
    before = {condition["type"]: condition for condition in previous}
    stamped = []
    for condition in conditions:
        old = before.get(condition.type, {})
        kept = old.get("lastTransitionTime") if old.get("status") == condition.status else None
        stamped.append(
            {
                "type": str(condition.type),
                "status": condition.status,
                "observedGeneration": generation,
                "lastTransitionTime": kept or format_time(now),
                "reason": str(condition.reason),
                "message": condition.message[:MESSAGE_CHARACTERS],
            }
        )
    return stamped


def holds(status: Object, type_: ConditionType) -> bool:
    """Return whether a written status says that a condition is true."""
    return any(c["type"] == type_ and c["status"] == "True" for c in status.get("conditions", ()))
