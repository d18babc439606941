"""Both parts and a private key open a sealed model; anything less, or anything else, opens nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import sealing_reference as reference
import sealing_vectors
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from hypothesis import given, settings
from hypothesis import strategies as st
from pyhpke import OpenError

from trainwright import sealing
from trainwright.artifacts import SealedModel
from trainwright.contract import SmallPartSettings
from trainwright.sealing import (
    KeyTextError,
    PrivateKey,
    PublisherKey,
    Recipient,
    RecipientError,
    SealedModelError,
    SourceChangedError,
    VerifyKey,
    inspect,
    open_sealed,
    read_recipients,
    seal,
    write_public_key,
)
from trainwright.sealing.layout import TAG_SIZE
from trainwright.sealing.sealer import plan_prelude

READER, PUBLISHER = PrivateKey.generate("field"), PublisherKey.generate("ci")


def seal_bytes(folder: Path, plaintext: bytes, *, percent: int = 20, min_kib: int = 3) -> SealedModel:
    source = folder / "model.onnx"
    source.write_bytes(plaintext)
    small_part = SmallPartSettings(percent=percent, min_ki_b=min_kib)
    return seal(
        source,
        folder,
        name="parts.v1",
        recipients=[READER.recipient],
        publisher=PUBLISHER,
        small_part=small_part,
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


# --- what goes in comes out ---------------------------------------------------------------------------

MIB = 1 << 20


@pytest.mark.parametrize("size", [0, 1, 15, 3000, 4096, MIB - 1, MIB, MIB + 1, 3 * MIB, 3 * MIB + 17])
def test_a_model_of_any_size_comes_back(tmp_path: Path, size: int) -> None:
    plaintext = random.Random(size).randbytes(size)
    sealed = seal_bytes(tmp_path, plaintext)
    small, big = tmp_path / sealed.small_path, tmp_path / sealed.big_path
    assert small.stat().st_size == sealed.small.size
    assert big.stat().st_size == sealed.big.size > 24
    assert hashlib.sha256(small.read_bytes()).hexdigest() == sealed.small.digest[7:]
    opened = open_sealed(
        small, big, private_key=READER, publishers=[PUBLISHER.verify_key], destination=tmp_path / "opened"
    )
    assert (tmp_path / "opened").read_bytes() == plaintext
    assert opened.digest == sealed.plaintext_digest == "sha256:" + hashlib.sha256(plaintext).hexdigest()
    private = X25519PrivateKey.from_private_bytes(READER.raw)
    assert reference.read(small.read_bytes(), big.read_bytes(), "field", private) == plaintext


@settings(max_examples=200, deadline=None)
@given(size=st.integers(0, 1 << 40), percent=st.integers(0, 90), min_kib=st.integers(1, 1 << 20))
def test_the_small_part_has_its_size_and_the_big_part_is_never_empty(
    size: int, percent: int, min_kib: int
) -> None:
    prelude = plan_prelude(size, SmallPartSettings(percent=percent, min_ki_b=min_kib))
    wanted = max(min_kib * 1024, -(-prelude.ciphertext_size * percent // 100))
    left = prelude.ciphertext_size - prelude.boundary
    assert left >= TAG_SIZE
    assert prelude.boundary == wanted or left == TAG_SIZE


def test_each_recipient_opens_and_nobody_else(tmp_path: Path) -> None:
    first, second, stranger = (PrivateKey.generate(name) for name in ("first", "second", "stranger"))
    (tmp_path / "m").write_bytes(b"model")
    sealed = seal(
        tmp_path / "m",
        tmp_path,
        name="parts.v1",
        recipients=[first.recipient, second.recipient],
        publisher=PUBLISHER,
    )
    parts = ((tmp_path / sealed.small_path).read_bytes(), (tmp_path / sealed.big_path).read_bytes())
    assert inspect(tmp_path / sealed.small_path).recipients == ("first", "second")
    for key in (first, second):
        assert try_open(tmp_path, *parts, key, PUBLISHER.verify_key) == b"model"
    impostor = PrivateKey("first", stranger.raw)
    for key in (stranger, impostor):
        assert try_open(tmp_path, *parts, key, PUBLISHER.verify_key) == "RecipientError"


def test_sealing_twice_shares_nothing(tmp_path: Path) -> None:
    one, two = (seal_bytes(tmp_path, b"the same model" * 500) for _ in range(2))
    assert one.file_id != two.file_id
    assert one.big.digest != two.big.digest
    assert one.plaintext_digest == two.plaintext_digest


def test_no_digest_of_the_plaintext_is_in_the_clear(tmp_path: Path) -> None:
    sealed = seal_bytes(tmp_path, b"model" * 1000)
    digest = bytes.fromhex(sealed.plaintext_digest[7:])
    for path in (sealed.small_path, sealed.big_path):
        assert digest not in (tmp_path / path).read_bytes()


@pytest.mark.parametrize("name", ["../parts", "a/b", ".hidden", "parts\n"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "m").write_bytes(b"model")
    with pytest.raises(sealing.MalformedError, match="plain file name"):
        seal(tmp_path / "m", tmp_path / "out", name=name, recipients=[READER.recipient], publisher=PUBLISHER)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_model_that_changes_while_it_is_sealed_leaves_no_parts(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # its size is 0, and it gives more
    writer = subprocess.Popen(["sh", "-c", f"echo model > {pipe}"])
    try:
        with pytest.raises(SourceChangedError, match="longer"):
            seal(pipe, tmp_path / "out", name="m.v1", recipients=[READER.recipient], publisher=PUBLISHER)
    finally:
        writer.wait(timeout=10)
    assert list((tmp_path / "out").iterdir()) == []


def test_an_existing_model_is_replaced_only_by_a_whole_one(tmp_path: Path) -> None:
    sealed = seal_bytes(tmp_path, b"new" * 5000)
    target = tmp_path / "current.onnx"
    target.write_bytes(b"old")
    big = tmp_path / sealed.big_path
    content = big.read_bytes()
    keys = {"private_key": READER, "publishers": [PUBLISHER.verify_key], "destination": target}
    big.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(sealing.DigestError):
        open_sealed(tmp_path / sealed.small_path, big, **keys)
    assert target.read_bytes() == b"old"
    big.write_bytes(content)
    open_sealed(tmp_path / sealed.small_path, big, **keys)
    assert target.read_bytes() == b"new" * 5000


# --- all or nothing: shown with a reader that is not ours -----------------------------------------------


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


# --- every failure, on committed vectors -----------------------------------------------------------------

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


# --- every flipped bit, every cut ---------------------------------------------------------------------


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


# --- HPKE against others ------------------------------------------------------------------------------


def test_hpke_agrees_with_rfc_9180_a_1_1() -> None:
    """The RFC prints this suite with AES-128-GCM; AES-256-GCM is compared with a second implementation."""
    private = X25519PrivateKey.from_private_bytes(
        bytes.fromhex("4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8")
    )
    encapsulated = bytes.fromhex("37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431")
    sealed = bytes.fromhex(
        "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a"
    )
    from cryptography.hazmat.primitives import hpke

    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_128_GCM)
    decrypt = hpke.rust_openssl.hpke._decrypt_with_aad
    opened = decrypt(suite, encapsulated + sealed, private, b"Ode on a Grecian Urn", b"Count-0")
    assert opened == b"Beauty is truth, truth beauty"


@pytest.mark.parametrize("seed", range(10))
def test_hpke_agrees_with_a_second_implementation_both_ways(seed: int) -> None:
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    private, ephemeral = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    info, secret = random.Random(seed).randbytes(90), random.Random(seed).randbytes(32)
    assert reference.unwrap(suite.encrypt(secret, private.public_key(), info=info), info, private) == secret
    wrapped = reference.wrap(secret, info, private.public_key(), ephemeral)
    assert suite.decrypt(wrapped, private, info=info) == secret


# --- memory -------------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    program = """
import resource, sys
from pathlib import Path
from trainwright.sealing import PrivateKey, PublisherKey, open_sealed, seal
folder, size = Path(sys.argv[1]), int(sys.argv[2])
with (folder / "model").open("wb") as file:
    file.truncate(size)
