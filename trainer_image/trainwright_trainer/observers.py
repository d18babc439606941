"""Who is told how an execution is going: a person at a terminal, a log, or (in `reporting`) the cluster."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import Enum, auto
from types import TracebackType
from typing import IO, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from trainwright.contract import Outcome, RunReport

_LOG = logging.getLogger(__name__)


class Moment(Enum):
    """Why an observer is told: what just happened."""

    STAGE = auto()
    EPOCH = auto()
    STEP = auto()
    END = auto()


class Observer(Protocol):
    """Is told of every change of the report, on the executing thread: it must be quick."""

    def observe(self, report: RunReport, moment: Moment) -> None:
        """Take note of the report as it is now."""


class Observers:
    """Several observers as one; one that fails is logged once and left out, as nothing may depend on it."""

    def __init__(self, observers: Sequence[Observer] = ()) -> None:
        self._observers = list(observers)

    def observe(self, report: RunReport, moment: Moment) -> None:
        for observer in list(self._observers):
            try:
                observer.observe(report, moment)
            except Exception:
                self._observers.remove(observer)
                _LOG.exception("%s failed and is not told of anything more", type(observer).__name__)


class TerminalObserver:
    """A progress bar with stage, epoch and metrics; use it as a context manager."""

    def __init__(self, console: Console | None = None) -> None:
        self._progress = Progress(
            TextColumn("[bold]{task.description:<12}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        self._task = self._progress.add_task("Starting", total=100, note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def observe(self, report: RunReport, moment: Moment) -> None:
        if self._task is None:
            return
        description = str(report.outcome or report.progress.stage)
        self._progress.update(
            self._task, completed=report.progress.percent, description=description, note=_summarise(report)
        )


class LogObserver:
    """One JSON object per line for every stage and epoch, and the end."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def observe(self, report: RunReport, moment: Moment) -> None:
        if moment is Moment.STEP:
            return
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "level": "error" if report.outcome is Outcome.FAILED else "info",
            "event": moment.name.lower(),
            **report.progress.model_dump(mode="json", by_alias=True, exclude_none=True),
            "metrics": report.metrics,
        }
        if report.outcome is not None:
            line["outcome"] = report.outcome
        if report.failure is not None:
            line["failure"] = report.failure.model_dump(mode="json", by_alias=True, exclude={"log_tail"})
        print(json.dumps(line), file=self._stream, flush=True)


def _summarise(report: RunReport) -> str:
    progress = report.progress
    parts = []
    if progress.epoch is not None:
        parts.append(f"epoch {progress.epoch}/{progress.epochs}")
    if progress.batch is not None:
        parts.append(f"batch {progress.batch}/{progress.batches}")
    if "mAP50" in report.metrics:
        parts.append(f"mAP50 {report.metrics['mAP50']:.3f}")
    if progress.estimated_remaining_seconds is not None and report.outcome is None:
        parts.append(f"about {progress.estimated_remaining_seconds} s left")
    return ", ".join(parts)
