"""Files on disk: whole under their name, or not there.

A file is written beside its final place under a name that begins with a dot, flushed to the disk and
renamed. Clients' names never begin with a dot, so whatever a crash leaves behind is out of their reach,
and the next start removes it.
"""

from __future__ import annotations

import fcntl
import hashlib
import heapq
import os
import re
import secrets
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BufferedReader
from pathlib import Path

from trainwright_resource_api.problems import bad_request

TEMPORARY_SUFFIX = ".upload"
LOCK_FILE = ".lock"
MOST_LISTED = 1000
MOST_DIGESTS = 4096

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,254}")

Identity = tuple[int, int, int, int, int]


class StorageBusyError(Exception):
    """Another server works on the same folder."""


class FileTooLargeError(Exception):
    """An upload went beyond the limit."""


@dataclass(frozen=True)
class StoredFile:
    """A file as a listing shows it."""

    name: str
    size: int
    modified: datetime


@dataclass(frozen=True)
class OpenedFile:
    """A file opened for reading: a replacement under its name does not change what is read here."""

    content: BufferedReader
    size: int
    digest: bytes


def check_name(kind: str, value: str) -> str:
    """Return a folder's or file's name that can't leave its folder, or refuse it."""
    if not _NAME.fullmatch(value):
        raise bad_request(
            f"{kind} {value[:80]!r} is not a valid name",
            "use 1 to 255 of A-Z a-z 0-9 . _ - and begin with a letter, a digit or _",
        )
    return value


class Upload:
    """A file being written; it appears under its name with `commit` and not before."""

    def __init__(self, folder: Path, name: str, most_bytes: int) -> None:
        self.name = name
        self.size = 0
        self._target = folder / name
        self._most_bytes = most_bytes
        self._digest = hashlib.sha256()
        self._temporary = folder / f".{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
        self._file = self._temporary.open("xb")

    @property
    def sha256(self) -> str:
        """The hex digest of what was written so far."""
        return self._digest.hexdigest()

    def write(self, piece: bytes) -> None:
        """Append a piece, unless the file would get too large."""
        if self.size + len(piece) > self._most_bytes:
            raise FileTooLargeError
        self._file.write(piece)
        self._digest.update(piece)
        self.size += len(piece)

    def commit(self) -> None:
        """Flush to the disk and rename; both survive a power cut once this returns."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self._target)
        _sync_folder(self._target.parent)

    def discard(self) -> None:
        """Remove what was written; without effect after `commit`."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)


class Storage:
    """Folders of files below one root."""

    def __init__(self, root: Path, most_bytes: int) -> None:
        self._root = root
        self._most_bytes = most_bytes
        self._digests: OrderedDict[Identity, bytes] = OrderedDict()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep every other server off the folder, and clear away what a crashed one left."""
        with (self._root / LOCK_FILE).open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StorageBusyError(f"another server works on {self._root}; stop it first") from None
            for leftover in self._root.glob(f"*/.*{TEMPORARY_SUFFIX}"):
                leftover.unlink(missing_ok=True)
            yield

    def begin(self, folder: str, name: str) -> Upload:
        """Start an upload; the folder is made when it is not there."""
        place = self._root / check_name("folder", folder)
        check_name("file name", name)
        if not place.is_dir():
            place.mkdir(exist_ok=True, mode=0o700)
            _sync_folder(self._root)
        return Upload(place, name, self._most_bytes)

    def open(self, folder: str, name: str) -> OpenedFile | None:
        """Open a file with its size and SHA-256, or return nothing when there is none."""
        place = self._root / check_name("folder", folder) / check_name("file name", name)
        try:
            content = place.open("rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        try:
            return OpenedFile(content, os.fstat(content.fileno()).st_size, self._digest(content))
        except BaseException:
            content.close()
            raise

    def list(self, folder: str, prefix: str, after: str) -> tuple[StoredFile, ...]:
        """Return the first files of a folder in the order of their names, at most MOST_LISTED."""
        place = self._root / check_name("folder", folder)
        return tuple(heapq.nsmallest(MOST_LISTED, _scan(place, prefix, after), key=lambda file: file.name))

    def delete(self, folder: str, name: str) -> bool:
        """Remove a file for good; says whether there was one."""
        place = self._root / check_name("folder", folder) / check_name("file name", name)
        try:
            place.unlink()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return False
        _sync_folder(place.parent)
        return True

    def _digest(self, content: BufferedReader) -> bytes:
        # Stored files are replaced, never changed: the same inode with the same times is the same content.
        status = os.fstat(content.fileno())
        identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        digest = self._digests.get(identity)
        if digest is None:
            digest = hashlib.file_digest(content, "sha256").digest()
            content.seek(0)
            self._digests[identity] = digest
            while len(self._digests) > MOST_DIGESTS:
                self._digests.popitem(last=False)
        return digest


def _scan(place: Path, prefix: str, after: str) -> Iterator[StoredFile]:
    try:
        entries = os.scandir(place)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            if entry.name.startswith(".") or not entry.name.startswith(prefix) or entry.name <= after:
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # deleted since the scan began
            modified = datetime.fromtimestamp(status.st_mtime, UTC)
            yield StoredFile(entry.name, status.st_size, modified)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
