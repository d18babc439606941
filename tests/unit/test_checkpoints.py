"""A checkpoint that comes back is whole, whatever happened while it was written."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainwright_trainer.checkpoints import CheckpointNote, CheckpointStore
from trainwright_trainer.files import digest_file


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", keep=2)


def save(store: CheckpointStore, folder: Path, epoch: int, *, best: bool = False) -> None:
    source = folder / "last.pt"
    source.write_bytes(f"weights of epoch {epoch}".encode())
    note = CheckpointNote(
        epoch=epoch,
        epochs=9,
        batch_size=8,
        metrics={"mAP50": 0.5},
        final=epoch == 9,
        digest=digest_file(source),
    )
    (store.save_best if best else store.save)(source, note)


def epoch_of(store: CheckpointStore) -> int | None:
    newest = store.newest()
    return newest and newest.note.epoch


def test_the_newest_is_found_and_old_ones_are_removed(store: CheckpointStore, tmp_path: Path) -> None:
    assert store.newest() is None
    for epoch in (1, 2, 3, 9):
        save(store, tmp_path, epoch)
    newest = store.newest()
    assert newest is not None
    assert newest.path.read_bytes() == b"weights of epoch 9"
    assert newest.note.final
    assert len(list((tmp_path / "checkpoints").iterdir())) == 4


def test_a_damaged_newest_gives_way_to_the_one_before(store: CheckpointStore, tmp_path: Path) -> None:
    save(store, tmp_path, 1)
    save(store, tmp_path, 2)
    (tmp_path / "checkpoints" / "epoch-000002.pt").write_bytes(b"weights of ep")
    assert epoch_of(store) == 1


def test_a_copy_without_its_note_was_interrupted(store: CheckpointStore, tmp_path: Path) -> None:
    save(store, tmp_path, 1)
    save(store, tmp_path, 2)
    (tmp_path / "checkpoints" / "epoch-000002.json").unlink()
    assert epoch_of(store) == 1
    (tmp_path / "checkpoints" / "epoch-000001.json").write_text("{")
    assert store.newest() is None


def test_the_best_one_outlives_the_others(store: CheckpointStore, tmp_path: Path) -> None:
    save(store, tmp_path, 2, best=True)
    for epoch in range(2, 9):
        save(store, tmp_path, epoch)
    best = store.best()
    assert best is not None
    assert best.path.read_bytes() == b"weights of epoch 2"
    assert epoch_of(store) == 8
