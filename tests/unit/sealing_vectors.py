"""The test vectors of the sealed format, one for each way to fail; `python sealing_vectors.py` writes them.

Everything in them is fixed, so writing them again gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from sealing_reference import Writer, fixed

FOLDER = Path(__file__).parent.parent / "testdata/sealed-v1"
PRIVATE = fixed("recipient", 32)


def flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def put(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def reader(label: str) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(fixed(label, 32))


def signer(label: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(fixed(label, 32))


def swap_first(chunks: list[bytes]) -> list[bytes]:
    return [chunks[1], chunks[0], *chunks[2:]]


def build() -> dict[str, tuple[str, str, bytes, bytes]]:
    """Return name -> what it shows, the expected result, small part, big part."""
    good_small, good_big = Writer().write()
    other_small, other_big = Writer(file_id=fixed("other file", 16)).write()
    vectors = {
        "good": ("four chunks, the boundary within the second", "success", good_small, good_big),
        "other": ("the same model with another file id", "success", other_small, other_big),
        "parts_of_two_models": ("each part is good", "PartsMismatchError", good_small, other_big),
        "small_cut": ("the small part lacks its last byte", "SizeError", good_small[:-1], good_big),
        "small_longer": ("one byte after the small part", "SizeError", good_small + b"\0", good_big),
        "header_cut": ("the small part ends within its header", "SizeError", good_small[:200], good_big),
        "big_cut": ("the big part lacks its last byte", "SizeError", good_small, good_big[:-1]),
        "big_empty": ("the big part is an empty file", "SizeError", good_small, b""),
        "big_changed": ("one bit of the big part", "DigestError", good_small, flip(good_big, 8 * 30)),
        "big_not_sealed": ("another file as big part", "NotSealedError", good_small, b"x" * len(good_big)),
        "parts_exchanged": ("the parts are given the wrong way", "NotSealedError", good_big, good_small),
        "prefix_changed": ("one bit after the header", "SignatureError", flip(good_small, -1), good_big),
        "signature_changed": (
            "one bit of the signature",
            "SignatureError",
            flip(good_small, 8 * (len(good_small) - 300 - 1)),
            good_big,
        ),
    }
    lies = {
        "empty": ("an empty model: one empty chunk, all of it in the big part", "success",
                  Writer(plaintext=b"", boundary=0)),
        "one_whole_chunk": ("a model of exactly one chunk, all but the tag in the small part", "success",
                            Writer(plaintext=fixed("x", 256), boundary=256)),
        "two_recipients": ("sealed for two", "success",
                           Writer(recipients={"spare": reader("spare"),
                                              "field": reader("recipient")})),
        "version_unknown": ("version 2", "UnsupportedError",
                            Writer(edit_opening=lambda o: put(o, 8, b"\0\2"))),
        "cipher_unknown": ("payload encryption 9", "UnsupportedError",
                           Writer(edit_opening=lambda o: put(o, 10, b"\0\x09"))),
        "signature_unknown": ("signature algorithm 9", "UnsupportedError",
                              Writer(edit_opening=lambda o: put(o, 16, b"\0\x09"))),
        "recipient_unknown": ("recipient type 9", "UnsupportedError",
                              Writer(edit_stanzas=lambda s: put(s, 2, b"\0\x09"))),
        "chunk_size_odd": ("a chunk size that is no power of two", "MalformedError", Writer(chunk_size=300)),
        "big_name_with_separator": ("a name that leads elsewhere", "MalformedError",
                                    Writer(big_name=b"../parts.big")),
        "big_size_wrong": ("the manifest and the prelude disagree", "MalformedError",
                           Writer(edit_big=lambda big: big + b"\0")),
        "big_too_small": ("the boundary leaves 15 bytes to the big part", "MalformedError",
                          Writer(boundary=1000 + 4 * 16 - 15)),
        "publisher_unknown": ("signed by a stranger", "PublisherError",
                              Writer(publisher=signer("who"))),
        "recipient_other": ("sealed for others only", "RecipientError",
                            Writer(recipients={"spare": reader("recipient")})),
        "recipient_same_id": ("sealed for another key of the same id", "RecipientError",
                              Writer(recipients={"field": reader("s")})),
        "recipient_twice": ("two stanzas of one key id", "MalformedError",
                            Writer(edit_stanzas=lambda s: b"\0\2" + s[2:] + s[2:])),
        "stanza_changed": ("one bit of the wrapped key, signed again", "RecipientError",
                           Writer(edit_stanzas=lambda s: flip(s, 8 * 50))),
        "stanza_added": ("a second stanza, signed but unknown to the data key", "HeaderMacError",
                         Writer(edit_stanzas=lambda s: b"\0\2" + s[2:] + put(s[2:], 3, b"spare"))),
        "chunks_swapped": ("chunks 1 and 2 changed places", "ChunkError", Writer(edit_chunks=swap_first)),
        "chunk_doubled": ("chunk 1 once more instead of chunk 2", "ChunkError",
                          Writer(edit_chunks=lambda c: [c[0], c[0], *c[2:]])),
        "chunk_dropped": ("chunk 2 is missing, and the size says so", "ChunkError",
                          Writer(size_written=744, edit_chunks=lambda c: [c[0], *c[2:]])),
        "last_chunk_dropped": ("the payload ends after chunk 3, and the size says so", "ChunkError",
                               Writer(size_written=768, edit_chunks=lambda c: c[:3])),
        "chunk_changed": ("one bit of chunk 3", "ChunkError",
                          Writer(edit_chunks=lambda c: [*c[:2], flip(c[2], 5), c[3]])),
        "commitment_wrong": ("committed to something else", "CommitmentError",
                             Writer(edit_commitment=lambda c: flip(c, 0))),
    }  # fmt: skip
    return vectors | {name: (shows, expected, *lie.write()) for name, (shows, expected, lie) in lies.items()}


def to_json(shows: str, expected: str, small: bytes, big: bytes, plaintext: bytes | None) -> str:
    vector = {
        "shows": shows,
        "expect": expected,
        "keyId": "field",
        "privateKey": PRIVATE.hex(),
        "publisher": Writer().publisher.public_key().public_bytes_raw().hex(),
        "plaintextDigest": hashlib.sha256(plaintext).hexdigest() if plaintext is not None else None,
        "small": base64.b64encode(small).decode(),
        "big": base64.b64encode(big).decode(),
    }
    return json.dumps(vector, indent=1) + "\n"


PLAINTEXTS = {"empty": b"", "one_whole_chunk": fixed("x", 256)}


def render() -> dict[str, str]:
    """Return file name -> content of every vector."""
    return {
        f"{name}.json": to_json(
            *vector, PLAINTEXTS.get(name, Writer().plaintext) if vector[1] == "success" else None
        )
        for name, vector in build().items()
    }


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for file_name, content in render().items():
        (FOLDER / file_name).write_text(content)
