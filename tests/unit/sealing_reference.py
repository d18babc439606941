"""A second writer and reader of the sealed format, made from docs/sealed-format.md alone.

It shares no code with `trainwright.sealing`, has HPKE from another library, and holds everything in memory.
Its writer can lie: it seals what a publisher gone bad, or somebody who holds the data key, could seal.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pyhpke import AEADId, CipherSuite, KDFId, KEMId, KEMKey, KEMKeyPair

SMALL, BIG = b"\x89TWS\r\n\x1a\n", b"\x89TWB\r\n\x1a\n"
CONTEXT = "trainwright.dev sealed model v1 2026-11-21 binding of the big part"
SUITE = CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.AES256_GCM)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def derive(data_key: bytes, salt: bytes, label: str) -> bytes:
    """HKDF-SHA256 for 32 bytes, by hand."""
    extracted = hmac.digest(salt, data_key, "sha256")
    return hmac.digest(extracted, f"trainwright/v1/{label}".encode() + b"\x01", "sha256")


def bind(big: bytes) -> bytes:
    return blake3(big, derive_key_context=CONTEXT).digest()


def recipient_info(prelude: bytes, key_id: str, binding: bytes) -> bytes:
    return b"trainwright/v1/recipient" + sha256(prelude) + bytes([len(key_id)]) + key_id.encode() + binding


def wrap(data_key: bytes, info: bytes, public: X25519PublicKey, ephemeral: X25519PrivateKey) -> bytes:
    pair = KEMKeyPair(
        KEMKey.from_pyca_cryptography_key(ephemeral),
        KEMKey.from_pyca_cryptography_key(ephemeral.public_key()),
    )
    to = KEMKey.from_pyca_cryptography_key(public)
    encapsulated, context = SUITE.create_sender_context(to, info=info, eks=pair)
    return encapsulated + context.seal(data_key)


def unwrap(wrapped: bytes, info: bytes, private: X25519PrivateKey) -> bytes:
    """HPKE open; raises pyhpke.OpenError."""
    key = KEMKey.from_pyca_cryptography_key(private)
    return SUITE.create_recipient_context(wrapped[:32], key, info=info).open(wrapped[32:])


@dataclass
class Header:
    """The fields of a small part, by name."""

    prelude: bytes
    authenticated: bytes
    salt: bytes
    nonce_prefix: bytes
    chunk_size: int
    plaintext_size: int
    boundary: int
    stanzas: list[tuple[str, bytes]]
    mac: bytes
    commitment: bytes
    end: int


def parse(small: bytes) -> Header:
    salt, nonce_prefix = small[34:66], small[66:73]
    chunk_size, plaintext_size, boundary = struct.unpack(">IQQ", small[73:93])
    at = 93 + 2 + struct.unpack(">H", small[93:95])[0] + 8 + 32
    count, at = struct.unpack(">H", small[at : at + 2])[0], at + 2
    stanzas = []
    for _ in range(count):
        length = small[at + 2]
        key_id = small[at + 3 : at + 3 + length].decode()
        at += 3 + length + 2
        stanzas.append((key_id, small[at : at + 80]))
        at += 80
    return Header(
        small[:93], small[:at], salt, nonce_prefix, chunk_size, plaintext_size, boundary, stanzas,
        small[at : at + 32], small[at + 32 : at + 64], at + 96 + 64,
    )  # fmt: skip


def read(small: bytes, big: bytes, key_id: str, private: X25519PrivateKey) -> bytes:
    """Open both parts: a reader in a few lines, which trusts any publisher."""
    header = parse(small)
    info = recipient_info(header.prelude, key_id, bind(big))
    data_key = unwrap(dict(header.stanzas)[key_id], info, private)
    mac = hmac.digest(derive(data_key, header.salt, "header"), header.authenticated, "sha256")
    assert mac == header.mac
    plaintext = decrypt(header, data_key, small[header.end :] + big[24:])
    committed = sha256(header.prelude) + sha256(plaintext)
    commitment = hmac.digest(derive(data_key, header.salt, "commitment"), committed, "sha256")
    assert commitment == header.commitment
    return plaintext


def decrypt(header: Header, data_key: bytes, payload: bytes) -> bytes:
    """Open the chunks of a payload."""
    cipher, step = AESGCM(derive(data_key, header.salt, "payload")), header.chunk_size + 16
    chunks = [payload[start : start + step] for start in range(0, len(payload), step)]
    last = len(chunks) - 1
    return b"".join(
        cipher.decrypt(header.nonce_prefix + struct.pack(">IB", i, i == last), chunk, sha256(header.prelude))
        for i, chunk in enumerate(chunks)
    )


def same(value: Any) -> Any:
    return value


def fixed(label: str, size: int) -> bytes:
    """Bytes that look random and are the same in every run."""
    return hashlib.shake_256(label.encode()).digest(size)


@dataclass
class Writer:
    """Seals in memory from fixed values; every `edit_*` may change what is written after that point."""

    plaintext: bytes = fixed("plaintext", 1000)
    chunk_size: int = 256
    boundary: int = 300
    salt: bytes = fixed("salt", 32)
    file_id: bytes = fixed("file id", 16)
    data_key: bytes = fixed("data key", 32)
    recipients: dict[str, X25519PrivateKey] = field(
        default_factory=lambda: {"field": X25519PrivateKey.from_private_bytes(fixed("recipient", 32))}
    )
    publisher: Ed25519PrivateKey = field(
        default_factory=lambda: Ed25519PrivateKey.from_private_bytes(fixed("publisher", 32))
    )
    big_name: bytes = b"parts.v1.big"
    size_written: int | None = None
    edit_opening: Callable[[bytes], bytes] = same  # magic, version and algorithms, before anything is derived
    edit_chunks: Callable[[list[bytes]], list[bytes]] = same
    edit_big: Callable[[bytes], bytes] = same
    edit_stanzas: Callable[[bytes], bytes] = same  # after the header MAC was computed
    edit_commitment: Callable[[bytes], bytes] = same

    def prelude(self) -> bytes:
        size = len(self.plaintext) if self.size_written is None else self.size_written
        opening = self.edit_opening(SMALL + struct.pack(">5H", 1, 1, 1, 1, 1))
        tail = struct.pack(">IQQ", self.chunk_size, size, self.boundary)
        return opening + self.file_id + self.salt + fixed("nonce", 7) + tail

    def chunks(self, prelude: bytes) -> list[bytes]:
        cipher = AESGCM(derive(self.data_key, self.salt, "payload"))
        starts = range(0, max(1, len(self.plaintext)), self.chunk_size)
        last = len(starts) - 1
        return [
            cipher.encrypt(
                fixed("nonce", 7) + struct.pack(">IB", i, i == last),
                self.plaintext[start : start + self.chunk_size],
                sha256(prelude),
            )
            for i, start in enumerate(starts)
        ]

    def write(self) -> tuple[bytes, bytes]:
        """Return small and big part."""
        prelude = self.prelude()
        payload = b"".join(self.edit_chunks(self.chunks(prelude)))
        prefix = payload[: self.boundary]
        big = self.edit_big(BIG + self.file_id + payload[self.boundary :])
        manifest = struct.pack(">H", len(self.big_name)) + self.big_name + struct.pack(">Q", len(big))
        stanzas = struct.pack(">H", len(self.recipients)) + b"".join(
            self._stanza(prelude, key_id, private, bind(big)) for key_id, private in self.recipients.items()
        )
        before = prelude + manifest + sha256(big)
        mac = hmac.digest(derive(self.data_key, self.salt, "header"), before + stanzas, "sha256")
        committed = sha256(prelude) + sha256(self.plaintext)
        commitment = hmac.digest(derive(self.data_key, self.salt, "commitment"), committed, "sha256")
        signed = before + self.edit_stanzas(stanzas) + mac + self.edit_commitment(commitment)
        return self.sign(signed + self.publisher.public_key().public_bytes_raw(), prefix), big

    def sign(self, signed: bytes, prefix: bytes) -> bytes:
        """Return the small part for a header without signature."""
        message = b"trainwright/v1/signature" + sha256(signed) + sha256(prefix)
        return signed + self.publisher.sign(message) + prefix

    def _stanza(self, prelude: bytes, key_id: str, private: X25519PrivateKey, binding: bytes) -> bytes:
        ephemeral = X25519PrivateKey.from_private_bytes(fixed(f"ephemeral {key_id}", 32))
        info = recipient_info(prelude, key_id, binding)
        wrapped = wrap(self.data_key, info, private.public_key(), ephemeral)
        return struct.pack(">HB", 1, len(key_id)) + key_id.encode() + struct.pack(">H", 80) + wrapped
