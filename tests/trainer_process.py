"""The trainer of a pod seen from outside, as its machine can: frozen, driven to a point, killed."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Object = dict[str, Any]

SLICE_SECONDS = 0.004
PATIENCE_SECONDS = 900.0
"""How long anything may take on a machine that has other work, too; pytest's own limit may be shorter."""


@dataclass(frozen=True)
class TrainerProcess:
    """The first process of a trainer's container, and the file its standard output goes to."""

    pid: int
    log: Path

    def freeze(self) -> None:
        """Stop it where it is."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it without a chance to clean up, as the kernel does when memory is short."""
        os.kill(self.pid, signal.SIGKILL)

    def alive(self) -> bool:
        """Whether it runs, or is frozen."""
        return Path(f"/proc/{self.pid}").exists()

    def drive(self, reached: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Let it run in slices of milliseconds until something holds, and leave it frozen there.

        So a point that lasts no longer than a few of them is not missed, however busy the machine is.
        """
        deadline = time.monotonic() + seconds
        self.freeze()
        while not reached():
            assert time.monotonic() < deadline, f"{what}; the end of its log:\n{self._tail()}"
            self.thaw()
            time.sleep(SLICE_SECONDS)
            self.freeze()

    def drive_into(self, stage: str) -> None:
        """Let it run until it is in a stage, and leave it frozen there."""
        self.drive(lambda: stage_of(read_events(self.log)) == stage, f"the trainer comes to {stage}")

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]


def read_events(log: Path) -> list[Object]:
    """Return what a trainer's log tells of stages and epochs; a container runtime writes before each line."""
    lines = log.read_text(errors="replace").split("\n")[:-1]  # the last one may not be whole yet
    texts = [line[line.index("{") :] for line in lines if '"event": ' in line]
    return [json.loads(text) for text in texts]


def stage_of(events: list[Object]) -> str:
    """Return the stage that a trainer is in: the one it told last."""
    return str(events[-1]["stage"]) if events else ""
