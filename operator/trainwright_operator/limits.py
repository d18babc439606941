"""Whether a run asks for more than its profile allows: every violation at once. Pure."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from trainwright.contract import AnnotationStream, TrainingSettings
from trainwright_operator.api import Compute, Resources, TrainingRunSpec
from trainwright_operator.hosts import host_of, is_allowed, is_loopback, without_user
from trainwright_operator.quantities import parse_quantity
from trainwright_operator.snapshot import Snapshot

Object = dict[str, Any]
Found = Mapping[tuple[str, str], Object | None]

ONE_GPU = 1  # what a run gets that says nothing
WEB = ("http://", "https://", "json://", "jsons://", "xml://", "xmls://", "form://", "forms://")


def find_violations(
    run_spec: Object, spec: TrainingRunSpec, snapshot: Snapshot, found: Found, *, said: bool = False
) -> list[str]:
    """Return a sentence for everything in which a run goes beyond what it is allowed.

    `run_spec` is what the run says, `spec` what it gets. With `said` nothing counts that is not said.
    """
    return [
        *_number_violations(spec, snapshot, said=said),
        *_resource_violations(spec, snapshot, said=said),
        *_environment_violations(run_spec, snapshot),
        *_endpoint_violations(spec, snapshot, found),
        *_clear_text_violations(run_spec, spec, snapshot),
    ]


def _who(snapshot: Snapshot) -> str:
    return str(snapshot.profile) if snapshot.profile else "the operator"


def _number_violations(spec: TrainingRunSpec, snapshot: Snapshot, *, said: bool) -> Iterator[str]:
    """Compare what has a built-in default: a run that says nothing asks for that."""
    gpus = spec.compute.gpus if spec.compute else None
    epochs = spec.training.epochs if spec.training else None
    active = spec.deadlines.active_seconds if spec.deadlines else None
    asked = {
        "spec.compute.gpus": (gpus, ONE_GPU, snapshot.bounds.gpus),
        "spec.training.epochs": (epochs, TrainingSettings().epochs, snapshot.bounds.epochs),
        "spec.deadlines.activeSeconds": (active, 0, snapshot.bounds.active_seconds),  # else the limit holds
    }
    for field, (set_, built_in, most) in asked.items():
        value = built_in if set_ is None and not said else set_
        if most is not None and value is not None and value > most:
            yield f"{field} is {value}: {_who(snapshot)} allows at most {most}"


def _resource_violations(spec: TrainingRunSpec, snapshot: Snapshot, *, said: bool) -> Iterator[str]:
    """Compare those of all pods of a run; only the one that trains counts its devices by gpus."""
    compute = spec.compute or Compute()
    pods = {"spec.compute.resources": compute.resources}
    if compute.stages == "Apart":
        pods["spec.compute.cpuResources"] = compute.cpu_resources
    for field, resources in pods.items():
        limits = (resources and resources.limits) or {}
        for name, most in (("memory", snapshot.bounds.memory), ("cpu", snapshot.bounds.cpu)):
            yield from _limit_violations(
                f"{field}.limits.{name}", limits.get(name), most, snapshot, said=said
            )
        if snapshot.bounds.gpus is not None:
            yield from _device_violations(field, resources, snapshot)


def _limit_violations(
    field: str, value: int | str | None, most: int | str | None, snapshot: Snapshot, *, said: bool
) -> Iterator[str]:
    """Compare a limit, as requests can't be above it; a container without one may take all of a node."""
    if most is None or (value is None and said):
        return
    if value is None:
        yield f"{field} is not set: {_who(snapshot)} allows at most {most}, so say how much it is to be"
    elif parse_quantity(value) > parse_quantity(most):
        yield f"{field} is {value}: {_who(snapshot)} allows at most {most}"


