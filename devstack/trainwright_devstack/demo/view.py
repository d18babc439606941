"""What is shown while a run goes on: a line per stage on any output, and a bar on a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from trainwright.contract import Stage

Object = dict[str, Any]


class RunView:
    """Shows a run's status each time it is told a newer one."""

    def __init__(self, console: Console, progress: Progress) -> None:
        self._console = console
        self._progress = progress
        self._bar = progress.add_task("waiting for the operator", total=100)
        self._begun = time.monotonic()
        self._told: set[str] = set()

    def show(self, status: Object) -> None:
        """Show what is new."""
        trainer = status.get("trainer", {})
        reported = trainer.get("progress", {})
        self._tell_phase(status)
        finished = trainer.get("finishedStages", {})
        for stage in (stage for stage in Stage if stage in finished):
            self._tell(f"{stage} done in {finished[stage]:.1f} s")
        epoch = reported.get("epoch")
        if epoch and reported.get("stage") == "Training":
            value = trainer.get("metrics", {}).get("mAP50")
            metric = f"  mAP50 {value:.3f} (validation)" if value is not None else ""
            self._tell(f"Training epoch {epoch}/{reported.get('epochs')}{metric}")
        self._progress.update(self._bar, completed=reported.get("percent", 0), description=_describe(status))

    def _tell_phase(self, status: Object) -> None:
        phase = status.get("phase")
        if phase:
            self._tell(f"{phase}, attempt {status.get('attempt', 0)}")

    def _tell(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            self._console.print(
                f"{time.monotonic() - self._begun:6.1f} s  {line}", highlight=False, soft_wrap=True
            )


def _describe(status: Object) -> str:
    reported = status.get("trainer", {}).get("progress", {})
    stage = reported.get("stage") or status.get("phase", "waiting")
    epochs = f" {reported['epoch']}/{reported['epochs']}" if reported.get("epoch") else ""
    left = reported.get("estimatedRemainingSeconds")
    return f"{stage}{epochs}" + (f", about {left} s left" if left else "")


@contextmanager
def open_view(console: Console) -> Iterator[RunView]:
    """Open a view for as long as the block lasts."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield RunView(console, progress)
