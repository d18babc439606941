"""One execution at a time in a workspace: a second one would write over the first one's checkpoints."""

from __future__ import annotations

import errno
import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainwright.errors import StorageError


class InUseError(StorageError):
    """Another process has the lock."""


_LOG = logging.getLogger(__name__)
_TAKEN = frozenset({errno.EACCES, errno.EAGAIN})


@contextmanager
def lock_workspace(workspace: Path) -> Iterator[None]:
    """Keep other processes out of the workspace; raise `StorageError` when one is in it already.

    The lock ends with this process however that ends: unlike `flock`'s it is not handed on to forked loader
    processes, which outlive a killed trainer by seconds. A volume that knows no locks is used without.
    """
    with (workspace / ".lock").open("w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _TAKEN:
                raise InUseError(
                    f"the workspace {workspace} is in use by another process",
                    hint="Wait until it has ended or stop it, or use another workspace.",
                ) from None
            _LOG.warning("the workspace can't be locked: %s", error.strerror)
        yield
