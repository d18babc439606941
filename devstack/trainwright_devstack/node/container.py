"""One container of a pod: its processes, one after the other, each with a folder of its own.

What is true of a container is read from these folders every time, so a node that was restarted knows as
much as one that was not.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainwright_devstack.node.probes import Probes
from trainwright_devstack.processes import Exit, Process, tail

Object = dict[str, Any]

MESSAGE_BYTES = 4096
FALLBACK_BYTES, FALLBACK_LINES = 2048, 80
MOST_BACKOFF_SECONDS = 60.0
STABLE_SECONDS = 600.0
KEPT_RUNS = 2


@dataclass(frozen=True)
class Terminated:
    """How one start of a container ended, as the pod's status tells it."""

    exit_code: int
    reason: str
    message: str
    started_at: str
    finished_at: str
    container_id: str


@dataclass
class Container:
    """A container below `folder`; the first start waits for nothing, a later one for the back-off."""

    spec: Object
    folder: Path
    identity: str
    owner: int
    backoff_seconds: float = 1.0
    _probes: Probes | None = None
    _probed_run: int = -1
    _termination_asked: int = -1
    _kill_at: float = field(default=0.0)

    @property
    def name(self) -> str:
        """The container's name in its pod."""
        return str(self.spec["name"])

    @property
    def run(self) -> int:
        """The number of the newest start, from 0; -1 before the first."""
        return max((int(folder.name) for folder in self.folder.glob("[0-9]*")), default=-1)

    @property
    def running(self) -> bool:
        """Whether the newest start still runs."""
        return self.run >= 0 and self.process().alive()

    def process(self, run: int | None = None) -> Process:
        """Return the process of a start; the newest if none is named."""
        return Process(self.folder / str(self.run if run is None else run))

    def container_id(self, run: int) -> str:
        """Return the id the status tells for a start."""
        return f"process://{self.identity}/{self.name}/{run}"

    def message_file(self, run: int) -> Path:
        """Return the local file of the container's termination message."""
        return self.folder / str(run) / "termination-message"

    def start(self, words: Sequence[str], environment: Mapping[str, str], directory: Path) -> None:
        """Start the container once more; a command that does not exist counts as a start that failed."""
        run = self.run + 1
        process = Process(self.folder / str(run))
        process.folder.mkdir(parents=True, mode=0o700)
        self.message_file(run).touch(mode=0o600)
        process.start(words, environment=environment, directory=directory, owner=self.owner, contain=True)
        shutil.rmtree(self.folder / str(run - KEPT_RUNS), ignore_errors=True)

    def terminated(self, run: int | None = None) -> Terminated | None:
        """Return how a start ended, or None while it runs or before it began."""
        number = self.run if run is None else run
        if number < 0 or self.process(number).alive():
            return None
        ended = self.process(number).ended()
        if ended is None:
            return self._lost(number)
        reason = "StartError" if ended.error else "Completed" if ended.code == 0 else "Error"
        return Terminated(
            exit_code=ended.code,
            reason=reason,
            message=ended.error or self._message(number, ended),
            started_at=ended.started_at,
            finished_at=ended.finished_at,
            container_id=self.container_id(number),
        )

    def may_restart(self) -> bool:
        """Whether the back-off since the last end is over."""
        return time.time() >= self._restart_time()

    def backoff_left(self) -> float:
        """Return the seconds until the container may be started again."""
        return max(0.0, self._restart_time() - time.time())

    def probe(self) -> Probes:
        """Ask what is due of the newest start, and return its probes."""
        if self._probes is None or self._probed_run != self.run:
            self._probes, self._probed_run = Probes(self.spec), self.run
        if self.running:
            self._probes.check()
        return self._probes

    def terminate(self, grace: float) -> None:
        """Ask the running start to end, and kill it once `grace` seconds have passed; returns at once."""
        if not self.running:
            return
        if self._termination_asked != self.run:
            self._termination_asked, self._kill_at = self.run, time.monotonic() + grace
            self.process().terminate()
        # A later call may shorten the grace period, never lengthen it.
        self._kill_at = min(self._kill_at, time.monotonic() + grace)
        if time.monotonic() >= self._kill_at:
            self.process().kill()

    def kill(self) -> None:
        """End the running start at once."""
        if self.run >= 0:
            self.process().stop(grace=0.0)

    def _restart_time(self) -> float:
        ended = self.terminated()
        if ended is None:
            return 0.0
        started, finished = _seconds(ended.started_at), _seconds(ended.finished_at)
        doublings = 0 if finished - started > STABLE_SECONDS else self.run
        return finished + float(min(self.backoff_seconds * 2**doublings, MOST_BACKOFF_SECONDS))

    def _lost(self, run: int) -> Terminated:
        """Return the end of a start whose guard was killed: nobody saw its exit code."""
        log = self.process(run).log
        seen = log.stat().st_mtime if log.exists() else self.folder.stat().st_mtime
        last_sign = datetime.fromtimestamp(seen, UTC).isoformat()
        return Terminated(
            exit_code=137,
            reason="ContainerStatusUnknown",
            message="The process is gone, and its guard was killed before it could tell the exit code.",
            started_at=self.process(run).started_at() or last_sign,
            finished_at=last_sign,
            container_id=self.container_id(run),
        )

    def _message(self, run: int, ended: Exit) -> str:
        written = self.message_file(run)
        message = written.read_bytes()[-MESSAGE_BYTES:] if written.exists() else b""
        if message:
            return message.decode(errors="replace")
        if ended.code != 0 and self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            text = tail(self.process(run).log, lines=FALLBACK_LINES)
            return text.encode()[-FALLBACK_BYTES:].decode(errors="ignore")
        return ""


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()
