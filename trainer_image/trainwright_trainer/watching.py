"""How a step says how far it is, and learns that it must stop: all a step knows of the world around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock
from typing import Protocol

from trainwright.contract import CheckpointReport


class Watcher(Protocol):
    """Is told about a step's progress; every call raises `PreemptedError` once a stop was asked for."""

    def check(self) -> None:
        """Nothing is done that could be told of."""

    def advance(self, fraction: float) -> None:
        """A step is made, and the running stage has come this far, from 0 to 1."""

    def train_batch(self, epoch: int, epochs: int, batch: int, batches: int) -> None:
        """Batch `batch` of `batches` of epoch `epoch` of `epochs`, all from 1, is trained."""

    def linger(self) -> None:
        """A step is made that brings the stage no further; what is nearly done is not ended by a stop."""

    def use_batch(self, batch_size: int) -> None:
        """Training goes on with a batch of this size, which is not the plan's."""

    def finish_epoch(self, epoch: int, epochs: int, metrics: Mapping[str, float]) -> None:
        """Epoch `epoch` of `epochs` (from 1) is trained, validated and saved."""

    def keep_checkpoint(self, checkpoint: CheckpointReport) -> None:
        """A checkpoint is verified: another attempt can go on from it."""

    def store_checkpoint(self, epoch: int | None, seconds: float, problem: str) -> None:
        """The store has the checkpoint of this epoch now, or has it not because of a problem."""

    def resume_from(self, epoch: int) -> None:
        """Training goes on after this many finished epochs of an earlier attempt."""


def count_bytes(watcher: Watcher, total: int) -> Callable[[int], None]:
    """Return what tells the watcher of each piece of so many bytes in all; threads may share it."""
    done, counting = 0, Lock()

    def count(size: int) -> None:
        nonlocal done
        with counting:
            done += size
        watcher.advance(min(done / max(total, 1), 1.0))

    return count
