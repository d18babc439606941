"""Kubernetes Events: one for each change of a run's phase and each refusal, none for a heartbeat."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from trainwright_operator.cluster import ApiError, Cluster
from trainwright_operator.names import (
    API_VERSION,
    FINAL_PHASES,
    OPERATOR_MANAGER,
    RUN_KIND,
    ConditionType,
    Phase,
    Reason,
)

Object = dict[str, Any]

logger = logging.getLogger(__name__)

BURST = 20  # Events of a run that may follow each other at once: five attempts
REFILL_SECONDS = 300.0  # for one more
SAME_SECONDS = 600.0  # before the same is told again
MOST_RUNS = 10_000  # that are remembered

TOLD_BY = {Phase.SUCCEEDED: ConditionType.SUCCEEDED, Phase.FAILED: ConditionType.FAILED}
"""The condition that says what an end means; of any other phase Ready tells."""


class Events:
    """Writes Events about runs, and not more than somebody would read.

    The same one is told again after some minutes only. A run that changes all the time has a few told at
    once, and after them one each few minutes; how it ended is told in any case.
    """

    def __init__(self, cluster: Cluster, clock: Callable[[], float] = time.monotonic) -> None:
        self._cluster = cluster
        self._clock = clock
        self._told: dict[str, _Told] = {}

    async def announce(self, run: Object, before: Object, after: Object) -> None:
        """Tell what changed between two statuses."""
        for type_, reason, note in describe_changes(before, after):
            await self.tell(run, type_, reason, note)

    async def tell(self, run: Object, type_: str, reason: str, note: str) -> None:
        """Write one Event; one that can't be written is not worth a retry."""
        if not self._is_worth_it(run["metadata"]["uid"], reason, note):
            return
        try:
            await self._cluster.create(_event(run, type_, reason, note))
        except ApiError as error:
            logger.warning("no event for %s: %s", run["metadata"]["name"], error)

    def _is_worth_it(self, uid: str, reason: str, note: str) -> bool:
        now = self._clock()
        if len(self._told) >= MOST_RUNS:
            self._told.clear()
        told = self._told.setdefault(uid, _Told(BURST, now, {}))
        told.left = min(BURST, told.left + (now - told.since) / REFILL_SECONDS)
        told.since = now
        told.last = {key: moment for key, moment in told.last.items() if now - moment < SAME_SECONDS}
        if reason in FINAL_PHASES:
            return True
        if hash((reason, note)) in told.last or told.left < 1:
            return False
        told.left -= 1
        told.last[hash((reason, note))] = now
        return True


@dataclass
class _Told:
    left: float
    since: float
    last: dict[int, float]


def describe_changes(before: Object, after: Object) -> list[tuple[str, str, str]]:
    """Return type, reason and note of each Event that the change of a status deserves."""
    changes = []
    accepted, was = _condition(after, ConditionType.ACCEPTED), _condition(before, ConditionType.ACCEPTED)
    if accepted.get("status") == "False" and accepted.get("message") != was.get("message"):
        changes.append(("Warning", accepted["reason"], accepted["message"]))
    newest = _newest_attempt(after)
    if newest and newest["job"] != _newest_attempt(before).get("job"):
        stages = f", stages {newest['group']}" if "group" in newest else ""
        note = f"attempt {newest['number']} is Job {newest['job']}{stages}"
        changes.append(("Normal", Reason.ATTEMPT_STARTED, note))
        changes += _describe_adjustments(newest, _attempt_before(after))
    if after["phase"] != before.get("phase") and after["phase"] != Phase.PENDING:
        note = _condition(after, TOLD_BY.get(after["phase"], ConditionType.READY))["message"]
        severity = "Warning" if after["phase"] == Phase.FAILED else "Normal"
        changes.append((severity, after["phase"], note))
    return changes


def _describe_adjustments(newest: Object, former: Object) -> list[tuple[str, str, str]]:
    """A model that is trained otherwise than its author asked for has to be told of."""
    now = newest.get("adjustments", {})
    changed = {key: value for key, value in now.items() if former.get("adjustments", {}).get(key) != value}
    if not changed:
        return []
    what = ", ".join(f"{key} {value}" for key, value in changed.items())
    why = f", as attempt {former['number']} failed for cause {former['cause']}" if "cause" in former else ""
    return [("Warning", Reason.ADJUSTED, f"attempt {newest['number']} goes on with {what}{why}")]


def _attempt_before(status: Object) -> Object:
    attempts = status.get("attempts", [])
    return attempts[-2] if len(attempts) > 1 else {}


def _newest_attempt(status: Object) -> Object:
    newest: Object = next(reversed(status.get("attempts", [])), {})
    return newest


def _condition(status: Object, type_: ConditionType) -> Object:
    return next((c for c in status.get("conditions", ()) if c["type"] == type_), {})


def _event(run: Object, type_: str, reason: str, note: str) -> Object:
    metadata = run["metadata"]
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{metadata['name']}.{uuid4().hex[:16]}", "namespace": metadata["namespace"]},
        "eventTime": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "type": type_,
        "reason": reason,
        "note": note[:1000],
        "action": "Reconcile",
        "reportingController": f"trainwright.dev/{OPERATOR_MANAGER}",
        "reportingInstance": OPERATOR_MANAGER,
        "regarding": {
            "apiVersion": API_VERSION,
            "kind": RUN_KIND,
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
        },
    }