key, publisher = PrivateKey.generate("field"), PublisherKey.generate("ci")
sealed = seal(folder / "model", folder, name="m.v1", recipients=[key.recipient], publisher=publisher)
open_sealed(folder / sealed.small_path, folder / sealed.big_path, private_key=key,
            publishers=[publisher.verify_key], destination=folder / "opened")
for path in folder.iterdir():
    path.unlink()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    small, large = (
        int(subprocess.check_output([sys.executable, "-c", program, tmp_path, str(size)], timeout=120))
        for size in (8 * MIB, 256 * MIB)
    )
    assert large - small < 8 * 1024, f"{small} KiB for 8 MiB, {large} KiB for 256 MiB"


# --- keys ---------------------------------------------------------------------------------------------


def test_keys_survive_their_text() -> None:
    for key in (READER, READER.recipient, PUBLISHER, PUBLISHER.verify_key):
        assert type(key).from_text(key.to_text()) == key
        assert key.to_text().count("\n") == 1


def test_no_representation_shows_a_secret() -> None:
    for key in (READER, PUBLISHER):
        shown = f"{key} {key!r} {[key]}"
        assert key.to_text().split(":")[2] not in shown
        assert key.raw.hex() not in shown
        assert repr(key.raw) not in shown


def test_private_files_are_for_their_owner_only_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "field.private"
    old = os.umask(0)
    try:
        READER.write(path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(KeyTextError, match="exists already"):
        PrivateKey.generate("field").write(path)
    assert PrivateKey.from_file(path) == READER


def test_a_key_in_the_wrong_place_is_named_without_being_shown() -> None:
    secret = READER.to_text()
    with pytest.raises(KeyTextError, match="is a recipient's private key, not a publisher's verify key") as e:
        VerifyKey.from_text(secret)
    assert secret.split(":")[2] not in str(e.value) + e.value.hint
    changed = secret.replace(secret[30], "A" if secret[30] != "A" else "B", 1)
    with pytest.raises(KeyTextError) as e:
        PrivateKey.from_text(changed)
    assert secret.split(":")[2] not in str(e.value) + e.value.hint


@given(position=st.integers(0, 60), letter=st.sampled_from("ABxyz019_-:"))
def test_a_damaged_key_is_noticed(position: int, letter: str) -> None:
    text = READER.recipient.to_text().strip()
    damaged = text[:position] + letter + text[position + 1 :]
    if damaged != text:
        with pytest.raises(KeyTextError):
            Recipient.from_text(damaged)


def test_recipients_are_read_as_a_mounted_secret_has_them(tmp_path: Path) -> None:
    other = PrivateKey.generate("spare")
    (tmp_path / "..data").mkdir()
    write_public_key(READER.recipient, tmp_path / "..data/field")
    (tmp_path / "field").symlink_to("..data/field")
    write_public_key(other.recipient, tmp_path / "spare")
    assert read_recipients(tmp_path) == (READER.recipient, other.recipient)


def test_all_that_is_wrong_with_recipients_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "broken").write_text("nonsense")
    (tmp_path / "secret").write_text(READER.to_text())
    write_public_key(READER.recipient, tmp_path / "renamed")
    with pytest.raises(KeyTextError, match=r"broken.*renamed holds the key 'field'.*private key") as raised:
        read_recipients(tmp_path)
    assert READER.to_text().split(":")[2] not in str(raised.value)
    with pytest.raises(KeyTextError, match="No such file"):
        read_recipients(tmp_path / "nowhere")


def test_a_recipient_that_is_no_point_of_the_curve_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"model")
    with pytest.raises(KeyTextError, match="'zero'"):
        seal(
            tmp_path / "m",
            tmp_path / "out",
            name="m.v1",
            recipients=[Recipient("zero", bytes(32))],
            publisher=PUBLISHER,
        )
    assert list((tmp_path / "out").iterdir()) == []


def test_two_recipients_of_one_id_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"model")
    twice = [READER.recipient, PrivateKey.generate("field").recipient]
    with pytest.raises(KeyTextError, match="different key ids"):
        seal(tmp_path / "m", tmp_path, name="m.v1", recipients=twice, publisher=PUBLISHER)


def test_a_stranger_is_told_whose_model_it_is(tmp_path: Path) -> None:
    sealed = seal_bytes(tmp_path, b"model")
    with pytest.raises(RecipientError, match="not sealed for the key 'me'; it is for 'field'"):
        open_sealed(
            tmp_path / sealed.small_path,
            tmp_path / sealed.big_path,
            private_key=PrivateKey.generate("me"),
            publishers=[PUBLISHER.verify_key],
            destination=tmp_path / "opened",
        )
