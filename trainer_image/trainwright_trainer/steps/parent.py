"""The parent: a published version's training bundle, fetched, verified and opened in the workspace."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from pydantic import ValidationError

from trainwright.artifacts import Parent
from trainwright.contract import BUNDLE_SUFFIX, Contract, DeliverySettings, Digest, ParentSettings, RunPlan
from trainwright.delivery import FileMissingError, Keys, Source, fetch, name_pointer
from trainwright.errors import ConfigurationError, DataError
from trainwright.sealing import KeyTextError, PrivateKey, SealedModelError, read_publishers
from trainwright_trainer import yolo
from trainwright_trainer.bundles import BundleFacts, open_bundle
from trainwright_trainer.files import digest_file, write_atomically
from trainwright_trainer.places import Places
from trainwright_trainer.servers import connect_source

FOLDER = "parent"
BUNDLE_KEY_FILE = "bundle.key"
_NOTE = f"{FOLDER}/parent.json"
_WEIGHTS, _MANIFEST = f"{FOLDER}/weights.pt", f"{FOLDER}/manifest.jsonl"
_LOG = logging.getLogger(__name__)


class _Note(Contract):
    """What the workspace has of the parent."""

    parent: Parent
    files: dict[str, Digest]


def find_parent(plan: RunPlan, places: Places) -> Parent | None:
    """Return the plan's parent, if it has one and it is whole in the workspace."""
    if plan.model.parent is None:
        return None
    try:
        note = _Note.model_validate_json((places.workspace / _NOTE).read_bytes())
        whole = all(digest_file(places.workspace / name) == digest for name, digest in note.files.items())
    except (OSError, ValidationError):
        return None
    return note.parent if whole else None


def fetch_parent(plan: RunPlan, places: Places) -> Parent | None:
    """Return the plan's parent, brought into the workspace if it is not there; none if the plan has none.

    Whatever speaks against it is a `ConfigurationError` that says why: no retry makes it another version.
    """
    wanted = plan.model.parent
    if wanted is None or (found := find_parent(plan, places)) is not None:
        return None if wanted is None else found
    assert plan.delivery is not None  # noqa: S101 - a plan with a parent has one
    keys = _read_keys(places)
    folder = places.workspace / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    bundle = folder / "bundle"
    _fetch_bundle(wanted, plan.delivery, places, keys, bundle)
    yolo.prepare(places.workspace / "ultralytics")
    try:
        facts = open_bundle(bundle, places.workspace / _WEIGHTS, places.workspace / _MANIFEST)
    except DataError as error:
        raise _refusal(wanted, error, error.hint) from None
    if (facts.model, facts.version) != (wanted.model, wanted.version):
        raise _refusal(wanted, f"its bundle is that of {facts.model}-{facts.version}")
    bundle.unlink()
    return _keep(facts, places.workspace)


def _read_keys(places: Places) -> Keys:
    """Read the key that opens bundles, and those of trusted publishers; what is wrong is told at once."""
    if places.bundle_key is None or places.publishers is None:
        raise ConfigurationError(
            "model.parent needs the key that opens its training bundle, and those of trusted publishers",
            hint="Set delivery.bundle.privateKey and delivery.bundle.publishers.",
        )
    try:
        private_key = PrivateKey.from_file(places.bundle_key / BUNDLE_KEY_FILE)
        return Keys(private_key, read_publishers(places.publishers))
    except KeyTextError as error:
        raise ConfigurationError(str(error), hint=error.hint) from None


def _fetch_bundle(
    wanted: ParentSettings, delivery: DeliverySettings, places: Places, keys: Keys, target: Path
) -> None:
    source = connect_source(delivery, places)
    try:
        fetched = fetch(
            wanted.model, wanted.version + BUNDLE_SUFFIX, source, keys, target.parent, suffix=".safetensors"
        )
    except FileMissingError:
        raise _refusal(wanted, _describe_absence(wanted, source)) from None
    except SealedModelError as error:
        raise _refusal(wanted, error, error.hint) from None
    _LOG.info("parent %s, signed by %s: %s", wanted, fetched.opened.publisher, fetched.opened.digest)
    fetched.opened.path.rename(target)


def _describe_absence(wanted: ParentSettings, source: Source) -> str:
    if source.api.exists(source.folder, name_pointer(wanted.model, wanted.version)):
        return "it was published without a training bundle (delivery.bundle.recipients)"
    return f"{source.api.url} has no such version in the folder {source.folder}, or it is retired"


def _refusal(wanted: ParentSettings, why: object, hint: str = "") -> ConfigurationError:
    return ConfigurationError(
        f"model.parent {str(wanted)!r} can't be trained further: {why}",
        hint=hint or "Name another version in model.parent, or leave it out to train a base model.",
    )


def _keep(facts: BundleFacts, workspace: Path) -> Parent:
    parent = Parent(
        model=facts.model,
        version=facts.version,
        digest=facts.digest,
        weights=_WEIGHTS,
        class_map=facts.class_map,
        manifest=_MANIFEST,
        metrics=facts.metrics,
    )
    files = {name: digest_file(workspace / name) for name in (_WEIGHTS, _MANIFEST)}
    note = _Note(parent=parent, files=files)
    write_atomically(workspace / _NOTE, note.model_dump_json(by_alias=True, indent=1).encode())
    return parent
