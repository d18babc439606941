"""Opening: everything is checked before the data key is unwrapped, and nothing partial is ever left."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from trainwright.sealing.derivation import (
    build_signed_message,
    compute_commitment,
    compute_header_mac,
    start_binding,
    unwrap_key,
)
from trainwright.sealing.errors import (
    CommitmentError,
    DigestError,
    HeaderMacError,
    NotSealedError,
    PartsMismatchError,
    PublisherError,
    SignatureError,
    SizeError,
)
from trainwright.sealing.files import read_pieces, write_whole
from trainwright.sealing.keys import PrivateKey, VerifyKey, fingerprint
from trainwright.sealing.layout import ALGORITHMS, BIG_MAGIC, BIG_START, VERSION, Header, read_header
from trainwright.sealing.stream import ChunkCipher, read_ciphertext


@dataclass(frozen=True)
class Opened:
    """A model that was opened: where it is and what it is."""

    path: Path
    digest: str
    size: int
    publisher: str
    big_name: str


@dataclass(frozen=True)
class Inspection:
    """What the header of a small part says to anybody; only the signature check needs a pinned key."""

    format: str
    version: int
    algorithms: dict[str, str]
    file_id: str
    plaintext_size: int
    chunk_size: int
    boundary: int
    recipients: tuple[str, ...]
    publisher: str
    big_name: str
    big_size: int
    big_digest: str
    small_size: int


@dataclass(frozen=True)
class CheckedParts:
    """Two open files that are what a trusted publisher signed, and the value that binds them."""

    header: Header
    binding: bytes
    publisher: VerifyKey
    small: BinaryIO
    big: BinaryIO
    header_size: int


def open_sealed(
    small: Path, big: Path, *, private_key: PrivateKey, publishers: Sequence[VerifyKey], destination: Path
) -> Opened:
    """Open a sealed model to the file `destination`, which appears complete and verified or not at all.

    The temporary file lies in the same folder. Signature, sizes and digests are checked first, and each
    chunk before a byte of it is written.
    """
    digest, size = hashlib.sha256(), 0
    with small.open("rb") as small_file, big.open("rb") as big_file:
        parts = check_parts(small_file, big_file, publishers)
        data_key = unwrap_key(parts.header, parts.binding, private_key)
        with write_whole(destination) as file:
            for chunk in decrypt_parts(parts, data_key):
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
    return Opened(
        path=destination,
        digest="sha256:" + digest.hexdigest(),
        size=size,
        publisher=parts.publisher.key_id,
        big_name=parts.header.big_name,
    )


def check_parts(small: BinaryIO, big: BinaryIO, publishers: Sequence[VerifyKey]) -> CheckedParts:
    """Check all that needs no secret: sizes, the publisher's signature, and every byte of the big part."""
    header = read_header(small)
    header_size = small.tell()
    _check_size("small", small, header.small_size)
    publisher = _check_signature(small, header, publishers)
    _check_big_opening(big, header)
    _check_size("big", big, header.prelude.big_size)
    return CheckedParts(header, _check_big(big, header), publisher, small, big, header_size)


def decrypt_parts(parts: CheckedParts, data_key: bytes) -> Iterator[bytes]:
    """Yield the plaintext chunk by chunk; the iterator ends only if header MAC and commitment hold."""
    header, prelude = parts.header, parts.header.prelude
    if not hmac.compare_digest(compute_header_mac(data_key, header), header.mac):
        raise HeaderMacError(
            "the header is not the one its keys were wrapped for",
            hint="recipients or the manifest were changed after sealing: fetch the model again",
        )
    parts.small.seek(parts.header_size)
    parts.big.seek(BIG_START)
    cipher, plaintext = ChunkCipher(data_key, prelude), hashlib.sha256()
    for index, sealed in enumerate(read_ciphertext(parts.small, parts.big, prelude)):
        chunk = cipher.decrypt(index, sealed)
        plaintext.update(chunk)
        yield chunk
    commitment = compute_commitment(data_key, prelude, plaintext.digest())
    if not hmac.compare_digest(commitment, header.commitment):
        raise CommitmentError("the model is not the one that was committed to when it was sealed")


def inspect(small: Path) -> Inspection:
    """Return what a small part says of itself, without any key; nothing of it is verified."""
    with small.open("rb") as file:
        header = read_header(file)
    prelude = header.prelude
    return Inspection(
        format=f"trainwright-v{VERSION}",
        version=VERSION,
        algorithms={purpose: known[1] for purpose, known in ALGORITHMS.items()},
        file_id=prelude.file_id.hex(),
        plaintext_size=prelude.plaintext_size,
        chunk_size=prelude.chunk_size,
        boundary=prelude.boundary,
        recipients=tuple(stanza.key_id for stanza in header.stanzas),
        publisher=fingerprint(header.publisher),
        big_name=header.big_name,
        big_size=prelude.big_size,
        big_digest="sha256:" + header.big_digest.hex(),
        small_size=header.small_size,
    )


def _check_size(which: str, file: BinaryIO, expected: int) -> None:
    actual = os.fstat(file.fileno()).st_size
    if actual != expected:
        raise SizeError(
            f"the {which} part has {actual} bytes, its header says {expected}",
            hint=f"the {which} part was cut or added to: fetch it again",
        )


def _check_signature(small: BinaryIO, header: Header, publishers: Sequence[VerifyKey]) -> VerifyKey:
    pinned = [key for key in publishers if key.raw == header.publisher]
    if not pinned:
        names = ", ".join(f"{key.key_id} ({key.fingerprint})" for key in publishers) or "nobody"
        raise PublisherError(
            f"the publisher {fingerprint(header.publisher)} is not trusted here; trusted: {names}",
            hint="give the verify key of that publisher, if you know it to be theirs",
        )
    prefix = hashlib.sha256()
    for piece in read_pieces(small):
        prefix.update(piece)
    if not pinned[0].verifies(header.signature, build_signed_message(header, prefix.digest())):
        raise SignatureError(
            f"the signature of {pinned[0].key_id!r} does not fit the small part",
            hint="the small part was changed after it was signed: fetch it again",
        )
    return pinned[0]


def _check_big_opening(big: BinaryIO, header: Header) -> None:
    opening = big.read(BIG_START)
    if len(opening) == BIG_START and not opening.startswith(BIG_MAGIC):
        raise NotSealedError("the file given as the big part is not a big part of a sealed model")
    if len(opening) == BIG_START and opening[len(BIG_MAGIC) :] != header.prelude.file_id:
        raise PartsMismatchError(
            "the two parts belong to different models", hint=f"the small part goes with {header.big_name}"
        )


def _check_big(big: BinaryIO, header: Header) -> bytes:
    """Compare every byte of the big part by digest, and return the value that binds it to the stanzas."""
    big.seek(0)
    digest, binding = hashlib.sha256(), start_binding()
    for piece in read_pieces(big):
        digest.update(piece)
        binding.update(piece)
    if digest.digest() != header.big_digest:
        raise DigestError(
            "the big part is not the one that was signed", hint="it was changed on its way: fetch it again"
        )
    return binding.digest()
