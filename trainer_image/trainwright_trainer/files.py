"""Files that are whole or absent: digests, and writes that survive a crash."""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path


def digest_bytes(data: bytes) -> str:
    """Return `sha256:` and the hex digest."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """Return `sha256:` and the hex digest of a file, read in pieces."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes, *, mode: int | None = None) -> None:
    """Write a file so that after a crash it has either its former or its new content."""
    partial = _partial_of(path)
    try:
        partial.write_bytes(data)
        if mode is not None:
            partial.chmod(mode)
        _commit(partial, path)
    except OSError:
        with suppress(OSError):
            partial.unlink()  # on a full disk it would take what room is left
        raise


def copy_atomically(source: Path, target: Path) -> None:
    """Copy a file so that the target is never seen half written."""
    partial = _partial_of(target)
    shutil.copyfile(source, partial)
    _commit(partial, target)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where that can't be; a target that exists is an error."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # another volume, or one without hard links
        with source.open("rb") as original, target.open("xb") as copy:
            shutil.copyfileobj(original, copy)


def commit_folder(partial: Path, final: Path) -> None:
    """Put a finished folder in the place of whatever was there before."""
    if final.exists():
        shutil.rmtree(final)
    partial.rename(final)
    _sync(final.parent)


def _partial_of(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(path.name + ".partial")


def _commit(partial: Path, path: Path) -> None:
    _sync(partial)
    partial.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
