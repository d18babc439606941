"""The sealing step: an exported model becomes two parts in the workspace."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainwright.artifacts import OnnxModel, SealedModel
from trainwright.bucket import OnBytes
from trainwright.contract import BUNDLE_SUFFIX, RunPlan, SmallPartSettings
from trainwright.delivery import name_parts
from trainwright.errors import ConfigurationError
from trainwright.sealing import KeyTextError, PublisherKey, Recipient, read_recipients, seal
from trainwright_trainer.bundles import Trained, make_bundle
from trainwright_trainer.places import Places
from trainwright_trainer.watching import Watcher, count_bytes

FOLDER = "sealed"
SIGNING_KEY_FILE = "publisher.key"


def seal_model(
    onnx: OnnxModel, plan: RunPlan, places: Places, watcher: Watcher, trained: Trained | None = None
) -> SealedModel:
    """Seal the model for every recipient and prove that its parts open; nothing is uploaded.

    Where the plan asks for a training bundle, what was `trained` is sealed beside it, for other recipients.
    """
    if plan.delivery is None:
        raise ConfigurationError("the plan has no delivery", hint="a model is sealed only to be delivered")
    recipients, publisher = _read_keys(places)
    own = _read_bundle_recipients(places) if plan.delivery.bundle else ()
    folder = places.workspace / FOLDER
    _remove_unfinished(folder)
    model = _Sealing(plan.delivery.sealing.small_part, publisher, folder)
    sealed = model.seal(
        places.workspace / onnx.path,
        name_parts(plan.model),
        recipients,
        count_bytes(watcher, 2 * onnx.size),  # written once, and proven once
    )
    if sealed.plaintext_digest != onnx.digest:
        raise ConfigurationError(
            f"{onnx.path} is no longer the model that was exported",
            hint="the workspace was changed from outside: start the run again",
        )
    bundle = folder / "bundle.safetensors"
    if not own or trained is None or not make_bundle(bundle, trained, onnx, plan, places.workspace):
        return sealed
    try:
        name = name_parts(plan.model) + BUNDLE_SUFFIX
        return sealed.model_copy(update={"bundle": model.seal(bundle, name, own, lambda _: watcher.linger())})
    finally:
        bundle.unlink()


@dataclass(frozen=True)
class _Sealing:
    """How everything of one version is sealed."""

    small_part: SmallPartSettings
    publisher: PublisherKey
    folder: Path

    def seal(
        self, source: Path, name: str, recipients: tuple[Recipient, ...], on_bytes: OnBytes
    ) -> SealedModel:
        """Seal one file; its parts are named from the workspace."""
        sealed = seal(
            source,
            self.folder,
            name=name,
            recipients=recipients,
            publisher=self.publisher,
            small_part=self.small_part,
            on_bytes=on_bytes,
        )
        paths = {"small_path": f"{FOLDER}/{sealed.small_path}", "big_path": f"{FOLDER}/{sealed.big_path}"}
        return sealed.model_copy(update=paths)


def _read_bundle_recipients(places: Places) -> tuple[Recipient, ...]:
    try:
        return read_recipients(_require(places.bundle_recipients, "recipients of training bundles"))
    except KeyTextError as error:
        raise ConfigurationError(str(error), hint=error.hint) from None


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
