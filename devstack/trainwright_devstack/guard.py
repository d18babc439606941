"""The parent of one program: records how it ends, and ends it when its owner is gone.

Started as a script with the standard library only (`python -I -S guard.py ...`), so that it is small and
outlives whoever asked for the program: a node that is restarted finds its containers still running and
learns their exit codes. The folder it is given holds

    lock          locked as long as the guard or its program lives: a process id alone may be somebody else's
    process.json  the ids of both, and when the program started
    exit.json     how the program ended, or why it could not be started
    log           what the program wrote
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

OWNER_CHECK_SECONDS = 0.5
ORPHAN_GRACE_SECONDS = 5.0
PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    """Start the program in the background and return as soon as it runs or is known not to."""
    arguments = _parse()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    ready, started = os.pipe()
    if os.fork():
        os.close(started)
        os.read(ready, 1)
        os._exit(0)
    os.close(ready)
    os.setsid()
    try:
        _guard(arguments, started)
    finally:
        os._exit(0)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--directory", required=True)
    parser.add_argument("--owner", type=int, required=True)
    parser.add_argument("--contain", action="store_true", help="end all that the program started, too")
    parser.add_argument("command", nargs="+")
    return parser.parse_args()


def _guard(arguments: argparse.Namespace, started: int) -> None:
    lock = os.open(arguments.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    if arguments.contain:
        _adopt_orphans()
    log = os.open(arguments.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with contextlib.suppress(OSError):  # the guard must not hold the caller's terminal or pipes
        for descriptor in (1, 2):
            os.dup2(log, descriptor)
    started_at = _now()
    try:
        program = subprocess.Popen(
            arguments.command,
            cwd=arguments.directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=(lock,),
        )
    except OSError as error:
        _write_exit(arguments.folder, started_at, 128, f"{arguments.command[0]}: {error.strerror}")
        os.close(lock)  # before the caller goes on: it must not see a program that is not there alive
        os.write(started, b"x")
        return
    process: dict[str, Any] = {"guard": os.getpid(), "pid": program.pid, "startedAt": started_at}
    _write(arguments.folder / "process.json", process)
    os.write(started, b"x")
    os.close(started)
    signal.signal(signal.SIGTERM, lambda *_: _signal_group(program.pid, signal.SIGTERM))
    watch = threading.Thread(target=_watch_owner, args=(arguments.owner, program.pid))
    watch.daemon = True
    watch.start()
    code = program.wait()
    _signal_group(program.pid, signal.SIGKILL)
    if arguments.contain:
        _kill_orphans()
    _write_exit(arguments.folder, started_at, 128 - code if code < 0 else code)


def _adopt_orphans() -> None:
    """Become the parent of what the program leaves behind, as process 1 of a container is."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _watch_owner(owner: int, group: int) -> None:
    while _exists(owner):
        time.sleep(OWNER_CHECK_SECONDS)
    _signal_group(group, signal.SIGTERM)
    time.sleep(ORPHAN_GRACE_SECONDS)
    _signal_group(group, signal.SIGKILL)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _kill_orphans() -> None:
    """Kill what left the program's process group: a container is over when its first process is."""
    for _ in range(100):
        for child in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.01)
        except ChildProcessError:
            return


def _children() -> list[int]:
    try:
        return [int(pid) for pid in Path("/proc/self/task", str(os.getpid()), "children").read_text().split()]
    except OSError:
        return []


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _write_exit(folder: Path, started_at: str, code: int, error: str = "") -> None:
    record = {"exitCode": code, "error": error, "startedAt": started_at, "finishedAt": _now()}
    _write(folder / "exit.json", record)


def _write(path: Path, record: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(record))
    temporary.replace(path)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


if __name__ == "__main__":
    main()
