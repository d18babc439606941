"""The STREAM construction over AES-256-GCM: chunks that can't be changed, moved, dropped or doubled."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from trainwright.sealing.derivation import PAYLOAD_LABEL, derive_key
from trainwright.sealing.errors import ChunkError, SizeError, SourceChangedError
from trainwright.sealing.layout import TAG_SIZE, Prelude


class ChunkCipher:
    """Encrypts and decrypts the chunks of one payload by their index."""

    def __init__(self, data_key: bytes, prelude: Prelude) -> None:
        self._cipher = AESGCM(derive_key(data_key, prelude, PAYLOAD_LABEL))
        self._prelude = prelude
        self._associated = prelude.digest

    def encrypt(self, index: int, chunk: bytes) -> bytes:
        """Return the chunk's ciphertext and tag."""
        return self._cipher.encrypt(self._nonce(index), chunk, self._associated)

    def decrypt(self, index: int, sealed: bytes) -> bytes:
        """Return the chunk's plaintext, or raise before a byte of it is released."""
        try:
            return self._cipher.decrypt(self._nonce(index), sealed, self._associated)
        except InvalidTag:
            raise ChunkError(
                f"chunk {index + 1} of {self._prelude.chunks} is not the one that was sealed",
                hint="a chunk was changed, moved, dropped or doubled: fetch both parts again",
            ) from None

    def _nonce(self, index: int) -> bytes:
        last = index == self._prelude.chunks - 1
        return self._prelude.nonce_prefix + struct.pack(">IB", index, last)


def read_plaintext(source: BinaryIO, prelude: Prelude) -> Iterator[bytes]:
    """Yield the chunks of a plaintext whose size was promised in the prelude."""
    left = prelude.plaintext_size
    for _ in range(prelude.chunks):
        chunk = source.read(min(prelude.chunk_size, left))
        if len(chunk) != min(prelude.chunk_size, left):
            raise SourceChangedError("the model became shorter while it was being sealed")
        left -= len(chunk)
        yield chunk
    if source.read(1):
        raise SourceChangedError("the model became longer while it was being sealed")


def read_ciphertext(small: BinaryIO, big: BinaryIO, prelude: Prelude) -> Iterator[bytes]:
    """Yield the sealed chunks of a payload that starts in the small part and goes on in the big one."""
    in_small, left = prelude.boundary, prelude.ciphertext_size
    for _ in range(prelude.chunks):
        size = min(prelude.chunk_size + TAG_SIZE, left)
        head = small.read(min(size, in_small))
        sealed = head + big.read(size - len(head))
        if len(sealed) != size:
            raise SizeError("a part became shorter while it was being read")
        in_small -= len(head)
        left -= size
        yield sealed
