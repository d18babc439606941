"""Sealing: one pass over the model, two files, and the proof that they open."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from trainwright.artifacts import SealedModel
from trainwright.contract import PartReport, SmallPartSettings
from trainwright.sealing.derivation import (
    build_signed_message,
    compute_commitment,
    compute_header_mac,
    start_binding,
    wrap_key,
)
from trainwright.sealing.errors import KeyTextError, MalformedError, SourceChangedError
from trainwright.sealing.files import hash_file, sync_folder
from trainwright.sealing.keys import PublisherKey, Recipient, VerifyKey
from trainwright.sealing.layout import (
    BIG_MAGIC,
    DEFAULT_CHUNK_SIZE,
    MAX_STANZAS,
    NAME,
    SIGNATURE_SIZE,
    TAG_SIZE,
    WRAPPED_KEY_SIZE,
    Header,
    Prelude,
    Stanza,
)
from trainwright.sealing.opener import check_parts, decrypt_parts
from trainwright.sealing.stream import ChunkCipher, read_plaintext

OnBytes = Callable[[int], None]


def seal(  # noqa: PLR0913 - one call, named arguments only
    source: Path,
    folder: Path,
    *,
    name: str,
    recipients: Sequence[Recipient],
    publisher: PublisherKey,
    small_part: SmallPartSettings = SmallPartSettings(),  # noqa: B008 - immutable
    on_bytes: OnBytes | None = None,
) -> SealedModel:
    """Seal a model into `folder` as `{name}.{file id}.small` and `.big`; return once the parts are proven.

    Memory stays the same whatever the model's size. No private key is needed: the proof that the parts
    open uses the data key, which is forgotten afterwards. Paths in the result are relative to `folder`.
    `on_bytes` is called with the size of each piece that was written or proven; raising there ends it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data_key = secrets.token_bytes(32)
    with source.open("rb") as file:
        prelude = plan_prelude(os.fstat(file.fileno()).st_size, small_part)
        draft = _draft_header(prelude, f"{name}.{prelude.file_id.hex()}.big", recipients, publisher)
        small, big = folder / f"{name}.{prelude.file_id.hex()}.small", folder / draft.big_name
        try:
            streamed = _write_payload(file, small, big, draft, data_key, on_bytes)
            header = _finish_header(draft, streamed, data_key, recipients, publisher)
            _write_header(small, header)
            sync_folder(folder)
            _prove(small, big, header, data_key, streamed.plaintext_digest, on_bytes)
        except BaseException:
            small.unlink(missing_ok=True)
            big.unlink(missing_ok=True)
            raise
    return SealedModel(
        file_id=prelude.file_id.hex(),
        plaintext_digest="sha256:" + streamed.plaintext_digest.hex(),
        plaintext_size=prelude.plaintext_size,
        small_path=small.name,
        big_path=big.name,
        small=PartReport(name=small.name, size=header.small_size, digest="sha256:" + hash_file(small).hex()),
        big=PartReport(name=big.name, size=prelude.big_size, digest="sha256:" + header.big_digest.hex()),
    )


