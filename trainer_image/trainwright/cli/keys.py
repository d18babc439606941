"""`trainwright keys`: the key pairs of recipients and publishers."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from trainwright.cli.output import print_json, print_lines
from trainwright.errors import ConfigurationError
from trainwright.sealing import PrivateKey, PublisherKey, Recipient, VerifyKey, write_public_key

app = typer.Typer(no_args_is_help=True, help="Make the key pairs of recipients and publishers.")


class Kind(StrEnum):
    """Whose key pair it is."""

    RECIPIENT = "recipient"
    PUBLISHER = "publisher"


@dataclass(frozen=True)
class KeyPair:
    """A key pair on disk: the private file has mode 600, the public one is for everybody."""

    key_id: str
    private: Path
    public: Path


@app.command("new")
def make_keys(
    to: Annotated[Path, typer.Option(help="Folder for the two files; made if it is not there.")],
    kind: Annotated[Kind, typer.Option(help="Who the pair is for.")] = Kind.RECIPIENT,
    name: Annotated[str | None, typer.Option(help="The key id; a new one of its own by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a key pair: NAME.private stays where models are opened (or signed), NAME.public goes elsewhere."""
    pair = write_pair(kind, name or f"{kind}-{secrets.token_hex(4)}", to)
    if as_json:
        print_json({"keyId": pair.key_id, "private": str(pair.private), "public": str(pair.public)})
        return
    print_lines(*_describe(kind, pair))


def write_pair(kind: Kind, key_id: str, folder: Path) -> KeyPair:
    """Write both halves of a fresh pair; existing files are never overwritten."""
    private: PrivateKey | PublisherKey
    public: Recipient | VerifyKey
    if kind is Kind.RECIPIENT:
        private = PrivateKey.generate(key_id)
        public = private.recipient
    else:
        private = PublisherKey.generate(key_id)
        public = private.verify_key
    pair = KeyPair(key_id, folder / f"{key_id}.private", folder / f"{key_id}.public")
    taken = [str(path) for path in (pair.private, pair.public) if path.exists()]
    if taken:
        raise ConfigurationError(f"{' and '.join(taken)} exist already", hint="choose another --name")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigurationError(f"the folder {folder} can't be made: {error.strerror}") from None
    private.write(pair.private)
    write_public_key(public, pair.public)
    return pair


def _describe(kind: Kind, pair: KeyPair) -> list[str]:
    if kind is Kind.RECIPIENT:
        return [
            f"private key  {pair.private}   (opens models: keep it where they are used, and a copy offline)",
            f"public key   {pair.public}   (give it to whoever seals)",
            "",
            "Let runs seal for it:",
            f"  kubectl create configmap recipients --from-file={pair.key_id}={pair.public}",
            "  kubectl label configmap recipients trainwright.dev/use=recipients",
        ]
    return [
        f"signing key  {pair.private}   (signs models: for the Secret below only)",
        f"verify key   {pair.public}   (readers pin it: trainwright fetch --publisher {pair.public})",
        "",
        "Let runs sign with it:",
        f"  kubectl create secret generic publisher --from-file=publisher.key={pair.private}",
        "  kubectl label secret publisher trainwright.dev/use=delivery",
    ]
