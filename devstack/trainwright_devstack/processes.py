"""Programs of the devstack: each runs under a guard, and is known by its folder, not by our memory of it."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GUARD = Path(__file__).with_name("guard.py")


class ProcessError(RuntimeError):
    """A program could not be started or ended too early; the message ends with the last lines of its log."""


@dataclass(frozen=True)
class Exit:
    """How a program ended; `error` is set when it could not be started at all."""

    code: int
    started_at: str
    finished_at: str
    error: str = ""


@dataclass(frozen=True)
class Process:
    """A program under a guard. A second object on the same folder is the same program."""

    folder: Path

    @property
    def log(self) -> Path:
        """What the program wrote to its standard output and error."""
        return self.folder / "log"

    def start(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        owner: int | None = None,
        contain: bool = False,
    ) -> Process:
        """Start `command` and return when it runs; it is ended when process `owner` (we) is gone.

        With `contain` everything that it starts ends with it, as in a container, daemons included.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for stale in ("process.json", "exit.json"):
            (self.folder / stale).unlink(missing_ok=True)
        options = {
            "--folder": self.folder.resolve(),
            "--log": self.log.resolve(),
            "--directory": directory or Path.cwd(),
            "--owner": owner or os.getpid(),
        }
        words = [str(word) for option in options.items() for word in option] + ["--contain"] * contain
        subprocess.run(
            [sys.executable, "-I", "-S", str(GUARD), *words, "--", *command],
            env=None if environment is None else dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
            start_new_session=True,
        )
        return self

    def started_at(self) -> str | None:
        """When the program started, or None if it never did."""
        return self._record("process.json").get("startedAt")

    def pid(self) -> int | None:
        """The process id of the program, if it ever started."""
        return self._record("process.json").get("pid")

    def alive(self) -> bool:
        """Whether the program or its guard lives."""
        try:
            with (self.folder / "lock").open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def ended(self) -> Exit | None:
        """How the program ended, or None while it runs or when its guard was killed before it could tell."""
        record = self._record("exit.json")
        if not record:
            return None
        return Exit(
            code=record["exitCode"],
            started_at=record["startedAt"],
            finished_at=record["finishedAt"],
            error=record["error"],
        )

    def terminate(self) -> None:
        """Ask the program to end: SIGTERM to its first process only, as a container runtime does."""
        self._signal(os.kill, signal.SIGTERM)

    def kill(self) -> None:
        """End the program and everything in its process group at once."""
        self._signal(os.killpg, signal.SIGKILL)

    def stop(self, grace: float = 5.0) -> None:
        """End the program, politely first; when this returns nothing of it runs."""
        self.terminate()
        if not self.wait(grace):
            self.kill()
            self.wait(5.0)

    def wait(self, seconds: float) -> bool:
        """Wait until the program has ended, and tell whether it has."""
        deadline = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def require_alive(self, name: str) -> None:
        """Raise with the end of the log when the program has ended."""
        if self.alive():
            return
        ended = self.ended()
        why = "was killed" if ended is None else ended.error or f"ended with exit code {ended.code}"
        raise ProcessError(f"{name} {why}. The end of {self.log}:\n{tail(self.log, lines=15)}")

    def _record(self, name: str) -> dict[str, Any]:
        try:
            record: dict[str, Any] = json.loads((self.folder / name).read_text())
        except FileNotFoundError:
            return {}
        return record

    def _signal(self, send: Any, number: signal.Signals) -> None:
        pid = self.pid()
        if pid is not None and self.ended() is None and self.alive():
            with suppress(ProcessLookupError):
                send(pid, number)


def stop_below(folder: Path, *, grace: float = 5.0) -> int:
    """Stop every program whose folder lies below `folder`, and return how many still ran."""
    running = [
        process
        for record in sorted(folder.rglob("process.json"))
        if (process := Process(record.parent)).alive()
    ]
    for process in running:
        process.terminate()
    for process in running:
        process.stop(grace)
    return len(running)


def tail(path: Path, *, lines: int) -> str:
    """Return the last lines of a text file that may be large or absent."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 64 * 1024))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "".join(text.splitlines(keepends=True)[-lines:])


def free_port() -> int:
    """Return a free TCP port of 127.0.0.1, outside the range the kernel picks for outgoing connections."""
    for port in random.sample(range(20000, 32000), k=200):
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise ProcessError("no free TCP port between 20000 and 32000 on 127.0.0.1")