def _device_violations(field: str, resources: Resources | None, snapshot: Snapshot) -> Iterator[str]:
    """Devices are counted by gpus: by another name they would not be, so only the profile may give them."""
    section = field.rpartition(".")[2]
    granted = snapshot.defaults.get("compute", {}).get(section, {}).get("limits", {})
    asked = {**((resources and resources.requests) or {}), **((resources and resources.limits) or {})}
    for name, value in sorted(asked.items()):
        if "/" in name and parse_quantity(value) > parse_quantity(granted.get(name, 0)):
            yield (
                f"{field}.limits.{name} is {value}: {_who(snapshot)} allows devices by spec.compute.gpus and"
                " spec.compute.gpuResource only"
            )


def _environment_violations(run_spec: Object, snapshot: Snapshot) -> Iterator[str]:
    """Look at what the run itself sets; what its profile sets is the platform's."""
    allowed = ", ".join(snapshot.allowed_environment) or "none"
    for name in sorted((run_spec.get("compute") or {}).get("environment") or {}):
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


def _clear_text_violations(run_spec: Object, spec: TrainingRunSpec, snapshot: Snapshot) -> Iterator[str]:
    """Only the platform may say that the way to a broker is safe: by a default, or by host and port."""
    own, broker = (run_spec.get("dataset") or {}).get("annotationStream"), _broker(spec)
    stream = spec.dataset.annotation_stream
    if not own or not stream or broker is None or stream.tls is not False or is_loopback(stream.host):
        return
    with_port = tuple(host for host in snapshot.bounds.endpoints or () if ":" in host)
    if not is_allowed(broker, with_port):
        yield (
            "spec.dataset.annotationStream.tls is false, and would send password and images in the clear to"
            f" {broker}: leave it out, or have the profile's limits.endpoints name {broker}"
        )


def _broker(spec: TrainingRunSpec) -> str | None:
    """Return host and port of the annotation stream that a run reads, if any."""
    stream = spec.dataset.annotation_stream
    if stream is None:
        return None
    sections = stream.model_dump(by_alias=True, exclude_none=True, exclude={"credentials"})
    return f"{stream.host.lower()}:{AnnotationStream.model_validate(sections).listening_port}"


def _endpoints(spec: TrainingRunSpec, found: Found) -> Iterator[tuple[str, str]]:
    """Yield field and address of every server that a run names."""
    for index, entry in enumerate(spec.notify or ()):
        secret, key = entry.url_from.secret_name, entry.url_from.key
        address = _text_of(found, secret, key).strip()
        if address.lower().startswith(WEB):  # the messenger looks at all kinds, when it sends
            yield f"spec.notify[{index}].urlFrom ({key} in Secret {secret!r})", without_user(address)
    if broker := _broker(spec):
        yield "spec.dataset.annotationStream.host", broker
    if spec.dry_run:
        return
    delivery, store = spec.delivery, spec.checkpoint.store if spec.checkpoint else None
    if store and store.s3 and store.s3.endpoint:
        yield "spec.checkpoint.store.s3.endpoint", store.s3.endpoint
    if delivery and delivery.api and delivery.api.url:
        yield "spec.delivery.api.url", delivery.api.url
    if delivery and delivery.cdn and delivery.cdn.credentials:
        name = delivery.cdn.credentials.secret_name
        if host := _host_of_cdn(_text_of(found, name, "cdn.yaml")):
            yield f"spec.delivery.cdn.credentials (cdn.yaml in Secret {name!r})", host


def _text_of(found: Found, secret: str, key: str) -> str:
    """Return a Secret's text; nothing where it can't be looked into, or is none: others complain of that."""
    try:
        return base64.b64decode((found.get(("Secret", secret)) or {}).get("data", {})[key]).decode()
    except (KeyError, ValueError):
        return ""


def _host_of_cdn(text: str) -> str:
    """Return the address in the text of a cdn.yaml; one that can't be read the trainer refuses."""
    try:
        body = yaml.safe_load(text)
    except yaml.YAMLError:
        return ""
    return str(body.get("host") or "") if isinstance(body, dict) else ""
