"""SIGTERM: the execution is asked to end, and the process ends within its grace period whatever it is doing.

Nothing is lost by a hard end: all that an execution leaves is whole at every moment, as after a SIGKILL. It
comes only for what can't be asked in time: a library that is busy for long, a server that hangs.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Thread
from types import TracebackType
from typing import Self

from trainwright.contract import ExitCode, Outcome, RunReport
from trainwright.errors import PreemptedError
from trainwright_trainer.failures import describe_failure
from trainwright_trainer.observers import Moment

_RESERVE = 8.0  # seconds of the grace period for the last report, and for what the kubelet does meanwhile


class StopRequest:
    """Sets `stop` when SIGTERM arrives; use it as a context manager around the execution."""

    def __init__(self, grace_seconds: float, say_last_word: Callable[[], None]) -> None:
        self.stop = Event()
        self._patience = grace_seconds - min(_RESERVE, grace_seconds / 3)
        self._say_last_word = say_last_word
        self._over = Event()
        self._thread = Thread(target=self._watch, name="stop-request", daemon=True)

    def __enter__(self) -> Self:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        # Python runs a handler only between two of its own steps; the number is written at once, by C.
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda number, frame: None)
        os.register_at_fork(after_in_child=self._forget)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        signal.set_wakeup_fd(-1)
        self._reader.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._reader.close()
        self._writer.close()

    def _forget(self) -> None:
        """A loader process that is asked to end must end, and not stop its parent."""
        if not self._over.is_set():
            with suppress(ValueError):  # only a main thread may, and only there are signals handled
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _watch(self) -> None:
        while signal.SIGTERM not in (received := self._reader.recv(64)):
            if not received:
                return
        self.stop.set()
        if not self._over.wait(self._patience):
            self._say_last_word()
            os._exit(ExitCode.PREEMPTED)


class LastReport:
    """Keeps the newest report, to end it where the execution itself can't."""

    def __init__(self) -> None:
        self._newest: RunReport | None = None

    def observe(self, report: RunReport, moment: Moment) -> None:
        """Keep the report."""
        self._newest = report

    def preempted(self) -> RunReport | None:
        """Return the newest report as that of an execution which was stopped."""
        report = self._newest
        if report is None or report.outcome is not None:
            return report
        stage = report.progress.stage
        error = PreemptedError(
            f"stopped on request in stage {stage}, which could not be asked to end",
            hint="The next attempt goes on from the newest checkpoint.",
        )
        changes = {
            "outcome": Outcome.FAILED,
            "failure": describe_failure(error, stage, ""),
            "sequence": report.sequence + 1,
        }
        return report.model_copy(update=changes)
