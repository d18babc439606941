"""Where each byte of the format stands; docs/sealed-format.md says the same in words.

Integers are big-endian. Nothing here computes a secret: this module only knows shapes and sizes.
"""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass
from typing import BinaryIO

from trainwright.sealing.errors import MalformedError, NotSealedError, SizeError, UnsupportedError
from trainwright.sealing.keys import KEY_ID

# A high bit, line ends of both kinds and an end-of-file mark: a transfer that alters text destroys them.
SMALL_MAGIC = b"\x89TWS\r\n\x1a\n"
BIG_MAGIC = b"\x89TWB\r\n\x1a\n"
VERSION = 1

ALGORITHMS = {
    "payload encryption": {1: "STREAM with AES-256-GCM"},
    "key derivation": {1: "HKDF-SHA256"},
    "binding": {1: "BLAKE3 derive_key"},
    "signature": {1: "Ed25519"},
}
HPKE_STANZA = 1  # DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM

TAG_SIZE = 16
DEFAULT_CHUNK_SIZE = 1 << 20
MIN_CHUNK_SIZE, MAX_CHUNK_SIZE = 1 << 8, 1 << 24
MAX_CHUNKS = 1 << 32
MAX_STANZAS = 64
MAX_NAME = 255
WRAPPED_KEY_SIZE = 32 + 32 + TAG_SIZE  # the encapsulated X25519 key, the encrypted data key, its tag
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
"""A part's name: no path separator, no leading dot."""

_OPENING = struct.Struct(">8sH4H")
_PRELUDE = struct.Struct(">8sH4H16s32s7sIQQ")
_MANIFEST = struct.Struct(">Q32s")
_SEALS = struct.Struct(">32s32s32s")
SIGNATURE_SIZE = 64
BIG_START = len(BIG_MAGIC) + 16


