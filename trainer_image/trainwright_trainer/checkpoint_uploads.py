"""Uploads of checkpoints, by a thread of their own: training goes on also when the store is away."""

from __future__ import annotations

import logging
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Thread
from types import TracebackType
from typing import Protocol, Self

from trainwright.errors import StepError
from trainwright_trainer.checkpoint_store import CheckpointStore
from trainwright_trainer.checkpoints import CheckpointManifest
from trainwright_trainer.failures import to_step_error

_LOG = logging.getLogger(__name__)
FAREWELL_SECONDS = 120.0
"""For so long the end of an execution waits for its newest checkpoint to arrive."""


class Listener(Protocol):
    """Is told, by the uploading thread, what became of a checkpoint."""

    def store_checkpoint(self, epoch: int | None, seconds: float, problem: str) -> None:
        """The store has the checkpoint of this epoch now, or has it not because of a problem."""


@dataclass(frozen=True)
class _Parcel:
    """One checkpoint on its way: hard links that stay when the workspace's own names are removed."""

    manifest: CheckpointManifest
    last: Path
    best: Path | None


class CheckpointUploads:
    """Uploads the newest checkpoint that was offered; as a context manager it waits for the last one."""

    def __init__(
        self,
        store: CheckpointStore,
        outbox: Path,
        listener: Listener,
        *,
        pauses: tuple[float, float] = (5, 60),
    ) -> None:
        self.store = store
        self._outbox = outbox
        self._listener = listener
        self._pauses = pauses
        self._changed = Condition()
        self._next: _Parcel | None = None
        self._busy = False
        self._closing = False
        self._count = 0
        self._thread = Thread(target=self._work, name="checkpoint-uploads", daemon=True)

    def __enter__(self) -> Self:
        shutil.rmtree(self._outbox, ignore_errors=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def offer(self, manifest: CheckpointManifest, last: Path, best: Path | None) -> None:
        """Take a checkpoint over; it replaces one that still waits."""
        self._count += 1
        folder = self._outbox / str(self._count)
        folder.mkdir(parents=True)
        parcel = _Parcel(manifest, _link(last, folder / "last.pt"), best and _link(best, folder / "best.pt"))
        with self._changed:
            replaced, self._next = self._next, parcel
            self._changed.notify_all()
        if replaced is not None:
            _remove(replaced)

    def finish(self, timeout: float = FAREWELL_SECONDS) -> bool:
        """Wait until everything that was offered is in the store; return whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self._next is None and not self._busy, timeout)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._next is not None or self._closing)
                if self._closing:
                    return
                parcel, self._next, self._busy = self._next, None, True
            if parcel is not None:
                self._deliver(parcel)
                _remove(parcel)
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _deliver(self, parcel: _Parcel) -> None:
        """Upload a checkpoint; try again until it is there, or a newer one waits."""
        pause, longest = self._pauses
        epoch = parcel.manifest.last.epoch
        failed = False
        while True:
            start = time.monotonic()
            try:
                self.store.save(parcel.manifest, parcel.last, parcel.best)
            except Exception as error:
                problem = to_step_error(error)
                if not failed:
                    _LOG.warning(
                        "the checkpoint of epoch %d is not in the store yet: %s", epoch, _words(problem)
                    )
                failed = True
                self._listener.store_checkpoint(None, 0, str(problem))
            else:
                _LOG.info("the checkpoint of epoch %d is in the store", epoch)
                self._listener.store_checkpoint(epoch, round(time.monotonic() - start, 3), "")
                return
            with self._changed:
                if self._changed.wait_for(lambda: self._next is not None or self._closing, pause):
                    return
            pause = min(2 * pause, longest)


def _words(error: StepError) -> str:
    return f"{error} ({error.hint})" if error.hint else str(error)


def _link(source: Path, target: Path) -> Path:
    """Give a file a second name; where the volume knows no links, copy it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target


def _remove(parcel: _Parcel) -> None:
    shutil.rmtree(parcel.last.parent, ignore_errors=True)
