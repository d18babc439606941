"""A sealed model comes back for its recipients, as it was, from both parts."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import sealing_reference as reference
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from trainwright import sealing
from trainwright.artifacts import SealedModel
from trainwright.contract import SmallPartSettings
from trainwright.sealing import (
    KeyTextError,
    PrivateKey,
    PublisherKey,
    Recipient,
    RecipientError,
    SourceChangedError,
    inspect,
    open_sealed,
    seal,
)
from trainwright.sealing.layout import TAG_SIZE
from trainwright.sealing.sealer import plan_prelude

MIB = 1 << 20
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
    small, big = tmp_path / sealed.small_path, tmp_path / sealed.big_path
    assert inspect(small).recipients == ("first", "second")
    trusted, target = [PUBLISHER.verify_key], tmp_path / "opened"
    for key in (first, second):
        open_sealed(small, big, private_key=key, publishers=trusted, destination=target)
        assert target.read_bytes() == b"model"
        target.unlink()
    impostor = PrivateKey("first", stranger.raw)
    for key in (stranger, impostor):
        with pytest.raises(RecipientError):
            open_sealed(small, big, private_key=key, publishers=trusted, destination=target)
        assert not target.exists()


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
