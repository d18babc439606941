"""Another attempt finds in the store what it may go on from: whole, reported, of this very training."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from threading import Event

import pytest

from trainwright.contract import (
    CheckpointReport,
    CheckpointSettings,
    CheckpointStoreSettings,
    FolderStore,
    RunIdentity,
)
from trainwright.errors import ConfigurationError, NetworkError
from trainwright_trainer.checkpoint_store import CheckpointStore, Fetched, Reported
from trainwright_trainer.checkpoint_uploads import CheckpointUploads
from trainwright_trainer.checkpoints import CheckpointManifest, CheckpointNote
from trainwright_trainer.files import digest_bytes
from trainwright_trainer.places import Places
from trainwright_trainer.storage import FolderStorage, open_storage

TRAINING, OTHER = digest_bytes(b"this training"), digest_bytes(b"another one")
RUN = RunIdentity(name="parts-1", namespace="ml", uid="0a1b")


class Node:
    """One execution: its scratch folder, and the store as it sees it."""

    def __init__(
        self, root: Path, attempt: int = 1, *, reported: Reported | None = None, keep: int = 2
    ) -> None:
        self.folder = root / f"node-{attempt}-{len(list(root.glob('node-*')))}"
        self.folder.mkdir(parents=True)
        self.storage = FolderStorage(root / "store")
        self.store = CheckpointStore(self.storage, RUN, attempt=attempt, keep=keep, reported=reported)
        self.store.open()

    def save(
        self, epoch: int, best: int | None = None, *, training: str = TRAINING, final: bool = False
    ) -> CheckpointManifest:
        manifest = manifest_of(epoch, best, training=training, final=final)
        self.store.save(manifest, self.write(epoch), None if best is None else self.write(best))
        return manifest

    def write(self, epoch: int) -> Path:
        path = self.folder / f"{epoch}.pt"
        path.write_bytes(weights_of(epoch))
        return path

    def fetch(self, *, after: int = 0, training: str = TRAINING, harmless: bool = True) -> Fetched | None:
        return self.store.fetch_newest(
            training, self.folder / "fetched", after=after, is_harmless=lambda path: harmless
        )


def weights_of(epoch: int) -> bytes:
    return f"weights of epoch {epoch}".encode()


def note_of(epoch: int, *, final: bool = False) -> CheckpointNote:
    return CheckpointNote(
        epoch=epoch,
        epochs=9,
        batch_size=8,
        metrics={},
        final=final,
        digest=digest_bytes(weights_of(epoch)),
        time=datetime(2026, 11, 21, tzinfo=UTC),
    )


def manifest_of(
    epoch: int, best: int | None = None, *, training: str = TRAINING, final: bool = False
) -> CheckpointManifest:
    return CheckpointManifest(
        training=training, last=note_of(epoch, final=final), best=None if best is None else note_of(best)
    )


def report_of(*manifests: CheckpointManifest) -> Reported:
    newest, *earlier = manifests
    return Reported(
        CheckpointReport(
            epoch=newest.last.epoch,
            time=newest.last.time,
            save_seconds=1,
            digest=newest.digest,
            earlier=tuple(each.digest for each in earlier),
        )
    )


def stored(root: Path, pattern: str) -> list[Path]:
    return sorted((root / "store").rglob(pattern))


def epoch_of(fetched: Fetched | None) -> int | None:
    return None if fetched is None else fetched.manifest.last.epoch


def test_the_next_attempt_fetches_the_newest_with_its_best_one(tmp_path: Path) -> None:
    first = Node(tmp_path)
    for epoch in (1, 2, 3):
        first.save(epoch, best=1)
    fetched = Node(tmp_path, 2).fetch()
    assert fetched is not None
    assert fetched.manifest == manifest_of(3, 1)
    assert fetched.last.read_bytes() == weights_of(3)
    assert fetched.best is not None
    assert fetched.best.read_bytes() == weights_of(1)


def test_what_the_workspace_has_is_not_fetched(tmp_path: Path) -> None:
    Node(tmp_path).save(3)
    second = Node(tmp_path, 2)
    assert second.fetch(after=3) is None
    assert epoch_of(second.fetch(after=2)) == 3


def test_only_so_many_are_kept_and_of_a_finished_training_the_last(tmp_path: Path) -> None:
    first = Node(tmp_path)
    for epoch in range(1, 6):
        first.save(epoch, best=2)
    assert len(stored(tmp_path, "*.json")) == 2
    assert len(stored(tmp_path, "*.pt")) == 3
    first.save(6, best=2, final=True)
    assert len(stored(tmp_path, "*.json")) == 1
    assert {path.read_bytes() for path in stored(tmp_path, "*.pt")} == {weights_of(6), weights_of(2)}


@pytest.mark.parametrize("damage", ["truncated", "missing", "manifest cut"])
def test_a_damaged_one_gives_way_to_the_one_before(tmp_path: Path, damage: str) -> None:
    first = Node(tmp_path)
    for epoch in (1, 2):
        first.save(epoch)
    name = digest_bytes(weights_of(2)).removeprefix("sha256:")
    (file,) = stored(tmp_path, f"{name}.pt")
    if damage == "truncated":
        file.write_bytes(weights_of(2)[:5])
    elif damage == "missing":
        file.unlink()
    else:
        (manifest,) = stored(tmp_path, "epoch-000002-*.json")
        manifest.write_bytes(manifest.read_bytes()[:20])
    assert epoch_of(Node(tmp_path, 2).fetch()) == 1


def test_only_what_was_reported_to_the_cluster_is_believed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = Node(tmp_path)
    reported = [first.save(epoch) for epoch in (1, 2)]
    place = f"ml/parts-1/0a1b/{TRAINING[7:23]}/0009-00000000"
    planted = f"{place}/epoch-000008-{'0' * 16}.json"
    first.storage.put_bytes(manifest_of(8).to_bytes(), planted)
    assert epoch_of(Node(tmp_path, 2, reported=report_of(*reversed(reported))).fetch()) == 2
    assert "never reported" in caplog.text
    assert epoch_of(Node(tmp_path, 2, reported=report_of(reported[0])).fetch()) == 1
    assert Node(tmp_path, 2, reported=Reported()).fetch() is None


def test_a_checkpoint_that_holds_more_than_weights_is_not_taken(tmp_path: Path) -> None:
    Node(tmp_path).save(1)
    assert Node(tmp_path, 2).fetch(harmless=False) is None


def test_checkpoints_of_another_dataset_are_not_taken_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Node(tmp_path).save(4, training=OTHER)
    second = Node(tmp_path, 2)
    assert second.fetch() is None
    assert "annotations have changed" in caplog.text
    second.save(1)
    assert {path.name[:12] for path in stored(tmp_path, "*.json")} == {"epoch-000001"}


def test_a_given_up_execution_that_goes_on_harms_nothing(tmp_path: Path) -> None:
    zombie = Node(tmp_path, 1)
    zombie.save(3)
    current = Node(tmp_path, 2)
    fetched = current.fetch()
    assert epoch_of(fetched) == 3
    manifests = [current.save(3), current.save(4)]
    for epoch in (4, 5, 6):
        zombie.save(epoch, best=5)
    found = Node(tmp_path, 3, reported=report_of(*reversed(manifests))).fetch()
    assert epoch_of(found) == 4


def test_an_execution_clears_what_it_found_once_its_own_is_there(tmp_path: Path) -> None:
    Node(tmp_path, 1).save(3)
    second = Node(tmp_path, 2)
    assert len(stored(tmp_path, "*.json")) == 1
    second.save(3)
    (manifest,) = stored(tmp_path, "*.json")
    assert manifest.parent.name.startswith("0002-")
    assert not stored(tmp_path, "0001-*")


def test_a_folder_that_may_not_be_written_is_found_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where the folder should be")
    with pytest.raises(Exception, match="checkpoint store"):
        Node(tmp_path)
    settings = CheckpointSettings(store=CheckpointStoreSettings(folder=FolderStore(path="../elsewhere")))
    with pytest.raises(ConfigurationError, match="leads out"):
        open_storage(settings, Places(tmp_path, checkpoints=tmp_path / "volume"))


class Moody(FolderStorage):
    """A storage that is away at first."""

    def __init__(self, root: Path, failures: int) -> None:
        super().__init__(root)
        self.failures = failures

    def put(self, source: Path, key: str) -> None:
        if self.failures:
            self.failures -= 1
            raise NetworkError("the checkpoint store does not answer")
        super().put(source, key)


class Listener:
    """Keeps what the uploads tell, and may be waited for."""

    def __init__(self) -> None:
        self.told: list[tuple[int | None, str]] = []
        self.arrived = Event()

    def store_checkpoint(self, epoch: int | None, seconds: float, problem: str) -> None:
        self.told.append((epoch, problem))
        if epoch is not None:
            self.arrived.set()


def test_an_upload_is_repeated_and_a_newer_one_takes_the_place_of_one_that_waits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node, listener = Node(tmp_path), Listener()
    store = CheckpointStore(Moody(tmp_path / "store", 2), RUN, attempt=1, keep=2, reported=None)
    with CheckpointUploads(store, tmp_path / "outbox", listener, pauses=(0.01, 0.02)) as uploads:
        for epoch in (1, 2, 3):
            path = node.write(epoch)
            uploads.offer(manifest_of(epoch), path, None)
            path.unlink()  # the workspace keeps a few only: what is on its way stays all the same
        assert uploads.finish(10)
    assert listener.told[0] == (None, "the checkpoint store does not answer")
    assert listener.told[-1] == (3, "")
    assert "not in the store yet" in caplog.text
    assert epoch_of(Node(tmp_path, 2).fetch()) == 3
    assert not list((tmp_path / "outbox").iterdir())


def test_the_end_waits_for_the_store_no_longer_than_it_was_told(tmp_path: Path) -> None:
    node, listener = Node(tmp_path), Listener()
    store = CheckpointStore(Moody(tmp_path / "store", 1_000_000), RUN, attempt=1, keep=2, reported=None)
    uploads = CheckpointUploads(store, tmp_path / "outbox", listener, pauses=(0.01, 0.02))
    with uploads:
        uploads.offer(manifest_of(1), node.write(1), None)
        assert not uploads.finish(0.1)
        store_of(uploads).failures = 0
    assert listener.told[-1] == (1, "")


def store_of(uploads: CheckpointUploads) -> Moody:
    storage = uploads.store._storage
    assert isinstance(storage, Moody)
    return storage
