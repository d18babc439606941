"""What a run names by name: which objects must exist, with which keys, before anything is started.

Pure but for the values passed in: `required` says what to look for, `find_problems` what is wrong with it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from trainwright_operator.api import Recipients, TrainingRunSpec
from trainwright_operator.names import USE_LABEL, Use

Object = dict[str, Any]

CDN_KEY = "cdn.yaml"
_KEY_RINGS = {Use.RECIPIENTS: "recipient's", Use.PUBLISHERS: "publisher's"}


@dataclass(frozen=True)
class Reference:
    """One object that a field of a run names."""

    field: str
    kind: str
    name: str
    use: Use | None = None
    keys: tuple[str, ...] = ()

    @property
    def identity(self) -> tuple[str, str]:
        """Kind and name: two fields may name the same object."""
        return self.kind, self.name


def required(spec: TrainingRunSpec) -> list[Reference]:
    """Return every object that this effective spec names."""
    found: list[Reference] = []
    claim = spec.dataset.source.persistent_volume_claim
    if claim:
        found.append(
            Reference(
                "spec.dataset.source.persistentVolumeClaim.claimName",
                "PersistentVolumeClaim",
                claim.claim_name,
            )
        )
    stream = spec.dataset.annotation_stream
    if stream:
        field, name = "spec.dataset.annotationStream.credentials.secretName", stream.credentials.secret_name
        found.append(Reference(field, "Secret", name, Use.STREAM, ("RABBITMQ_USER", "RABBITMQ_PASSWORD")))
    classes = spec.dataset.classes and spec.dataset.classes.config_map_key_ref
    if classes:
        found.append(
            Reference("spec.dataset.classes.configMapKeyRef", "ConfigMap", classes.name, None, (classes.key,))
        )
    found += _notify_references(spec) + _volume_references(spec)
    if spec.dry_run:
        return found
    return found + _delivery_references(spec) + _checkpoint_references(spec)


def _notify_references(spec: TrainingRunSpec) -> list[Reference]:
    addresses = [entry.url_from for entry in spec.notify or ()]
    return [
        Reference(f"spec.notify[{i}].urlFrom", "Secret", address.secret_name, Use.NOTIFY, (address.key,))
        for i, address in enumerate(addresses)
    ]


def _volume_references(spec: TrainingRunSpec) -> list[Reference]:
    found = []
    for index, volume in enumerate((spec.compute.volumes if spec.compute else None) or ()):
        field = f"spec.compute.volumes[{index}]"
        if claim := volume.persistent_volume_claim:
            kind, path = "PersistentVolumeClaim", "persistentVolumeClaim.claimName"
            found.append(Reference(f"{field}.{path}", kind, claim.claim_name))
        if volume.config_map:
            found.append(Reference(f"{field}.configMap.name", "ConfigMap", volume.config_map.name))
    return found


def _delivery_references(spec: TrainingRunSpec) -> list[Reference]:
    delivery = spec.delivery
    if delivery is None:
        return []
    found: list[Reference] = []
    root = "spec.delivery"
    if delivery.api and delivery.api.credentials:
        keys = ("AZAION_API_EMAIL", "AZAION_API_PASSWORD")
        field, name = f"{root}.api.credentials.secretName", delivery.api.credentials.secret_name
        found.append(Reference(field, "Secret", name, Use.DELIVERY, keys))
    if delivery.cdn and delivery.cdn.credentials:
        field, name = f"{root}.cdn.credentials.secretName", delivery.cdn.credentials.secret_name
        found.append(Reference(field, "Secret", name, Use.DELIVERY, (CDN_KEY,)))
    sealing = delivery.sealing
    if sealing and sealing.recipients:
        field = f"{root}.sealing.recipients"
        if sealing.recipients.secret_name:
            name = sealing.recipients.secret_name
            found.append(Reference(f"{field}.secretName", "Secret", name, Use.RECIPIENTS))
        if sealing.recipients.config_map_name:
            name = sealing.recipients.config_map_name
            found.append(Reference(f"{field}.configMapName", "ConfigMap", name, Use.RECIPIENTS))
    if sealing and sealing.signing_key:
        field, name = f"{root}.sealing.signingKey.secretName", sealing.signing_key.secret_name
        found.append(Reference(field, "Secret", name, Use.DELIVERY, ("publisher.key",)))
    return found + _bundle_references(spec)


def _bundle_references(spec: TrainingRunSpec) -> list[Reference]:
    """Return what the training bundle of this version, and that of its parent, take."""
    bundle, root = spec.delivery and spec.delivery.bundle, "spec.delivery.bundle"
    if not bundle:
        return []
    found: list[Reference] = []
    keys: dict[str, tuple[Recipients | None, Use]] = {"recipients": (bundle.recipients, Use.RECIPIENTS)}
    if spec.model.parent:
        keys["publishers"] = (bundle.publishers, Use.PUBLISHERS)
    for field, (keys_of, use) in keys.items():
        if keys_of and keys_of.secret_name:
            found.append(Reference(f"{root}.{field}.secretName", "Secret", keys_of.secret_name, use))
        elif keys_of and keys_of.config_map_name:
            found.append(
                Reference(f"{root}.{field}.configMapName", "ConfigMap", keys_of.config_map_name, use)
            )
    if spec.model.parent and bundle.private_key:
        field, name = f"{root}.privateKey.secretName", bundle.private_key.secret_name
        found.append(Reference(field, "Secret", name, Use.BUNDLE, ("bundle.key",)))
    return found


def _checkpoint_references(spec: TrainingRunSpec) -> list[Reference]:
    store = spec.checkpoint and spec.checkpoint.store
    if not store:
        return []
    root = "spec.checkpoint.store"
    if store.persistent_volume_claim:
        field, name = f"{root}.persistentVolumeClaim.claimName", store.persistent_volume_claim.claim_name
        return [Reference(field, "PersistentVolumeClaim", name)]
    assert store.s3 is not None  # noqa: S101 - a store has exactly one member
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    field, name = f"{root}.s3.credentials.secretName", store.s3.credentials.secret_name
    return [Reference(field, "Secret", name, Use.CHECKPOINT, keys)]


def find_problems(
    references: list[Reference], found: Mapping[tuple[str, str], Object | None], namespace: str
) -> list[str]:
    """Return a sentence for everything that is wrong with what the references name: all of it at once."""
    return [
        problem
        for reference in references
        if (problem := _find_problem(reference, found[reference.identity], namespace))
    ]


def _find_problem(reference: Reference, found: Object | None, namespace: str) -> str:
    what = f"{reference.kind} {reference.name!r}"
    label = f"the label {USE_LABEL}={reference.use}" if reference.use else ""
    if found is None:
        how = " and ".join(filter(None, (_keys(reference.keys) if reference.keys else "", label)))
        advice = f"create it{' with ' + how if how else ''}"
        return f"{reference.field}: {what} does not exist in namespace {namespace!r}: {advice}"
    wrong = []
    if reference.use and found["metadata"].get("labels", {}).get(USE_LABEL) != reference.use:
        wrong.append(f"lacks {label}")
    held = {**(found.get("data") or {}), **(found.get("binaryData") or {})}
    missing = tuple(key for key in reference.keys if not held.get(key))
    if missing:
        wrong.append(f"lacks {_keys(missing)}")
    if reference.use in _KEY_RINGS and not held:
        wrong.append(f"holds no {_KEY_RINGS[reference.use]} key: add one public key per entry")
    return f"{reference.field}: {what} {' and '.join(wrong)}" if wrong else ""


def _keys(keys: tuple[str, ...]) -> str:
    return ("the key " if len(keys) == 1 else "the keys ") + ", ".join(keys)


def find_excess(references: list[Reference], found: Mapping[tuple[str, str], Object | None]) -> list[str]:
    """Return a sentence for each Secret that holds more than a run has a use for."""
    return [
        f"CredentialsTooBroad: {reference.field}: Secret {reference.name!r} also holds the downloader's keys,"
        " which no training needs: give each role a Secret of its own"
        for reference in references
        if CDN_KEY in reference.keys and _has_downloader(found[reference.identity] or {})
    ]


def _has_downloader(secret: Object) -> bool:
    try:
        held = yaml.safe_load(base64.b64decode(secret["data"][CDN_KEY]))
    except (KeyError, ValueError, yaml.YAMLError):
        return False  # the trainer says what is wrong with it
    return isinstance(held, dict) and any(held.get(f"downloader_access_{part}") for part in ("key", "secret"))
