"""Whether a run asks for more than its profile allows: every violation at once. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import yaml

from trainwright.contract import TrainingSettings
from trainwright_operator.api import Compute, TrainingRunSpec
from trainwright_operator.quantities import parse_quantity
from trainwright_operator.snapshot import Snapshot

Object = dict[str, Any]
Found = Mapping[tuple[str, str], Object | None]

ONE_GPU = 1  # what a run gets that says nothing
HTTPS = 443


def find_violations(run: Object, spec: TrainingRunSpec, snapshot: Snapshot, found: Found) -> list[str]:
    """Return a sentence for everything in which a run goes beyond what it is allowed."""
    return [
        *_number_violations(spec, snapshot),
        *_resource_violations(spec, snapshot),
        *_environment_violations(run, snapshot),
        *_endpoint_violations(spec, snapshot, found),
    ]


def _who(snapshot: Snapshot) -> str:
    return str(snapshot.profile) if snapshot.profile else "the operator"


def _number_violations(spec: TrainingRunSpec, snapshot: Snapshot) -> Iterator[str]:
    """Compare what has a built-in default: a run that says nothing asks for that."""
    gpus = spec.compute.gpus if spec.compute else None
    epochs = spec.training.epochs if spec.training else None
    active = spec.deadlines.active_seconds if spec.deadlines else None
    asked = {
        "spec.compute.gpus": (ONE_GPU if gpus is None else gpus, snapshot.bounds.gpus),
        "spec.training.epochs": (epochs or TrainingSettings().epochs, snapshot.bounds.epochs),
        "spec.deadlines.activeSeconds": (active or 0, snapshot.bounds.active_seconds),
    }
    for field, (value, most) in asked.items():
        if most is not None and value > most:
            yield f"{field} is {value}: {_who(snapshot)} allows at most {most}"


def _resource_violations(spec: TrainingRunSpec, snapshot: Snapshot) -> Iterator[str]:
    """Compare limits, as requests can't be above them; a container without one may take all of a node."""
    compute = spec.compute or Compute()
    resources = compute.resources
    limits = (resources and resources.limits) or {}
    requests = (resources and resources.requests) or {}
    for name, most in (("memory", snapshot.bounds.memory), ("cpu", snapshot.bounds.cpu)):
        field = f"spec.compute.resources.limits.{name}"
        if most is None:
            continue
        if name not in limits:
            yield f"{field} is not set: {_who(snapshot)} allows at most {most}, so say how much it is to be"
        elif parse_quantity(limits[name]) > parse_quantity(most):
            yield f"{field} is {limits[name]}: {_who(snapshot)} allows at most {most}"
    if snapshot.bounds.gpus is None:
        return
    # Devices are counted by gpus: by another name they would not be.
    granted = snapshot.defaults.get("compute", {}).get("resources", {}).get("limits", {})
    for name in sorted({*limits, *requests}):
        value = limits.get(name, requests.get(name, 0))
        if "/" in name and parse_quantity(value) > parse_quantity(granted.get(name, 0)):
            yield (
                f"spec.compute.resources.limits.{name} is {value}: {_who(snapshot)} allows devices by"
                " spec.compute.gpus and gpuResource only"
            )


def _environment_violations(run: Object, snapshot: Snapshot) -> Iterator[str]:
    """Look at what the run itself sets; what its profile sets is the platform's."""
    allowed = ", ".join(snapshot.allowed_environment) or "none"
    for name in sorted(run["spec"].get("compute", {}).get("environment", {})):
        if name not in snapshot.allowed_environment:
            yield f"spec.compute.environment.{name} is not allowed by {_who(snapshot)}: allowed are {allowed}"


def _endpoint_violations(spec: TrainingRunSpec, snapshot: Snapshot, found: Found) -> Iterator[str]:
    allowed = snapshot.bounds.endpoints
    if allowed is None:
        return
    for field, address in _endpoints(spec, found):
        if not is_allowed(address, allowed):
            names = ", ".join(allowed) or "none"
            yield f"{field} leads to {host_of(address)!r}: {_who(snapshot)} allows the hosts {names}"


def _endpoints(spec: TrainingRunSpec, found: Found) -> Iterator[tuple[str, str]]:
    """Yield field and address of every server that a run names."""
    delivery = None if spec.dry_run else spec.delivery
    if delivery and delivery.api and delivery.api.url:
        yield "spec.delivery.api.url", delivery.api.url
    if delivery and delivery.cdn and delivery.cdn.credentials:
        name = delivery.cdn.credentials.secret_name
        if host := _host_of_cdn(found.get(("Secret", name))):
            yield f"spec.delivery.cdn.credentials (cdn.yaml in Secret {name!r})", host
    store = None if spec.dry_run or spec.checkpoint is None else spec.checkpoint.store
    if store and store.s3:
        yield "spec.checkpoint.store.s3.endpoint", store.s3.endpoint


def _host_of_cdn(secret: Object | None) -> str:
    """Return the address in a Secret's cdn.yaml; one that can't be read the trainer refuses."""
    try:
        text = base64.b64decode((secret or {}).get("data", {})["cdn.yaml"])
        body = yaml.safe_load(text)
    except (KeyError, binascii.Error, UnicodeDecodeError, yaml.YAMLError):
        return ""
    return str(body.get("host", "")) if isinstance(body, dict) else ""


def host_of(address: str) -> str:
    """Return the host of an address, with or without a scheme before it."""
    return (_split(address).hostname or "").lower()


def is_allowed(address: str, allowed: tuple[str, ...]) -> bool:
    """Return whether an address leads to one of these hosts: HOST, HOST:PORT, or *.HOST for all below it."""
    try:
        parts = _split(address)
        host, port = (parts.hostname or "").lower(), parts.port or HTTPS
    except ValueError:
        return False
    return any(_matches(host, port, *pattern.partition(":")[::2]) for pattern in allowed)


def _split(address: str) -> Any:
    return urlsplit(address if "//" in address else f"//{address}")


def _matches(host: str, port: int, pattern: str, pattern_port: str) -> bool:
    if pattern_port and int(pattern_port) != port:
        return False
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern


def memory_limit(spec: TrainingRunSpec) -> Decimal | None:
    """Return the memory limit of a run's container in bytes, if it has one."""
    resources = spec.compute.resources if spec.compute else None
    limit = (resources.limits or {}).get("memory") if resources else None
    return None if limit is None else parse_quantity(limit)
