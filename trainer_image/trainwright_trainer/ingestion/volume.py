"""What a failure of the volume means for whoever runs the consumer."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainwright.errors import StorageError

_HINTS = {
    errno.ENOSPC: "Make room on the volume.",
    errno.EDQUOT: "Raise the quota of the volume.",
    errno.EFBIG: "Raise the limit of a file's size (ulimit -f).",
    errno.EROFS: "Mount the volume of the data trees writable for this consumer.",
    errno.EXDEV: "Put the three data trees on one volume: files are moved between them.",
    errno.EACCES: "Let the consumer's user write to the data trees.",
    errno.EPERM: "Let the consumer's user write to the data trees.",
}


def unusable(error: OSError, where: str | Path) -> StorageError:
    """Return the error to end with; the file that it happened to is named, if that is known."""
    hint = _HINTS.get(error.errno or 0, "See that the volume is there and works.")
    return StorageError(
        f"{error.filename or where} can't be used: {error.strerror or error}",
        hint=f"{hint} Nothing is lost: the messages are applied again.",
    )


@contextmanager
def using(where: str | Path) -> Iterator[None]:
    """Explain what goes wrong with files below a place."""
    try:
        yield
    except OSError as error:
        raise unusable(error, where) from error
