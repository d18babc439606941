"""The keys' texts and files, and HPKE compared with others."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path

import pytest
import sealing_reference as reference
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from hypothesis import given
from hypothesis import strategies as st

from trainwright.sealing import (
    KeyTextError,
    PrivateKey,
    PublisherKey,
    Recipient,
    VerifyKey,
    read_recipients,
    write_public_key,
)

READER, PUBLISHER = PrivateKey.generate("field"), PublisherKey.generate("ci")


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
