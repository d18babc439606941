"""What a pod may ask for that processes without namespaces can't give: named, never half done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Object = dict[str, Any]

VOLUME_KINDS = frozenset(
    {"configMap", "secret", "projected", "emptyDir", "persistentVolumeClaim", "hostPath", "downwardAPI"}
)
PROJECTED_KINDS = frozenset({"configMap", "secret", "serviceAccountToken", "downwardAPI"})
PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
PROBE_KINDS = frozenset({"httpGet", "tcpSocket"})

ENTRYPOINTS = {
    "trainwright": "trainwright",
    "trainwright-operator": "trainwright-operator",
    "trainwright-trainer": "trainwright-trainer",
    "trainwright-resource-api": "trainwright-resource-api",
}
"""The program an image of ours starts when the pod names no command."""


def entrypoint(image: str) -> str | None:
    """Return the program of one of our images, whatever its registry, tag or digest."""
    name = image.rsplit("/", maxsplit=1)[-1].partition("@")[0].partition(":")[0]
    return ENTRYPOINTS.get(name)


def refusals(pod: Object) -> list[str]:
    """Return a sentence for each thing the pod asks for that this node can't do."""
    spec = pod["spec"]
    found = [sentence for volume in spec.get("volumes", []) for sentence in _volume(volume)]
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        where = f"container {container['name']}"
        found += [f"{where}: {sentence}" for sentence in _container(container)]
    found += [f"{name} is not possible here" for name in ("hostPID", "hostIPC") if spec.get(name)]
    return found


def _volume(volume: Object) -> Iterator[str]:
    kinds = set(volume) - {"name"}
    for kind in sorted(kinds - VOLUME_KINDS):
        yield f"volume {volume['name']} is of kind {kind}; possible are {', '.join(sorted(VOLUME_KINDS))}"
    for source in volume.get("projected", {}).get("sources") or []:
        for kind in sorted(set(source) - PROJECTED_KINDS):
            possible = ", ".join(sorted(PROJECTED_KINDS))
            yield f"volume {volume['name']} projects a {kind}; possible are {possible}"
    for item in _downward_items(volume):
        if "resourceFieldRef" in item:
            yield f"volume {volume['name']} asks for resourceFieldRef in {item['path']}"


def _downward_items(volume: Object) -> list[Object]:
    sources = [volume, *(volume.get("projected", {}).get("sources") or [])]
    return [item for source in sources for item in source.get("downwardAPI", {}).get("items") or []]


def _container(container: Object) -> Iterator[str]:
    if container.get("securityContext", {}).get("privileged"):
        yield "privileged is not possible here"
    if container.get("restartPolicy"):
        yield "a restartPolicy of its own (a sidecar) is not possible here"
    if container.get("lifecycle"):
        yield "lifecycle hooks are not possible here"
    for mount in container.get("volumeMounts", []):
        if mount.get("subPathExpr"):
            yield f"subPathExpr of mount {mount['mountPath']} is not possible here"
    for variable in container.get("env", []):
        if variable.get("valueFrom", {}).get("resourceFieldRef"):
            yield f"resourceFieldRef of variable {variable['name']} is not possible here"
    for probe in PROBES:
        if container.get(probe) and not PROBE_KINDS & set(container[probe]):
            yield f"{probe} is neither httpGet nor tcpSocket"
    if not container.get("command") and entrypoint(container["image"]) is None:
        images = ", ".join(sorted(ENTRYPOINTS))
        yield f"image {container['image']} is not pulled, its program is not known ({images}): set command"
