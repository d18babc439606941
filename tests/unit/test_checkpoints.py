"""A checkpoint that comes back is whole, whatever happened while it was written."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from trainwright_trainer import checkpoints
from trainwright_trainer.checkpoints import CheckpointFolder, CheckpointManifest, CheckpointNote
from trainwright_trainer.files import digest_bytes, digest_file


@pytest.fixture
def store(tmp_path: Path) -> CheckpointFolder:
    return open_store(tmp_path)


def open_store(folder: Path, training: str = "this") -> CheckpointFolder:
    return CheckpointFolder(folder / "checkpoints", digest_bytes(training.encode()), keep=2)


def save(store: CheckpointFolder, folder: Path, epoch: int, *, best: bool = False) -> None:
    source = folder / "last.pt"
    source.write_bytes(f"weights of epoch {epoch}".encode())
    note = CheckpointNote(
        epoch=epoch,
        epochs=9,
        batch_size=8,
        metrics={"mAP50": 0.5},
        final=epoch == 9,
        digest=digest_file(source),
        time=datetime(2026, 11, 21, 12, epoch, tzinfo=UTC),
    )
    (store.save_best if best else store.save)(source, note)


def epoch_of(store: CheckpointFolder) -> int | None:
    newest = store.newest()
    return None if newest is None else newest.note.epoch


def test_the_newest_is_found_and_old_ones_are_removed(store: CheckpointFolder, tmp_path: Path) -> None:
    assert store.newest() is None
    for epoch in (1, 2, 3, 9):
        save(store, tmp_path, epoch)
    newest = store.newest()
    assert newest is not None
    assert newest.path.read_bytes() == b"weights of epoch 9"
    assert newest.note.final
    assert len([path for path in tmp_path.glob("checkpoints/*/*") if path.is_file()]) == 4


def path_of_newest(store: CheckpointFolder) -> Path:
    newest = store.newest()
    assert newest is not None
    return newest.path


def test_a_damaged_newest_gives_way_to_the_one_before(store: CheckpointFolder, tmp_path: Path) -> None:
    save(store, tmp_path, 1)
    save(store, tmp_path, 2)
    path_of_newest(store).write_bytes(b"weights of ep")
    assert epoch_of(store) == 1


def test_a_copy_without_its_note_was_interrupted(store: CheckpointFolder, tmp_path: Path) -> None:
    save(store, tmp_path, 1)
    save(store, tmp_path, 2)
    newest, before = sorted(path_of_newest(store).parent.glob("epoch-*.json"), reverse=True)
    newest.unlink()
    assert epoch_of(store) == 1
    before.write_text("{")
    assert store.newest() is None


@pytest.mark.parametrize("interrupted", ["copy_atomically", "write_atomically"])
def test_the_former_best_one_stays_until_the_next_is_written(
    store: CheckpointFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupted: str
) -> None:
    save(store, tmp_path, 2, best=True)

    def be_killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, interrupted, be_killed)
        with pytest.raises(KeyboardInterrupt):
            save(store, tmp_path, 3, best=True)
    best = open_store(tmp_path).best()
    assert best is not None
    assert best.path.read_bytes() == b"weights of epoch 2"
    save(store, tmp_path, 3, best=True)
    assert [path.read_bytes() for path in tmp_path.glob("checkpoints/*/*.pt*")] == [b"weights of epoch 3"]


def test_checkpoints_of_another_training_are_not_taken_up_but_removed(
    store: CheckpointFolder, tmp_path: Path
) -> None:
    for epoch in (1, 9):
        save(store, tmp_path, epoch, best=True)
        save(store, tmp_path, epoch)
    assert epoch_of(open_store(tmp_path)) == 9
    other = open_store(tmp_path, "other")
    assert (other.newest(), other.best()) == (None, None)
    save(other, tmp_path, 1)
    assert epoch_of(other) == 1
    assert open_store(tmp_path).newest() is None


def test_a_manifest_names_the_last_and_the_best_one(store: CheckpointFolder, tmp_path: Path) -> None:
    save(store, tmp_path, 2, best=True)
    save(store, tmp_path, 3)
    newest = store.newest()
    assert newest is not None
    manifest = store.describe(newest)
    assert (manifest.last.epoch, manifest.best and manifest.best.epoch) == (3, 2)
    assert manifest.digest == digest_bytes(manifest.to_bytes())
    assert CheckpointManifest.model_validate_json(manifest.to_bytes()) == manifest


def test_the_best_one_outlives_the_others(store: CheckpointFolder, tmp_path: Path) -> None:
    save(store, tmp_path, 2, best=True)
    for epoch in range(2, 9):
        save(store, tmp_path, epoch)
    best = store.best()
    assert best is not None
    assert best.path.read_bytes() == b"weights of epoch 2"
    assert epoch_of(store) == 8
