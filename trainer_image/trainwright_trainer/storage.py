"""Where a checkpoint store keeps its files: a bucket, or a folder of a volume. Files are whole or absent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from trainwright.bucket import Bucket, BucketAddress, MissingError
from trainwright.contract import BucketStore, CheckpointSettings
from trainwright.delivery.credentials import find_ca, read_secret
from trainwright.delivery.endpoints import check_endpoint
from trainwright.errors import ConfigurationError, StorageError
from trainwright_trainer.files import copy_atomically, write_atomically
from trainwright_trainer.places import Places

ACCESS_KEY, ACCESS_SECRET = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"


class Storage(Protocol):
    """Files by key; a call raises `MissingError` for a file that is not there, else another `StepError`."""

    def put(self, source: Path, key: str) -> None:
        """Store a file."""

    def put_bytes(self, data: bytes, key: str) -> None:
        """Store a small file."""

    def get(self, key: str, target: Path) -> None:
        """Fetch a file."""

    def read(self, key: str) -> bytes:
        """Return a small file's content."""

    def list(self, prefix: str) -> list[str]:
        """Return all keys that start with a prefix, which ends with '/'."""

    def delete(self, key: str) -> None:
        """Remove a file; one that is not there is no error."""


def open_storage(settings: CheckpointSettings, places: Places) -> Storage:
    """Return the storage that the settings name, with the key pair or the volume of the places."""
    store = settings.store
    if store is not None and store.s3 is not None:
        return BucketStorage(store.s3, places.checkpoint_credentials)
    if store is None or store.folder is None:
        raise ConfigurationError("checkpoint.store names no place for checkpoints")
    if places.checkpoints is None:
        raise ConfigurationError(
            "checkpoint.store.folder needs a folder for checkpoints", hint="Name it: --checkpoints DIR."
        )
    root = (places.checkpoints / store.folder.path.lstrip("/")).resolve()
    if not root.is_relative_to(places.checkpoints.resolve()):
        raise ConfigurationError(f"checkpoint.store path {store.folder.path!r} leads out of its volume")
    return FolderStorage(root)


class CheckpointBucket(Bucket):
    """The bucket of a checkpoint store."""

    title = "the checkpoint store"


class BucketStorage:
    """Files in a bucket, below a prefix."""

    def __init__(self, settings: BucketStore, credentials: Path | None) -> None:
        self._prefix = f"{settings.prefix}/" if settings.prefix else ""
        self._bucket = CheckpointBucket(_read_address(settings, credentials))

    def put(self, source: Path, key: str) -> None:
        """Upload a file in pieces; it appears when the last one has arrived."""
        self._bucket.upload(source, self._prefix + key)

    def put_bytes(self, data: bytes, key: str) -> None:
        """Upload a small file."""
        self._bucket.upload_bytes(data, self._prefix + key)

    def get(self, key: str, target: Path) -> None:
        """Download a file."""
        self._bucket.download(self._prefix + key, target)

    def read(self, key: str) -> bytes:
        """Return a small file's content."""
        return self._bucket.read_bytes(self._prefix + key)

    def list(self, prefix: str) -> list[str]:
        """Return all keys that start with a prefix."""
        found = self._bucket.list_objects(self._prefix + prefix)
        return [item.key.removeprefix(self._prefix) for item in found]

    def delete(self, key: str) -> None:
        """Remove a file."""
        self._bucket.delete(self._prefix + key)


class FolderStorage:
    """Files in a folder, which is on another volume than the workspace."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, source: Path, key: str) -> None:
        """Copy a file; it appears as a whole."""
        with _explain("write", key):
            copy_atomically(source, self._root / key)

    def put_bytes(self, data: bytes, key: str) -> None:
        """Write a small file."""
        with _explain("write", key):
            write_atomically(self._root / key, data)

    def get(self, key: str, target: Path) -> None:
        """Copy a file."""
        with _explain("read", key):
            copy_atomically(self._root / key, target)

    def read(self, key: str) -> bytes:
        """Return a small file's content."""
        with _explain("read", key):
            return (self._root / key).read_bytes()

    def list(self, prefix: str) -> list[str]:
        """Return all keys below a folder."""
        with _explain("list", prefix):
            found = (self._root / prefix).rglob("*")
            return sorted(str(path.relative_to(self._root)) for path in found if path.is_file())

    def delete(self, key: str) -> None:
        """Remove a file, and the folders that it leaves empty."""
        with _explain("delete", key):
            path = self._root / key
            path.unlink(missing_ok=True)
            while path.parent != self._root and not any(path.parent.iterdir()):
                path = path.parent
                path.rmdir()


def _read_address(settings: BucketStore, credentials: Path | None) -> BucketAddress:
    """Read the key pair; all that is missing is told at once."""
    names = (ACCESS_KEY, ACCESS_SECRET)
    found = {name: "" if credentials is None else read_secret(credentials / name) for name in names}
    missing = [name for name in names if not found[name]]
    if missing:
        raise ConfigurationError(
            f"the credentials of the checkpoint store have no {' and no '.join(missing)}",
            hint="Name a Secret with both keys in checkpoint.store.s3.credentials.",
        )
    return BucketAddress(
        endpoint=check_endpoint(settings.endpoint, what="the checkpoint store"),
        bucket=settings.bucket,
        access_key=found[ACCESS_KEY],
        access_secret=found[ACCESS_SECRET],
        region=settings.region,
        ca=None if credentials is None else find_ca(credentials),
    )


@contextmanager
def _explain(action: str, key: str) -> Iterator[None]:
    """Turn the errors of the file system into ours."""
    try:
        yield
    except FileNotFoundError:
        raise MissingError(f"the checkpoint store has no {key}") from None
    except PermissionError as error:
        raise ConfigurationError(
            f"the checkpoint store can't {action} {key}: {error.strerror}",
            hint="Make its folder writable for the trainer's user.",
        ) from None
    except OSError as error:
        raise StorageError(
            f"the checkpoint store can't {action} {key}: {error.strerror}",
            hint="Look at the volume of the store.",
        ) from None