@dataclass(frozen=True)
class Prelude:
    """What is fixed before the first chunk; its digest is the associated data of every chunk."""

    file_id: bytes
    salt: bytes
    nonce_prefix: bytes
    chunk_size: int
    plaintext_size: int
    boundary: int

    def encode(self) -> bytes:
        """Return the 93 bytes."""
        algorithms = (1,) * len(ALGORITHMS)
        return _PRELUDE.pack(
            SMALL_MAGIC, VERSION, *algorithms, self.file_id, self.salt, self.nonce_prefix,
            self.chunk_size, self.plaintext_size, self.boundary,
        )  # fmt: skip

    @property
    def digest(self) -> bytes:
        """SHA-256 of the encoded prelude."""
        return hashlib.sha256(self.encode()).digest()

    @property
    def chunks(self) -> int:
        """How many chunks the payload has: an empty model is one empty chunk."""
        return max(1, -(-self.plaintext_size // self.chunk_size))

    @property
    def ciphertext_size(self) -> int:
        """Bytes of the payload, tags included."""
        return self.plaintext_size + self.chunks * TAG_SIZE

    @property
    def big_size(self) -> int:
        """Bytes of the whole big part."""
        return BIG_START + self.ciphertext_size - self.boundary


@dataclass(frozen=True)
class Stanza:
    """The data key, wrapped for one recipient."""

    key_id: str
    wrapped_key: bytes

    def encode(self) -> bytes:
        """Return type, key id and body, each with its length."""
        key_id = self.key_id.encode()
        lengths = struct.pack(">HB", HPKE_STANZA, len(key_id)), struct.pack(">H", len(self.wrapped_key))
        return lengths[0] + key_id + lengths[1] + self.wrapped_key


@dataclass(frozen=True)
class Header:
    """Everything in the small part before the ciphertext: the manifest of both parts."""

    prelude: Prelude
    big_name: str
    big_digest: bytes
    stanzas: tuple[Stanza, ...]
    mac: bytes
    commitment: bytes
    publisher: bytes
    signature: bytes

    def encode_authenticated(self) -> bytes:
        """Return what the header MAC covers: prelude, manifest and stanzas."""
        name = self.big_name.encode()
        return b"".join(
            (
                self.prelude.encode(),
                struct.pack(">H", len(name)) + name + _MANIFEST.pack(self.prelude.big_size, self.big_digest),
                struct.pack(">H", len(self.stanzas)),
                *(stanza.encode() for stanza in self.stanzas),
            )
        )

    def encode_signed(self) -> bytes:
        """Return all of the header but the signature."""
        return self.encode_authenticated() + _SEALS.pack(self.mac, self.commitment, self.publisher)

    def encode(self) -> bytes:
        """Return the whole header."""
        return self.encode_signed() + self.signature

    @property
    def small_size(self) -> int:
        """Bytes of the whole small part."""
        return len(self.encode()) + self.prelude.boundary


def read_header(file: BinaryIO) -> Header:
    """Read the header of a small part and leave the file at the first byte of the ciphertext.

    Unknown versions and algorithms are refused by name; nothing is allocated by a size the file claims.
    """
    reader = _Reader(file)
    _check_opening(reader.take(_OPENING.size))
    fields = _PRELUDE.unpack(reader.taken + reader.take(_PRELUDE.size - _OPENING.size))
    prelude = Prelude(*fields[6:])
    _check_prelude(prelude)
    big_name = _decode_name(reader.take(reader.number(">H", MAX_NAME, "length of the big part's name")))
    big_size, big_digest = _MANIFEST.unpack(reader.take(_MANIFEST.size))
    if big_size != prelude.big_size:
        raise MalformedError(
            f"the manifest says {big_size} bytes of big part, the prelude {prelude.big_size}"
        )
    count = reader.number(">H", MAX_STANZAS, "number of recipients")
    if count == 0:
        raise MalformedError("the model has no recipient")
    stanzas = tuple(_read_stanza(reader) for _ in range(count))
    if len({stanza.key_id for stanza in stanzas}) != count:
        raise MalformedError("two recipients have the same key id")
    mac, commitment, publisher = _SEALS.unpack(reader.take(_SEALS.size))
    signature = reader.take(SIGNATURE_SIZE)
    return Header(prelude, big_name, big_digest, stanzas, mac, commitment, publisher, signature)


class _Reader:
    """Reads exact counts of bytes and remembers the last ones."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.taken = b""

    def take(self, size: int) -> bytes:
        self.taken = self.file.read(size)
        if len(self.taken) != size:
            raise SizeError("the small part ends within its header", hint="fetch it again: it was cut")
        return self.taken

    def number(self, form: str, most: int, what: str) -> int:
        (value,) = struct.unpack(form, self.take(struct.calcsize(form)))
        if value > most:
            raise MalformedError(f"the {what} is {value}; at most {most} is allowed")
        return int(value)


def _check_opening(opening: bytes) -> None:
    magic, version, *algorithms = _OPENING.unpack(opening)
    if magic != SMALL_MAGIC:
        what = "a big part" if magic == BIG_MAGIC else "not a part of a sealed model"
        raise NotSealedError(f"the file given as the small part is {what}")
    if version != VERSION:
        raise UnsupportedError(
            f"format version {version} is not known here", hint="a newer reader may open it"
        )
    for (purpose, known), number in zip(ALGORITHMS.items(), algorithms, strict=True):
        if number not in known:
            names = ", ".join(f"{key} ({name})" for key, name in known.items())
            raise UnsupportedError(f"{purpose} algorithm {number} is not known here; known: {names}")


def _check_prelude(prelude: Prelude) -> None:
    size = prelude.chunk_size
    if not MIN_CHUNK_SIZE <= size <= MAX_CHUNK_SIZE or size & (size - 1):
        raise MalformedError(f"the chunk size {size} is not a power of two of 256 bytes to 16 MiB")
    if prelude.chunks > MAX_CHUNKS:
        raise MalformedError(f"{prelude.plaintext_size} bytes are too many for chunks of {size} bytes")
    if prelude.boundary > prelude.ciphertext_size - TAG_SIZE:
        raise MalformedError(
            f"boundary {prelude.boundary} leaves fewer than {TAG_SIZE} bytes to the big part"
        )


def _decode_name(raw: bytes) -> str:
    name = raw.decode("ascii", "replace")
    if not NAME.fullmatch(name):
        raise MalformedError(f"the big part's name {name!r} is not a plain file name")
    return name


def _read_stanza(reader: _Reader) -> Stanza:
    kind = reader.number(">H", 0xFFFF, "recipient type")
    if kind != HPKE_STANZA:
        raise UnsupportedError(f"recipient type {kind} is not known here; known: {HPKE_STANZA} (HPKE X25519)")
    key_id = reader.take(reader.number(">B", 63, "length of a key id")).decode("ascii", "replace")
    if not KEY_ID.fullmatch(key_id):
        raise MalformedError(f"the key id {key_id!r} is not a plain name")
    size = reader.number(">H", 0xFFFF, "length of a wrapped key")
    if size != WRAPPED_KEY_SIZE:
        raise MalformedError(f"the key wrapped for {key_id!r} has {size} bytes, not {WRAPPED_KEY_SIZE}")
    return Stanza(key_id, reader.take(size))
