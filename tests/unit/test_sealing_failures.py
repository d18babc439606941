"""Anything less than both parts and a private key, or anything else, opens nothing and writes nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import random
from pathlib import Path

import pytest
import sealing_reference as reference
import sealing_vectors
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pyhpke import OpenError

from trainwright.sealing import (
    PrivateKey,
    SealedModelError,
    VerifyKey,
    open_sealed,
)


def try_open(folder: Path, small: bytes, big: bytes, key: PrivateKey, publisher: VerifyKey) -> bytes | str:
    """Return the plaintext, or the error's name after checking that nothing at all was written."""
    for name, content in (("small", small), ("big", big)):
        (folder / name).write_bytes(content)
    target = folder / "opened" / "model.onnx"
    target.parent.mkdir(exist_ok=True)
    try:
        open_sealed(
            folder / "small", folder / "big", private_key=key, publishers=[publisher], destination=target
        )
    except SealedModelError as error:
        assert list(target.parent.iterdir()) == []
        return type(error).__name__
    plaintext = target.read_bytes()
    target.unlink()
    return plaintext


def test_neither_part_opens_anything_without_the_other_even_with_the_private_key() -> None:
    writer = reference.Writer(plaintext=reference.fixed("model", 5000), boundary=2000)
    small, big = writer.write()
    private = writer.recipients["field"]
    header = reference.parse(small)
    wrapped = dict(header.stanzas)["field"]
    assert reference.read(small, big, "field", private) == writer.plaintext

    # The small part and the private key: all that is missing is the big part. Nearly all of it is no help.
    guesses = [b"", big[:24], big[:-1], big[:24] + bytes(len(big) - 24), reference.sha256(big)]
    bindings = [reference.bind(guess) for guess in guesses]
    bindings += [bytes(32), reference.sha256(big), small[-32:]]
    for binding in bindings:
        with pytest.raises(OpenError):
            reference.unwrap(wrapped, reference.recipient_info(header.prelude, "field", binding), private)

    # The big part and the private key: the binding is known, the stanza is not, and nothing stands for it.
    known = reference.recipient_info(header.prelude, "field", reference.bind(big))
    for at in range(0, len(big) - 80, 16):
        with pytest.raises(OpenError):
            reference.unwrap(big[at : at + 80], known, private)

    # Both parts without the private key: any other key fails in HPKE too.
    with pytest.raises(OpenError):
        reference.unwrap(wrapped, known, X25519PrivateKey.generate())


def test_the_binding_is_stored_nowhere() -> None:
    small, big = reference.Writer().write()
    assert reference.bind(big) not in small + big


VECTORS = sorted(sealing_vectors.FOLDER.glob("*.json"))


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_vector(path: Path, tmp_path: Path) -> None:
    vector = json.loads(path.read_text())
    key = PrivateKey(vector["keyId"], bytes.fromhex(vector["privateKey"]))
    publisher = VerifyKey("ci", bytes.fromhex(vector["publisher"]))
    small, big = (base64.b64decode(vector[part]) for part in ("small", "big"))
    result = try_open(tmp_path, small, big, key, publisher)
    if vector["expect"] == "success":
        assert isinstance(result, bytes)
        assert hashlib.sha256(result).hexdigest() == vector["plaintextDigest"]
    else:
        assert result == vector["expect"]


def test_the_committed_vectors_are_those_the_reference_writes() -> None:
    assert {path.name: path.read_text() for path in VECTORS} == sealing_vectors.render()


def test_every_error_has_a_vector() -> None:
    shown = {json.loads(path.read_text())["expect"] for path in VECTORS}
    all_errors = {error.__name__ for error in SealedModelError.__subclasses__()}
    assert all_errors - shown == {"SourceChangedError", "KeyTextError"}


@pytest.fixture(scope="module")
def good() -> tuple[bytes, bytes, PrivateKey, VerifyKey]:
    small, big = reference.Writer().write()
    publisher = VerifyKey("ci", reference.Writer().publisher.public_key().public_bytes_raw())
    return small, big, PrivateKey("field", sealing_vectors.PRIVATE), publisher


def test_every_flipped_bit_is_an_error(
    good: tuple[bytes, bytes, PrivateKey, VerifyKey], tmp_path: Path
) -> None:
    small, big, *keys = good
    end = reference.parse(small).end
    sample = random.Random(1)
    in_header = range(8 * end)
    in_prefix = sample.sample(range(8 * end, 8 * len(small)), 100)
    for bit in (*in_header, *in_prefix):
        result = try_open(tmp_path, sealing_vectors.flip(small, bit), big, *keys)
        assert isinstance(result, str), f"bit {bit} of the small part was overlooked"
    for bit in (*range(8 * 24), *sample.sample(range(8 * 24, 8 * len(big)), 100)):
        result = try_open(tmp_path, small, sealing_vectors.flip(big, bit), *keys)
        assert result in ("NotSealedError", "PartsMismatchError", "DigestError"), bit


def test_every_cut_is_an_error(good: tuple[bytes, bytes, PrivateKey, VerifyKey], tmp_path: Path) -> None:
    small, big, *keys = good
    for size in range(len(small)):
        assert try_open(tmp_path, small[:size], big, *keys) == "SizeError"
    for size in range(len(big)):
        assert try_open(tmp_path, small, big[:size], *keys) == "SizeError"


def test_every_flipped_bit_that_is_signed_again_is_an_error(
    good: tuple[bytes, bytes, PrivateKey, VerifyKey], tmp_path: Path
) -> None:
    """Below the signature there is a second wall: whoever signs still can't alter what was sealed."""
    small, big, *keys = good
    end = reference.parse(small).end
    for bit in range(0, 8 * (end - 96), 3):
        changed = sealing_vectors.flip(small[: end - 64], bit)
        result = try_open(tmp_path, reference.Writer().sign(changed, small[end:]), big, *keys)
        assert isinstance(result, str), f"bit {bit}"
        assert result != "SignatureError"
