"""Files that hold secrets: written whole with mode 600, refused when others may read them."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

Value = TypeVar("Value")


class SecretFileError(Exception):
    """A file with secrets is missing, open to others, or not what it should be; never quotes its content."""


def write_secret(path: Path, content: bytes) -> None:
    """Replace the file atomically; nobody but its owner may read it at any moment."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp: mode 600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_secret(path: Path, *, group_readable: bool = False) -> bytes:
    """Return the content of a file that only its owner (or, if allowed, its group) can read."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            forbidden = 0o037 if group_readable else 0o077
            if mode & forbidden:
                raise SecretFileError(
                    f"{path} has mode {mode:o}: others may read or change its secrets; run: chmod 600 {path}"
                )
            return file.read()
    except OSError as error:
        raise SecretFileError(f"{path} can't be read: {error.strerror}") from error


class WatchedSecret(Generic[Value]):
    """A secret file as a value: read at once, and again whenever the file has changed."""

    def __init__(self, path: Path, parse: Callable[[bytes], Value], *, group_readable: bool = False) -> None:
        self._path = path
        self._parse = parse
        self._group_readable = group_readable
        self._signature: tuple[int, int, int] | None = None
        self._value = self._read()

    def get(self) -> Value:
        """Return the value of the file as it is now; raise SecretFileError when it became unusable."""
        if self._signature != self._sign():
            self._value = self._read()
        return self._value

    def _read(self) -> Value:
        signature = self._sign()
        value = self._parse(read_secret(self._path, group_readable=self._group_readable))
        self._signature = signature
        return value

    def _sign(self) -> tuple[int, int, int]:
        try:
            status = self._path.stat()
        except OSError as error:
            raise SecretFileError(f"{self._path} can't be read: {error.strerror}") from error
        return status.st_ino, status.st_mtime_ns, status.st_size
