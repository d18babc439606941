"""Publishing: big part, proof, fence, small part, proof, pointers; the same parts however often it takes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainwright.artifacts import Published, SealedModel
from trainwright.bucket import OnBytes
from trainwright.contract import ModelSettings, PartReport
from trainwright.delivery.cdn import Cdn
from trainwright.delivery.orphans import remove_orphans
from trainwright.delivery.pointers import build_pointer, name_pointer
from trainwright.delivery.resource_api import ResourceApi
from trainwright.errors import PublishingError

LOG = logging.getLogger(__name__)

Fence = Callable[[str], None]
"""Called with the file id before the commit; raises when this pod is no longer the one that may publish."""


@dataclass(frozen=True)
class Destination:
    """Both servers, and the folder the model goes to on each."""

    api: ResourceApi
    cdn: Cdn
    folder: str

    def key(self, name: str) -> str:
        """Return a big part's key on the CDN."""
        return f"{self.folder}/{name}"


@dataclass(frozen=True)
class Publication:
    """What a model is published as: a version always, the newest of its name and its tag if `promoted`."""

    model: ModelSettings
    promoted: bool = True

    @property
    def pointers(self) -> tuple[str, ...]:
        """The names of the pointers that lead to it, in the order in which they are set."""
        names = [name_pointer(self.model.name, self.model.version)]
        if self.promoted and self.model.tag:
            names.append(name_pointer(self.model.name, self.model.tag))
        return (*names, name_pointer(self.model.name)) if self.promoted else tuple(names)


def publish(  # noqa: PLR0913, PLR0917 - what is published, where, and who may stop it
    sealed: SealedModel,
    workspace: Path,
    publication: Publication,
    destination: Destination,
    fence: Fence,
    on_bytes: OnBytes | None = None,
) -> Published:
    """Deliver both parts and set the pointers; a second call with the same parts sends only what is missing.

    The small part is the commit: before it nobody can open the model, and after it everything is in place
    but the pointers. `on_bytes` is called with the size of each piece of the big part that was sent or read
    back; what it raises ends the publishing, which is still without effect then.
    """
    _deliver_big(workspace / sealed.big_path, sealed.big, destination, on_bytes)
    fence(sealed.file_id)
    _commit_small(workspace / sealed.small_path, sealed.small, destination)
    _keep_big(workspace / sealed.big_path, sealed.big, destination)
    _set_pointers(sealed, publication, destination)
    remove_orphans(publication.model.name, destination.folder, destination.api, destination.cdn)
    return Published(
        file_id=sealed.file_id, pointers=publication.pointers, small=sealed.small, big=sealed.big
    )


def _deliver_big(
    path: Path, part: PartReport, destination: Destination, on_bytes: OnBytes | None = None
) -> None:
    """Upload the big part unless the server has these very bytes, and read it back."""
    key, cdn = destination.key(part.name), destination.cdn
    if cdn.find_size(key) == part.size and cdn.hash(key, part.size, on_bytes) == part.digest:
        LOG.info("%s is on the CDN already", part.name)
        return
    cdn.upload(path, key, on_bytes)
    digest, size = cdn.hash(key, part.size, on_bytes), cdn.find_size(key)
    if digest != part.digest or size != part.size:
        raise PublishingError(
            f"the CDN holds something else than {part.name}: {size} bytes, {part.size} were sent",
            hint="the part was damaged on disk or on its way; a retry uploads it again",
        )


def _commit_small(path: Path, part: PartReport, destination: Destination) -> None:
    """Upload the small part unless the server has these very bytes, and read it back."""
    folder, api = destination.folder, destination.api
    stored = api.hash(folder, part.name)
    if stored and stored.digest == part.digest:
        LOG.info("%s is on the API already", part.name)
        return
    api.upload(folder, part.name, path)
    stored = api.hash(folder, part.name)
    if stored is None or stored.digest != part.digest:
        raise PublishingError(
            f"the API holds something else than {part.name}: {stored.size if stored else 0} bytes,"
            f" {part.size} were sent",
            hint="the part was damaged on disk or on its way; a retry uploads it again",
        )


def _keep_big(path: Path, part: PartReport, destination: Destination) -> None:
    """Make sure that the big part outlived the commit.

    A part that waited long for its commit looks like an orphan to another run of the model; from the
    commit on it is safe, so one look is enough.
    """
    if destination.cdn.find_size(destination.key(part.name)) != part.size:
        _deliver_big(path, part, destination)


def _set_pointers(sealed: SealedModel, publication: Publication, destination: Destination) -> None:
    """Replace each pointer, the version's first, and read it back."""
    text = build_pointer(sealed, publication.model, destination.cdn.bucket).model_dump_json(by_alias=True)
    for name in publication.pointers:
        destination.api.upload_text(destination.folder, name, text)
        if destination.api.read_text(destination.folder, name) != text:
            raise PublishingError(
                f"the pointer {name} on the API is not the one that was sent",
                hint="another run may be publishing the same model: a retry sets it again",
            )
