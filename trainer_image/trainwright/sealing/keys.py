"""The four kinds of keys, and the one line of text each is kept as.

    trainwright-{kind}-v1:{key id}:{32 bytes in unpadded base64url}:{checksum}

The checksum (8 hex digits of SHA-256 over what is before it) tells a damaged key from a wrong one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from trainwright.sealing.errors import KeyTextError

KEY_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
"""A key id is a file name, a Secret's key, and a field of the header."""

_MAX_KEY_FILE_BYTES = 4096


@dataclass(frozen=True)
class _Key:
    """32 bytes and the id people call them by."""

    kind: ClassVar[str]
    purpose: ClassVar[str]
    key_id: str
    raw: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not KEY_ID.fullmatch(self.key_id):
            raise KeyTextError(
                f"key id {self.key_id!r} is not usable as a file name",
                hint="use at most 63 letters, digits, '.', '_' and '-', a letter or digit at both ends",
            )
        if len(self.raw) != 32:
            raise KeyTextError(f"{self.purpose} {self.key_id!r} has {len(self.raw)} bytes, not 32")

    def to_text(self) -> str:
        """Return the key as its one line of text."""
        encoded = base64.urlsafe_b64encode(self.raw).rstrip(b"=").decode()
        body = f"trainwright-{self.kind}-v1:{self.key_id}:{encoded}"
        return f"{body}:{_checksum(body)}\n"

    @classmethod
    def from_text(cls, text: str, *, where: str = "the text") -> Self:
        """Read a key from its line of text; an error never repeats the text, which may be a secret."""
        body, _, checksum = text.strip().rpartition(":")
        kind, *fields = body.split(":")
        if kind != f"trainwright-{cls.kind}-v1" or len(fields) != 2:
            raise KeyTextError(
                f"{where} is {_describe(kind)}, not a {cls.purpose}",
                hint=f"a {cls.purpose} starts with 'trainwright-{cls.kind}-v1:'; "
                "`trainwright keys new` makes both halves of a pair",
            )
        if checksum != _checksum(body):
            raise KeyTextError(
                f"{where}: the checksum of the {cls.purpose} does not fit",
                hint="the line was cut or changed on its way: copy the whole file again",
            )
        key_id, encoded = fields
        try:
            raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        except binascii.Error:
            raise KeyTextError(f"{where}: the {cls.purpose} is not base64url") from None
        return cls(key_id, raw)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a key from a file that holds its line and nothing else."""
        try:
            with path.open("rb") as file:
                text = file.read(_MAX_KEY_FILE_BYTES).decode("ascii")
        except OSError as error:
            raise KeyTextError(f"{path}: {error.strerror}", hint=f"put the {cls.purpose} there") from None
        except UnicodeDecodeError:
            raise KeyTextError(f"{path} is not a {cls.purpose}: it is not text") from None
        return cls.from_text(text, where=str(path))


class Recipient(_Key):
    """The public half of a recipient's X25519 key pair: who holds it can seal, and open nothing."""

    kind = "recipient"
    purpose = "recipient's public key"


class VerifyKey(_Key):
    """The public half of a publisher's Ed25519 key pair: readers pin it."""

    kind = "verify-key"
    purpose = "publisher's verify key"

    @property
    def fingerprint(self) -> str:
        """The first 16 hex digits of the key's SHA-256, for people to compare."""
        return fingerprint(self.raw)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Say whether the signature is this publisher's over the message."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True


class _SecretKey(_Key):
    """A key that must never be printed or left readable for others."""

    def write(self, path: Path) -> None:
        """Create the file with mode 600; an existing one is never overwritten."""
        _create(path, self.to_text(), 0o600)


class PrivateKey(_SecretKey):
    """The private half of a recipient's key pair: with both parts it opens a model."""

    kind = "private-key"
    purpose = "recipient's private key"

    @classmethod
    def generate(cls, key_id: str) -> Self:
        """Make a fresh key pair."""
        return cls(key_id, X25519PrivateKey.generate().private_bytes_raw())

    @property
    def exchange(self) -> X25519PrivateKey:
        """The key as the X25519 implementation wants it."""
        return X25519PrivateKey.from_private_bytes(self.raw)

    @property
    def recipient(self) -> Recipient:
        """The public half."""
        return Recipient(self.key_id, self.exchange.public_key().public_bytes_raw())


class PublisherKey(_SecretKey):
    """The private half of a publisher's key pair: it signs what is published."""

    kind = "publisher-key"
    purpose = "publisher's signing key"

    @classmethod
    def generate(cls, key_id: str) -> Self:
        """Make a fresh key pair."""
        return cls(key_id, Ed25519PrivateKey.generate().private_bytes_raw())

    @property
    def verify_key(self) -> VerifyKey:
        """The public half."""
        private = Ed25519PrivateKey.from_private_bytes(self.raw)
        return VerifyKey(self.key_id, private.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte Ed25519 signature of the message."""
        return Ed25519PrivateKey.from_private_bytes(self.raw).sign(message)


def write_public_key(key: Recipient | VerifyKey, path: Path) -> None:
    """Create the file, readable by everybody; an existing one is never overwritten."""
    _create(path, key.to_text(), 0o644)


PublicKey = TypeVar("PublicKey", Recipient, VerifyKey)


def read_recipients(folder: Path) -> tuple[Recipient, ...]:
    """Read one public key per file, named by its key id, as a mounted Secret or ConfigMap has them.

    Everything that is wrong in the folder is told at once.
    """
    return _read_folder(folder, Recipient.from_file, "recipient's public key")


def read_publishers(folder: Path) -> tuple[VerifyKey, ...]:
    """Read one verify key per file, named by its key id; everything that is wrong is told at once."""
    return _read_folder(folder, VerifyKey.from_file, "publisher's verify key")


def _read_folder(folder: Path, read: Callable[[Path], PublicKey], what: str) -> tuple[PublicKey, ...]:
    paths = sorted(path for path in _entries(folder) if not path.name.startswith(".") and path.is_file())
    found, problems = [], []
    for path in paths:
        try:
            key = read(path)
        except KeyTextError as error:
            problems.append(str(error))
            continue
        if key.key_id != path.name:
            problems.append(f"{path} holds the key {key.key_id!r}: name the file by its key id")
        found.append(key)
    if not paths:
        problems.append(f"{folder} holds no {what}")
    if problems:
        raise KeyTextError("; ".join(problems), hint="make a pair with `trainwright keys new`")
    return tuple(found)


def fingerprint(raw: bytes) -> str:
    """Return the first 16 hex digits of a public key's SHA-256."""
    return hashlib.sha256(raw).hexdigest()[:16]


def _entries(folder: Path) -> Iterable[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise KeyTextError(f"the folder of keys {folder}: {error.strerror}") from None


def _create(path: Path, text: str, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise KeyTextError(
            f"{path} exists already", hint="keys are never overwritten: choose a name"
        ) from None
    except OSError as error:
        raise KeyTextError(f"{path}: {error.strerror}") from None
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)


def _checksum(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:8]


def _describe(kind: str) -> str:
    for key in (Recipient, PrivateKey, PublisherKey, VerifyKey):
        if kind == f"trainwright-{key.kind}-v1":
            return f"a {key.purpose}"
    return "something else"
