"""Fetching: pointer, small part, big part, and the model they open to."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainwright.contract import PartReport
from trainwright.delivery.cdn import Cdn
from trainwright.delivery.credentials import CDN_FILE, CdnCredentials, Role
from trainwright.delivery.pointers import Pointer, name_pointer, split_big_name
from trainwright.delivery.resource_api import ResourceApi
from trainwright.errors import ConfigurationError, PublishingError
from trainwright.sealing import Opened, PrivateKey, VerifyKey, inspect, open_sealed


@dataclass(frozen=True)
class Keys:
    """What a reader needs to open a model: its own key, and those of the publishers it trusts."""

    private_key: PrivateKey
    publishers: Sequence[VerifyKey]


@dataclass(frozen=True)
class Source:
    """Both servers; without CDN credentials of its own the reader asks the API for them."""

    api: ResourceApi
    folder: str
    cdn_credentials: CdnCredentials | None = None


@dataclass(frozen=True)
class Fetched:
    """A model that was fetched and opened, and what it was made of."""

    opened: Opened
    pointer: Pointer


def fetch(  # noqa: PLR0913 - what is fetched, from where, opened by whom
    model: str, version: str | None, source: Source, keys: Keys, to: Path, *, suffix: str = ".onnx"
) -> Fetched:
    """Fetch a model's newest version, or that of a version or tag, to `{to}/{model}.{version}{suffix}`.

    Both parts lie in a temporary folder inside `to`, which is gone afterwards, whatever happens.
    """
    pointer = _read_pointer(model, version, source)
    to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to, prefix=".trainwright-") as temporary:
        small, big = Path(temporary) / "small", Path(temporary) / "big"
        _fetch_small(pointer.small, source, small)
        # The pointer is not signed; the header is, and opening verifies these same bytes.
        if inspect(small).big_name != pointer.big.name:
            raise PublishingError(
                f"the small part goes with {inspect(small).big_name}, the pointer names {pointer.big.name}",
                hint="the parts on the servers were mixed up: publish the model again",
            )
        _fetch_big(pointer, source, big)
        opened = open_sealed(
            small,
            big,
            private_key=keys.private_key,
            publishers=keys.publishers,
            destination=to / f"{model}.{pointer.version}{suffix}",
        )
    return Fetched(opened, pointer)


def fetch_cdn_credentials(api: ResourceApi, folder: str, role: Role) -> CdnCredentials:
    """Ask the API for `cdn.yaml`; it stays in memory."""
    text = api.read_text(folder, CDN_FILE)
    try:
        return CdnCredentials.from_text(text, role)
    except ConfigurationError as error:
        raise PublishingError(
            f"{error}, as {api.url} gives it to this account",
            hint=f"give the account the {role}'s role there, or name a Secret with a {CDN_FILE} of its own",
        ) from None


def _read_pointer(model: str, version: str | None, source: Source) -> Pointer:
    name = name_pointer(model, version)
    pointer = Pointer.from_text(source.api.read_text(source.folder, name), name=name)
    named = (model, pointer.version, pointer.file_id)
    asked_for = version in (None, pointer.version, pointer.tag)
    if not asked_for or split_big_name(pointer.big.name) != named:
        raise PublishingError(
            f"the pointer {name} leads to {pointer.big.name}, which is another model or version",
            hint="publish the model again, or choose another version",
        )
    return pointer


def _fetch_small(part: PartReport, source: Source, path: Path) -> None:
    with path.open("wb") as file:
        stored = source.api.download(source.folder, part.name, file, at_most=part.size)
    if stored.digest != part.digest:
        raise PublishingError(
            f"{part.name} is not the part the pointer describes",
            hint="it was damaged, or is being replaced: try again",
        )


def _fetch_big(pointer: Pointer, source: Source, path: Path) -> None:
    credentials = source.cdn_credentials or fetch_cdn_credentials(source.api, source.folder, "downloader")
    cdn = Cdn(credentials, bucket=pointer.bucket)
    cdn.download(f"{source.folder}/{pointer.big.name}", path)
    if path.stat().st_size != pointer.big.size:
        raise PublishingError(
            f"{pointer.big.name} on the CDN is not the part the pointer describes",
            hint="it was damaged, or is being replaced: try again",
        )