def plan_prelude(
    plaintext_size: int, small_part: SmallPartSettings, *, chunk_size: int = DEFAULT_CHUNK_SIZE
) -> Prelude:
    """Choose fresh random values and the boundary: max(minKiB, percent of the whole).

    The big part keeps at least the last tag: 16 bytes that nobody can guess, however small the model is.
    """
    prelude = Prelude(
        file_id=secrets.token_bytes(16),
        salt=secrets.token_bytes(32),
        nonce_prefix=secrets.token_bytes(7),
        chunk_size=chunk_size,
        plaintext_size=plaintext_size,
        boundary=0,
    )
    whole = prelude.ciphertext_size
    wanted = max(small_part.min_ki_b * 1024, -(-whole * small_part.percent // 100))
    return replace(prelude, boundary=min(wanted, whole - TAG_SIZE))


@dataclass(frozen=True)
class _Streamed:
    """What one pass over the plaintext found out."""

    plaintext_digest: bytes
    prefix_digest: bytes
    big_digest: bytes
    binding: bytes


def _draft_header(
    prelude: Prelude, big_name: str, recipients: Sequence[Recipient], publisher: PublisherKey
) -> Header:
    """Return a header of the final length whose secrets are still zeros."""
    if not NAME.fullmatch(big_name):
        raise MalformedError(
            f"{big_name!r} is not a plain file name of at most 255 characters",
            hint="use letters, digits, '.', '_' and '-' in the model's name and version",
        )
    key_ids = [recipient.key_id for recipient in recipients]
    if not 1 <= len(key_ids) <= MAX_STANZAS or len(set(key_ids)) != len(key_ids):
        raise KeyTextError(
            f"a model is sealed for 1 to {MAX_STANZAS} recipients of different key ids, not for {key_ids}"
        )
    return Header(
        prelude=prelude,
        big_name=big_name,
        big_digest=bytes(32),
        stanzas=tuple(Stanza(key_id, bytes(WRAPPED_KEY_SIZE)) for key_id in key_ids),
        mac=bytes(32),
        commitment=bytes(32),
        publisher=publisher.verify_key.raw,
        signature=bytes(SIGNATURE_SIZE),
    )


def _write_payload(  # noqa: PLR0913, PLR0917 - both files, and what goes into them
    source: BinaryIO, small: Path, big: Path, draft: Header, data_key: bytes, on_bytes: OnBytes | None
) -> _Streamed:
    """Encrypt the source into both parts, leaving room for the header, and hash all of it on the way."""
    prelude, cipher = draft.prelude, ChunkCipher(data_key, draft.prelude)
    plaintext, prefix, whole_big, binding = (
        hashlib.sha256(),
        hashlib.sha256(),
        hashlib.sha256(),
        start_binding(),
    )
    with small.open("xb") as small_file, big.open("xb") as big_file:
        small_file.write(draft.encode())
        opening = BIG_MAGIC + prelude.file_id
        big_file.write(opening)
        whole_big.update(opening)
        binding.update(opening)
        left = prelude.boundary
        for index, chunk in enumerate(read_plaintext(source, prelude)):
            plaintext.update(chunk)
            sealed = memoryview(cipher.encrypt(index, chunk))
            head, tail = sealed[:left], sealed[left:]
            left -= len(head)
            small_file.write(head)
            prefix.update(head)
            big_file.write(tail)
            whole_big.update(tail)
            binding.update(tail)
            if on_bytes is not None:
                on_bytes(len(chunk))
        for file in (small_file, big_file):
            file.flush()
            os.fsync(file.fileno())
    return _Streamed(plaintext.digest(), prefix.digest(), whole_big.digest(), binding.digest())


def _finish_header(
    draft: Header,
    streamed: _Streamed,
    data_key: bytes,
    recipients: Sequence[Recipient],
    publisher: PublisherKey,
) -> Header:
    """Fill in what only the streamed payload could tell; the length stays."""
    header = replace(
        draft,
        big_digest=streamed.big_digest,
        stanzas=tuple(wrap_key(data_key, draft.prelude, streamed.binding, to) for to in recipients),
        commitment=compute_commitment(data_key, draft.prelude, streamed.plaintext_digest),
    )
    header = replace(header, mac=compute_header_mac(data_key, header))
    return replace(header, signature=publisher.sign(build_signed_message(header, streamed.prefix_digest)))


def _write_header(small: Path, header: Header) -> None:
    with small.open("r+b") as file:
        file.write(header.encode())
        file.flush()
        os.fsync(file.fileno())


def _prove(  # noqa: PLR0913, PLR0917 - both files, and what they must open to
    small: Path,
    big: Path,
    header: Header,
    data_key: bytes,
    plaintext_digest: bytes,
    on_bytes: OnBytes | None,
) -> None:
    """Open the parts from disk as a reader would, with the data key instead of a private key."""
    publisher = VerifyKey("self", header.publisher)
    with small.open("rb") as small_file, big.open("rb") as big_file:
        parts = check_parts(small_file, big_file, [publisher])
        opened = hashlib.sha256()
        for chunk in decrypt_parts(parts, data_key):
            opened.update(chunk)
            if on_bytes is not None:
                on_bytes(len(chunk))
    if opened.digest() != plaintext_digest:
        raise SourceChangedError("the sealed parts open to something else than what was sealed")
