"""Kubernetes Events: one for each change of a run's phase and each refusal, none for a heartbeat."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from trainwright_operator.cluster import ApiError, Cluster
from trainwright_operator.names import API_VERSION, OPERATOR_MANAGER, RUN_KIND, ConditionType, Phase, Reason

Object = dict[str, Any]

logger = logging.getLogger(__name__)

TOLD_BY = {Phase.SUCCEEDED: ConditionType.SUCCEEDED, Phase.FAILED: ConditionType.FAILED}
"""The condition that says what an end means; of any other phase Ready tells."""


async def announce(cluster: Cluster, run: Object, before: Object, after: Object) -> None:
    """Tell what changed between two statuses; an Event that can't be written is not worth a retry."""
    for type_, reason, note in describe_changes(before, after):
        await tell(cluster, run, type_, reason, note)


async def tell(cluster: Cluster, run: Object, type_: str, reason: str, note: str) -> None:
    """Write one Event about a run, unless it was just told or too many were."""
    try:
        await cluster.create(_event(run, type_, reason, note))
    except ApiError as error:
        logger.warning("no event for %s: %s", run["metadata"]["name"], error)


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
    if after["phase"] != before.get("phase") and after["phase"] != Phase.PENDING:
        note = _condition(after, TOLD_BY.get(after["phase"], ConditionType.READY))["message"]
        severity = "Warning" if after["phase"] == Phase.FAILED else "Normal"
        changes.append((severity, after["phase"], note))
    return changes


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
