"""The chart's rendered manifests, applied to a cluster as `kubectl apply --server-side` does."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from trainwright_devstack.api import APPLY_PATCH, Api

Object = dict[str, Any]

MANIFEST = Path(__file__).resolve().parents[2] / "helm" / "install.yaml"
NAMESPACE = "trainwright-system"
DEPLOYMENT = "trainwright-operator"
SETTINGS_KEY = "settings.yaml"
FIELD_MANAGER = "trainwright-devstack"
READY_SECONDS = 120.0


class InstallationError(RuntimeError):
    """The operator did not become ready; the message says what its pods tell."""


@dataclass(frozen=True)
class Images:
    """The images of the two workloads; a process node starts their programs from its own environment."""

    operator: str = "trainwright-operator:devstack"
    trainer: str = "trainwright-trainer:devstack"


@dataclass(frozen=True)
class Options:
    """What differs from the chart's default values.

    `settings` is merged into the operator's settings file. On a process node the health port is a port of
    this machine, so it has to be a free one.
    """

    images: Images = Images()
    health_port: int = 8080
    settings: Object = field(default_factory=dict)
    manifest: Path = MANIFEST


def install(kubeconfig: Path, options: Options | None = None) -> None:
    """Apply CRDs, policy, access and operator, and return when the operator is ready."""
    chosen = options or Options()
    documents = [item for item in yaml.safe_load_all(chosen.manifest.read_text()) if item]
    with Api(kubeconfig) as api:
        apply(api, [customize(document, chosen) for document in documents])
        _wait_for_operator(api)


def customize(document: Object, options: Options) -> Object:
    """Return a document of the manifest with the options in it."""
    if document["metadata"]["name"] != DEPLOYMENT:
        return document
    if document["kind"] == "ConfigMap":
        settings = yaml.safe_load(document["data"][SETTINGS_KEY])
        settings["trainer"] = settings["trainer"] | {"image": options.images.trainer}
        settings |= {"healthPort": options.health_port} | options.settings
        return document | {"data": {SETTINGS_KEY: yaml.safe_dump(settings)}}
    if document["kind"] == "Deployment":
        template = document["spec"]["template"]
        # The health port may be one of the machine's: the former operator has to leave it first.
        document["spec"]["strategy"] = {"type": "Recreate"}
        # Settings are read once: other ones make a new pod.
        digest = hashlib.sha256(repr(options).encode()).hexdigest()
        template["metadata"]["annotations"]["trainwright.dev/settings"] = digest
        container = template["spec"]["containers"][0]
        container["image"] = options.images.operator
        container["imagePullPolicy"] = "IfNotPresent"
        for port in container["ports"]:
            port["containerPort"] = options.health_port
    return document


def apply(api: Api, documents: Iterable[Object]) -> None:
    """Apply documents in their order; definitions are served before anything later is applied."""
    resources = Resources(api)
    for document in documents:
        path = resources.path(document)
        api.patch(path, document, APPLY_PATCH, fieldManager=FIELD_MANAGER, force="true")
        if document["kind"] == "CustomResourceDefinition":
            _wait_for_definition(api, path)


@dataclass
class Resources:
    """Paths of objects, as the API server's discovery tells them."""

    api: Api
    _known: dict[str, dict[str, Object]] = field(default_factory=dict)

    def path(self, document: Object) -> str:
        """Return the path of one object."""
        version, kind, metadata = document["apiVersion"], document["kind"], document["metadata"]
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        if version not in self._known:
            found = self.api.get(root)["resources"]
            self._known[version] = {each["kind"]: each for each in found if "/" not in each["name"]}
        resource = self._known[version][kind]
        namespace = metadata.get("namespace", "default") if resource["namespaced"] else ""
        folder = f"{root}/namespaces/{namespace}" if namespace else root
        return f"{folder}/{resource['name']}/{metadata['name']}"


def _wait_for_definition(api: Api, path: str) -> None:
    _wait(lambda: _holds(api.get(path), "Established"), f"{path} was not established in time")


def _wait_for_operator(api: Api) -> None:
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{DEPLOYMENT}"

    def ready() -> bool:
        found = api.get(path)
        status = found.get("status", {})
        current = status.get("observedGeneration", 0) >= found["metadata"]["generation"]
        updated = status.get("updatedReplicas", 0) == status.get("replicas", 0)
        return bool(current and updated and status.get("readyReplicas", 0) >= found["spec"]["replicas"])

    try:
        _wait(ready, "the operator was not ready in time")
    except InstallationError as error:
        raise InstallationError(f"{error}: {_pod_states(api)}") from None


def _pod_states(api: Api) -> str:
    pods = api.get(f"/api/v1/namespaces/{NAMESPACE}/pods")["items"]
    states = [each.get("status", {}) for each in pods]
    told = [
        str(state.get("message") or [each["state"] for each in state.get("containerStatuses", [])])
        for state in states
    ]
    return "; ".join(told) or "it has no pods"


def _holds(document: Object, condition: str) -> bool:
    conditions = document.get("status", {}).get("conditions") or []
    return any(each["type"] == condition and each["status"] == "True" for each in conditions)


def _wait(holds: Callable[[], bool], message: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise InstallationError(message)
        time.sleep(0.2)
