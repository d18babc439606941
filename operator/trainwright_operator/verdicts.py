"""What an attempt is given up for though its Job goes on: a lost node, an image nobody can get. Pure.

Silence alone is never a reason: a node counts as lost only when the cluster says that it does not answer, for
some time, while its pod says nothing either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from trainwright.contract import Cause
from trainwright_operator.causes import IMAGE_REASONS
from trainwright_operator.reports import find_disruption, trainer_state
from trainwright_operator.times import format_time, parse_time

Object = dict[str, Any]

ENDED = ("Succeeded", "Failed")
LOST_TAINTS = ("node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready")


@dataclass(frozen=True)
class Patience:
    """How long something may be wrong before an attempt is given up for it."""

    node_lost: timedelta = timedelta(seconds=60)  # after the node's taint, or its pod's newest report
    image_pull: timedelta = timedelta(minutes=10)  # after the pod got its node


@dataclass(frozen=True)
class Verdict:
    """Why an attempt is given up, and when: before that it is a warning, and may turn out to be unfounded."""

    cause: Cause
    message: str
    due: datetime
    is_told: bool = False  # of a pod that waits, the message is told anyhow

    def warn(self) -> str:
        """Return the sentence for people while there is time left."""
        end = f"the attempt is given up at {format_time(self.due)}"
        return end if self.is_told else f"{self.message}; {end}"


def doubted_since(pod: Object, now: datetime) -> datetime | None:
    """Return since when a pod gives reason to ask for its node, or None: its state is told by a node that is.

    A node that does not answer leaves its pods not ready, then to be deleted, with no kubelet to do it.
    """
    status = pod.get("status", {})
    if status.get("phase") in ENDED or not pod["spec"].get("nodeName"):
        return None
    reasons = []
    if deleted := pod["metadata"].get("deletionTimestamp"):  # when its grace period is over
        reasons.append(parse_time(deleted))
    if disruption := find_disruption(status, "DeletionByTaintManager"):
        reasons.append(parse_time(disruption["lastTransitionTime"]))
    if status.get("reason") == "NodeLost":
        reasons.append(parse_time(pod["metadata"]["creationTimestamp"]))
    if "running" in trainer_state(status):
        reasons += [
            parse_time(condition["lastTransitionTime"])
            for condition in status.get("conditions", ())
            if condition["type"] == "Ready" and condition["status"] == "False"
        ]
    return min((moment for moment in reasons if moment <= now), default=None)


def judge_node(
    pod: Object,
    nodes: Mapping[str, Object | None],
    reported: datetime | None,
    now: datetime,
    patience: Patience,
) -> Verdict | None:
    """Return the verdict on a pod's node; `nodes` holds those asked for, None for one that does not exist."""
    doubted, name = doubted_since(pod, now), pod["spec"].get("nodeName", "")
    if doubted is None or name not in nodes:
        return None
    node = nodes[name]
    if node is None:
        silent, what = doubted, "is no longer in the cluster"
    elif (since := _silent_since(node)) is not None:
        silent, what = since, f"does not answer since {format_time(since)}"
    else:
        return None
    due = max(silent, reported or silent) + patience.node_lost
    return Verdict(Cause.NODE_LOST, f"node {name} {what}", due)


def judge_image(pod: Object, patience: Patience) -> Verdict | None:
    """Return the verdict on a pod whose image can't be got."""
    status = pod.get("status", {})
    waiting = trainer_state(status).get("waiting") or {}
    if waiting.get("reason") not in IMAGE_REASONS:
        return None
    since = parse_time(pod["metadata"]["creationTimestamp"])
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "True":
            since = parse_time(condition["lastTransitionTime"])
    message = f"{waiting['reason']}: {waiting.get('message') or 'the image can not be got'}"
    return Verdict(Cause.IMAGE_PULL, message, since + patience.image_pull, is_told=True)


def _silent_since(node: Object) -> datetime | None:
    """Return since when the cluster says that a node does not answer or can't work, or None if it does."""
    spec, status = node.get("spec", {}), node.get("status", {})
    taint = next((taint for taint in spec.get("taints", ()) if taint["key"] in LOST_TAINTS), None)
    ready = next((c for c in status.get("conditions", ()) if c["type"] == "Ready"), None)
    if taint is None or (ready and ready["status"] == "True"):
        return None
    moments = [taint.get("timeAdded"), ready and ready.get("lastTransitionTime")]
    known = [parse_time(moment) for moment in moments if moment]
    return min(known, default=parse_time(node["metadata"]["creationTimestamp"]))
