"""The environment and the command line of a container."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from trainwright_devstack.node.paths import PathMap
from trainwright_devstack.node.refusals import entrypoint

Object = dict[str, Any]

Lookup = Callable[[str, str], dict[str, str] | None]
"""Returns the texts of a ConfigMap or Secret, given plural and name; None where there is none."""

_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_.-][A-Za-z0-9_.-]*)\)")
_KEYED_FIELD = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")


class MissingReference(Exception):  # noqa: N818
    """Something a pod refers to does not exist yet; the pod waits for it."""


def base_environment(pod: Object, home: Path, server: str) -> dict[str, str]:
    """Return what every container has: nothing of the node's own environment but its search path."""
    address = urlsplit(server)
    # The environment this node was installed into comes first: it is what our images contain.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {
        "PATH": path,
        "HOME": str(home),
        "TMPDIR": str(home),
        "LANG": "C.UTF-8",
        "HOSTNAME": pod["metadata"]["name"],
        "KUBERNETES_SERVICE_HOST": address.hostname or "",
        "KUBERNETES_SERVICE_PORT": str(address.port or 443),
        "KUBERNETES_SERVICE_PORT_HTTPS": str(address.port or 443),
    }


def container_environment(
    pod: Object, container: Object, base: Mapping[str, str], look: Lookup
) -> dict[str, str]:
    """Return the variables as the pod means them; mount paths are not rewritten yet."""
    environment = dict(base)
    for source in container.get("envFrom", []):
        environment |= _from_source(source, look)
    for variable in container.get("env", []):
        value = _value(pod, variable, environment, look)
        if value is not None:
            environment[variable["name"]] = value
    return environment


def command_line(container: Object, environment: Mapping[str, str], paths: PathMap) -> list[str]:
    """Return the words to execute, references expanded and mount paths rewritten."""
    program = container.get("command") or [entrypoint(container["image"]) or ""]
    words = [*program, *container.get("args", [])]
    return [paths.rewrite(expand(word, environment)) for word in words]


def expand(text: str, environment: Mapping[str, str]) -> str:
    """Replace `$(NAME)` by the variable; `$$` is a dollar, and an unknown name stays as it is."""

    def replacement(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return environment.get(match[1], match[0])

    return _REFERENCE.sub(replacement, text)


def field(pod: Object, path: str) -> str:
    """Return what the downward API gives for a field of the pod."""
    metadata, spec = pod["metadata"], pod["spec"]
    if keyed := _KEYED_FIELD.fullmatch(path):
        return str((metadata.get(keyed[1]) or {}).get(keyed[2], ""))
    if path in {"metadata.labels", "metadata.annotations"}:
        entries = metadata.get(path.split(".")[1]) or {}
        return "\n".join(f'{key}="{_escape(value)}"' for key, value in sorted(entries.items()))
    values = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
    }
    addresses = ("status.podIP", "status.podIPs", "status.hostIP", "status.hostIPs")
    values |= dict.fromkeys(addresses, "127.0.0.1")
    return str(values[path])


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _from_source(source: Object, look: Lookup) -> dict[str, str]:
    prefix = source.get("prefix", "")
    found: dict[str, str] = {}
    for plural, reference in _references(source):
        texts = look(plural, reference["name"])
        if texts is None and not reference.get("optional"):
            raise MissingReference(f"{plural} {reference['name']} not found")
        found |= {prefix + key: value for key, value in (texts or {}).items()}
    return found


def _references(source: Object) -> Iterator[tuple[str, Object]]:
    for key, plural in (("configMapRef", "configmaps"), ("secretRef", "secrets")):
        if key in source:
            yield plural, source[key]


def _value(pod: Object, variable: Object, environment: Mapping[str, str], look: Lookup) -> str | None:
    source = variable.get("valueFrom")
    if not source:
        return expand(variable.get("value", ""), environment)
    if "fieldRef" in source:
        return field(pod, source["fieldRef"]["fieldPath"])
    plural = "secrets" if "secretKeyRef" in source else "configmaps"
    reference = source.get("secretKeyRef") or source["configMapKeyRef"]
    texts = look(plural, reference["name"])
    if texts is not None and reference["key"] in texts:
        return texts[reference["key"]]
    if reference.get("optional"):
        return None
    what = "not found" if texts is None else f"has no key {reference['key']}"
    raise MissingReference(f"{plural} {reference['name']} {what}, for variable {variable['name']}")
