"""What still happens to a finished run: edits are seen, its children go when their time is over. Pure.

Nothing of this brings a run back: what is deleted is never made again.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from trainwright_operator.conditions import Condition, stamp
from trainwright_operator.names import ConditionType, Phase, Reason
from trainwright_operator.times import format_time, parse_time

Object = dict[str, Any]

TTL_FIELD = "ttlSecondsAfterFinished"


def seconds_to_expiry(run: Object, defaults: Mapping[str, Any], now: datetime) -> float | None:
    """Return in how many seconds a finished run's children are deleted; None: never, or they are already.

    Both specs are read as they are written: merging thousands of them after a start would take too long.
    """
    status, ttl = run["status"], run["spec"].get(TTL_FIELD, defaults.get(TTL_FIELD))
    if ttl is None or "childrenDeletedTime" in status:
        return None
    return (parse_time(status["completionTime"]) + timedelta(seconds=ttl) - now).total_seconds()


def describe_finished(run: Object, now: datetime, *, deleted: bool) -> Object:
    """Return the status of a finished run whose newest edit is seen, its children `deleted` or not."""
    status = {key: value for key, value in run["status"].items() if key != "trainer"}
    if deleted:
        status["childrenDeletedTime"] = format_time(now)
    generation = run["metadata"]["generation"]
    if status.get("observedGeneration") == generation:
        return status
    conditions = [{**c, "observedGeneration": generation} for c in status["conditions"]]
    if _asks_in_vain(run):
        conditions = [
            _refuse(c, status, now) if c["type"] == ConditionType.ACCEPTED else c for c in conditions
        ]
    return status | {"observedGeneration": generation, "conditions": conditions}


def _asks_in_vain(run: Object) -> bool:
    """Whether a retry is wanted that has no workspace left to go on in: it would train from the start."""
    status, request = run["status"], run["spec"].get("retryRequest", "")
    expired = status.get("phase") == Phase.FAILED and "childrenDeletedTime" in status
    return expired and request not in ("", status.get("retryRequest", ""))


def _refuse(accepted: Object, status: Object, now: datetime) -> Object:
    message = (
        "spec.retryRequest can't be granted: the run's workspace was deleted at"
        f" {status['childrenDeletedTime']}, as spec.{TTL_FIELD} says: make a new run"
    )
    refused = Condition(ConditionType.ACCEPTED, False, Reason.EXPIRED, message)
    return stamp([refused], [accepted], accepted["observedGeneration"], now)[0]
