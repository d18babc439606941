"""What a node reports of a pod: computed from what is, never from what was reported before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from trainwright_devstack.node.container import Terminated

Object = dict[str, Any]
Phase = Literal["Pending", "Running", "Succeeded", "Failed"]

ADDRESS = "127.0.0.1"


@dataclass(frozen=True)
class ContainerView:
    """What is known of one container; `waiting` is the reason and message while nothing of it runs."""

    spec: Object
    container_id: str
    run: int
    running_since: str | None
    terminated: Terminated | None
    last: Terminated | None
    waiting: tuple[str, str]
    started: bool
    ready: bool


@dataclass(frozen=True)
class PodView:
    """What is known of a pod; `failure` is set when the node ended it: a reason and a message."""

    pod: Object
    containers: Sequence[ContainerView]
    init_containers: Sequence[ContainerView]
    failure: tuple[str, str] | None
    ending: bool


def status(view: PodView) -> Object:
    """Return the patch of the pod's status."""
    phase = pod_phase(view)
    patch: Object = {
        "phase": phase,
        "conditions": _conditions(view, phase),
        "hostIP": ADDRESS,
        "hostIPs": [{"ip": ADDRESS}],
        "podIP": ADDRESS,
        "podIPs": [{"ip": ADDRESS}],
        "startTime": view.pod.get("status", {}).get("startTime") or now(),
        "containerStatuses": [_container_status(container, phase) for container in view.containers],
    }
    if view.init_containers:
        patch["initContainerStatuses"] = [_container_status(each, phase) for each in view.init_containers]
    if view.failure:
        patch["reason"], patch["message"] = view.failure
    return patch


def pod_phase(view: PodView) -> Phase:
    """Return the phase by the kubelet's rules."""
    everything = [*view.init_containers, *view.containers]
    over = not any(container.running_since for container in everything)
    ends = [container.terminated for container in view.containers]
    if view.failure:
        return "Failed" if over else "Running"
    if view.ending and over:
        return "Succeeded" if all(end and end.exit_code == 0 for end in ends) else "Failed"
    policy = view.pod["spec"].get("restartPolicy", "Always")
    if policy == "Never" and any(_failed(container) for container in view.init_containers):
        return "Failed"
    if all(container.run < 0 for container in view.containers):
        return "Pending"
    if policy != "Always" and over and all(end and end.exit_code == 0 for end in ends):
        return "Succeeded"
    return "Failed" if policy == "Never" and over and all(ends) else "Running"


def now() -> str:
    """Return this moment as Kubernetes writes times."""
    return kubernetes_time(datetime.now(UTC).isoformat())


def kubernetes_time(timestamp: str) -> str:
    """Return a timestamp in whole seconds, as metav1.Time is."""
    return datetime.fromisoformat(timestamp).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _failed(container: ContainerView) -> bool:
    return container.terminated is not None and container.terminated.exit_code != 0


def _conditions(view: PodView, phase: Phase) -> list[Object]:
    initialized = all(each.terminated and each.terminated.exit_code == 0 for each in view.init_containers)
    over = phase in {"Succeeded", "Failed"}
    ready = not over and initialized and all(each.ready and each.running_since for each in view.containers)
    reason = "" if ready else "PodCompleted" if phase == "Succeeded" else "ContainersNotReady"
    if phase == "Failed":
        reason = "PodFailed"
    wanted = {
        "PodScheduled": (True, ""),
        "Initialized": (initialized, "" if initialized else "ContainersNotInitialized"),
        "ContainersReady": (ready, reason),
        "Ready": (ready, reason),
    }
    known = {condition["type"]: condition for condition in view.pod.get("status", {}).get("conditions") or []}
    return [_condition(kind, *value, known.get(kind)) for kind, value in wanted.items()]


def _condition(kind: str, holds: bool, reason: str, known: Object | None) -> Object:
    text = str(holds)
    changed = known is None or known["status"] != text
    since = now() if known is None or changed else known["lastTransitionTime"]
    condition = {"type": kind, "status": text, "lastTransitionTime": since}
    return condition | ({"reason": reason} if reason else {"reason": None})


def _container_status(view: ContainerView, phase: Phase) -> Object:
    over = phase in {"Succeeded", "Failed"}
    found: Object = {
        "name": view.spec["name"],
        "image": view.spec["image"],
        "imageID": "",
        "ready": bool(view.running_since) and view.ready,
        "started": bool(view.running_since) and view.started,
        "restartCount": max(view.run, 0),
        "state": _state(view, over=over),
    }
    if view.run >= 0:
        found["containerID"] = view.container_id
    last = view.terminated if "waiting" in found["state"] else view.last
    if last:
        found["lastState"] = {"terminated": _terminated(last)}
    return found


def _state(view: ContainerView, *, over: bool) -> Object:
    if view.running_since:
        return {"running": {"startedAt": kubernetes_time(view.running_since)}}
    if view.terminated and (over or not view.waiting[0]):
        return {"terminated": _terminated(view.terminated)}
    reason, message = view.waiting
    return {"waiting": {"reason": reason or "ContainerCreating", **({"message": message} if message else {})}}


def _terminated(end: Terminated) -> Object:
    found = {
        "exitCode": end.exit_code,
        "reason": end.reason,
        "startedAt": kubernetes_time(end.started_at),
        "finishedAt": kubernetes_time(end.finished_at),
        "containerID": end.container_id,
    }
    return found | ({"message": end.message} if end.message else {})
