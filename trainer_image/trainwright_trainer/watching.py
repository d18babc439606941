"""How a step says how far it is, and learns that it must stop: all a step knows of the world around it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from trainwright.contract import CheckpointReport


class Watcher(Protocol):
    """Is told about a step's progress; every call raises `PreemptedError` once a stop was asked for."""

    def advance(self, fraction: float) -> None:
        """A step is made, and the running stage has come this far, from 0 to 1."""

    def finish_epoch(self, epoch: int, epochs: int, metrics: Mapping[str, float]) -> None:
        """Epoch `epoch` of `epochs` (from 1) is trained, validated and saved."""

    def keep_checkpoint(self, checkpoint: CheckpointReport) -> None:
        """A checkpoint is verified: another attempt can go on from it."""

    def resume_from(self, epoch: int) -> None:
        """Training goes on after this many finished epochs of an earlier attempt."""
