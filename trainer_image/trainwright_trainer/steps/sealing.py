"""The sealing step: an exported model becomes two parts in the workspace."""

from __future__ import annotations

from pathlib import Path

from trainwright.artifacts import OnnxModel, SealedModel
from trainwright.contract import RunPlan
from trainwright.delivery.pointers import name_parts
from trainwright.errors import ConfigurationError
from trainwright.sealing import KeyTextError, PublisherKey, Recipient, read_recipients, seal
from trainwright_trainer.places import Places
from trainwright_trainer.watching import Watcher, count_bytes

FOLDER = "sealed"
SIGNING_KEY_FILE = "publisher.key"


def seal_model(onnx: OnnxModel, plan: RunPlan, places: Places, watcher: Watcher) -> SealedModel:
    """Seal the model for every recipient and prove that its parts open; nothing is uploaded."""
    if plan.delivery is None:
        raise ConfigurationError("the plan has no delivery", hint="a model is sealed only to be delivered")
    recipients, publisher = _read_keys(places)
    folder = places.workspace / FOLDER
    _remove_unfinished(folder)
    sealed = seal(
        places.workspace / onnx.path,
        folder,
        name=name_parts(plan.model),
        recipients=recipients,
        publisher=publisher,
        small_part=plan.delivery.sealing.small_part,
        on_bytes=count_bytes(watcher, 2 * onnx.size),  # written once, and proven once
    )
    if sealed.plaintext_digest != onnx.digest:
        raise ConfigurationError(
            f"{onnx.path} is no longer the model that was exported",
            hint="the workspace was changed from outside: start the run again",
        )
    return sealed.model_copy(
        update={"small_path": f"{FOLDER}/{sealed.small_path}", "big_path": f"{FOLDER}/{sealed.big_path}"}
    )


def _read_keys(places: Places) -> tuple[tuple[Recipient, ...], PublisherKey]:
    """Read both kinds of keys; what is wrong with either is told at once."""
    problems: list[str] = []
    recipients: tuple[Recipient, ...] = ()
    publisher: PublisherKey | None = None
    try:
        recipients = read_recipients(_require(places.recipients, "recipients"))
    except KeyTextError as error:
        problems.append(f"{error} ({error.hint})" if error.hint else str(error))
    try:
        publisher = PublisherKey.from_file(_require(places.signing_key, "signing key") / SIGNING_KEY_FILE)
    except KeyTextError as error:
        problems.append(f"{error} ({error.hint})" if error.hint else str(error))
    if publisher is None or problems:
        raise ConfigurationError("; ".join(problems), hint="make keys with `trainwright keys new`")
    return recipients, publisher


def _require(folder: Path | None, what: str) -> Path:
    if folder is None:
        raise KeyTextError(f"no folder of {what} is given")
    return folder


def _remove_unfinished(folder: Path) -> None:
    """Remove what an interrupted sealing left; finished parts are in the journal, and not sealed again."""
    for pattern in ("*.small", "*.big"):
        for path in folder.glob(pattern):
            path.unlink()
