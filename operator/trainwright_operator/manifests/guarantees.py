"""What holds of every trainer's pod, whatever a profile's patch says. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trainwright_operator.api.compute import APPARMOR
from trainwright_operator.names import GROUP, MANAGED_BY_LABEL, TRAINER_CONTAINER

Object = dict[str, Any]

POD_FIELDS = (
    "serviceAccountName",
    "serviceAccount",
    "automountServiceAccountToken",
    "restartPolicy",
    "nodeName",
    "activeDeadlineSeconds",
    "hostNetwork",
    "hostPID",
    "hostIPC",
    "shareProcessNamespace",
)
"""Fields of a pod that say who it is, how it ends, and what of its node it sees."""

TRAINER_FIELDS = (
    "name",
    "image",
    "command",
    "args",
    "workingDir",
    "stdin",
    "tty",
    "terminationMessagePath",
    "terminationMessagePolicy",
)
"""Fields of the trainer's container that say what it does, and how its end is told."""

SAFE_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
"""The volumes that the restricted Pod Security level allows."""

SHARED_WITH_OTHERS = {"workspace", "temporary", "shared-memory"}
"""Our volumes that a container beside the trainer may mount; the others are for the trainer alone."""


def find_broken(before: Object, after: Object) -> list[str]:
    """Return a sentence for each guarantee of `before` that does not hold of `after`."""
    problems = [
        *_changed_marks(before, after),
        *_changed_fields("spec", POD_FIELDS, before["spec"], after["spec"]),
    ]
    problems += _weakened_security("spec.securityContext", before["spec"]["securityContext"], after["spec"])
    problems += _changed_volumes(before["spec"], after["spec"])
    problems += _containers(before["spec"], after["spec"])
    return [f"spec.podTemplate is refused: {problem}" for problem in problems]


def _changed_marks(before: Object, after: Object) -> Iterator[str]:
    """Labels and annotations by which the operator finds its pods, and the fence their run."""
    for section in ("labels", "annotations"):
        old, new = before["metadata"].get(section, {}), after["metadata"].get(section) or {}
        for key in sorted({*old, *new}):
            ours = key == MANAGED_BY_LABEL or key.partition("/")[0].endswith(GROUP)
            if ours and old.get(key) != new.get(key):
                yield f"metadata.{section} {key} is the operator's"
            if key.startswith(APPARMOR) and old.get(key) != new.get(key):
                yield f"metadata.{section} {key} can't be set: it switches AppArmor off"


def _changed_fields(path: str, fields: tuple[str, ...], before: Object, after: Object) -> Iterator[str]:
    for field in fields:
        if before.get(field) != after.get(field):
            yield f"{path}.{field} can't be changed"


def _weakened_security(path: str, before: Object, pod: Object) -> Iterator[str]:
    """Of a pod's security context users and groups may change, but to root."""
    after = pod.get("securityContext") or {}
    for field in ("runAsNonRoot", "seccompProfile", "sysctls", "windowsOptions", "appArmorProfile"):
        if before.get(field) != after.get(field):
            yield f"{path}.{field} can't be changed"
    for field in ("runAsUser", "runAsGroup", "fsGroup"):
        if field in before and not after.get(field):
            yield f"{path}.{field} must be a number above 0"


def _changed_volumes(before: Object, after: Object) -> Iterator[str]:
    kept = {volume["name"]: volume for volume in after.get("volumes") or ()}
    ours = {volume["name"]: volume for volume in before["volumes"]}
    for name, volume in ours.items():
        if kept.get(name) != volume:
            yield f"volume {name!r} is the operator's"
    for name, volume in kept.items():
        kinds = {kind for kind in volume if kind != "name"}
        if name not in ours and not kinds <= SAFE_VOLUMES:
            what = ", ".join(sorted(kinds - SAFE_VOLUMES))
            yield f"volume {name!r} is a {what}: a trainer's pod may have none"


def _containers(before: Object, after: Object) -> Iterator[str]:
    containers = {container["name"]: container for container in after.get("containers") or ()}
    (trainer,) = before["containers"]
    others = [*(after.get("initContainers") or ()), *(after.get("ephemeralContainers") or ())]
    if set(containers) != {TRAINER_CONTAINER}:
        yield (
            f"spec.containers must have {TRAINER_CONTAINER!r} and no other, or the pod would not end:"
            " use initContainers with restartPolicy: Always"
        )
    if TRAINER_CONTAINER in containers:
        yield from _trainer(trainer, containers[TRAINER_CONTAINER])
    ours = {volume["name"] for volume in before["volumes"]}
    for container in others:
        yield from _other(container, trainer, ours - SHARED_WITH_OTHERS)


def _trainer(before: Object, after: Object) -> Iterator[str]:
    path = f"container {TRAINER_CONTAINER!r}"
    yield from _changed_fields(path, TRAINER_FIELDS, before, after)
    yield from _weak_container(path, before["securityContext"], after)
    own = {entry["name"]: entry.get("value") for entry in before["env"]}
    new = {entry["name"]: entry.get("value") for entry in after.get("env") or ()}
    for name in ("HOME", "TMPDIR"):
        if own[name] != new.get(name):
            yield f"{path}: the variable {name} can't be changed"
    mounts = {mount["mountPath"]: mount for mount in after.get("volumeMounts") or ()}
    ours = {mount["mountPath"]: mount for mount in before["volumeMounts"]}
    for mount_path, mount in ours.items():
        if mounts.get(mount_path) != mount:
            yield f"{path}: the mount {mount_path} can't be changed"
    for mount_path in mounts.keys() - ours.keys():
        for own_path in ours:
            if _overlap(mount_path, own_path):
                yield f"{path}: the mount {mount_path} is in the way of {own_path}"


def _other(container: Object, trainer: Object, reserved: set[str]) -> Iterator[str]:
    """A container beside the trainer is as restricted as it is, and sees nothing of its credentials."""
    path = f"container {container['name']!r}"
    yield from _weak_container(path, trainer["securityContext"], container)
    for mount in container.get("volumeMounts") or ():
        if mount.get("name") in reserved:
            yield f"{path} must not mount the volume {mount['name']!r}: only the trainer may"


def _weak_container(path: str, wanted: Object, container: Object) -> Iterator[str]:
    context = container.get("securityContext") or {}
    for field, value in wanted.items():
        if context.get(field) != value:
            yield f"{path}.securityContext.{field} must be {value}"
    if context.get("privileged") or context.get("runAsNonRoot") is False or context.get("runAsUser") == 0:
        yield f"{path}.securityContext must not make it root or privileged"
    for field in ("seccompProfile", "procMount", "appArmorProfile", "windowsOptions"):
        if field in context:
            yield f"{path}.securityContext.{field} can't be set: the pod's holds"
    if any(port.get("hostPort") for port in container.get("ports") or ()):
        yield f"{path} must not use a port of its node"


def _overlap(one: str, other: str) -> bool:
    """Whether one path is, or is below, the other."""
    first, second = one.rstrip("/") + "/", other.rstrip("/") + "/"
    return first.startswith(second) or second.startswith(first)
