"""Attempts as forks of one process that has imported torch and Ultralytics: each starts at once.

It is a program: `python forked_trainer.py FOLDER` reads lines `PLAN WORKSPACE WEIGHTS LOG` and answers each
with the id of the process that carries the plan out, and later with that id and its exit status. `Nursery` is
its other end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

TINY = {
    "nc": 3,
    "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Conv", [16, 3, 2]]],
    "head": [[[2], 1, "Detect", ["nc"]]],
}
"""An architecture that learns nothing, quickly."""


def write_tiny_model(path: Path) -> None:
    """Write weights that a training may start from."""
    from ultralytics import YOLO
    from ultralytics.nn.tasks import DetectionModel

    model = YOLO("yolo11n.yaml")
    model.model = DetectionModel(TINY, nc=3, verbose=False)
    model.save(path)


@dataclass
class Attempt:
    """A process that carries a plan out."""

    nursery: Nursery
    pid: int

    def wait(self, seconds: float) -> int | None:
        """Return its exit status as of os.waitstatus_to_exitcode, or None while it runs."""
        return self.nursery.wait(self.pid, seconds)

    def kill(self) -> int:
        """End it as the kernel does; return its exit status, which is 0 if it had ended by itself."""
        os.kill(self.pid, signal.SIGKILL)
        status = self.nursery.wait(self.pid, 60)
        assert status is not None
        return status


class Nursery:
    """The process that attempts are forked from; use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.weights = folder / "weights"

    def __enter__(self) -> Self:
        self.weights.mkdir(parents=True)
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert self._read() == "ready"
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def start(self, plan: Path, workspace: Path, log: Path) -> Attempt:
        """Carry a plan out in a process of its own."""
        return Attempt(self, int(self._ask(f"start {plan} {workspace} {self.weights} {log}")))

    def wait(self, pid: int, seconds: float) -> int | None:
        """Return the exit status of a process, or None if it has not ended after so many seconds."""
        answer = self._ask(f"wait {pid} {seconds}")
        return None if answer == "runs" else int(answer)

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)
        return self._read()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


# --- the program -------------------------------------------------------------------------------------------


def serve(folder: Path) -> None:
    """Fork attempts until the input ends."""
    import warnings

    warnings.simplefilter("ignore")
    from trainwright_trainer import yolo

    yolo.prepare(folder / "ultralytics")
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401
    import onnxslim  # noqa: F401
    import tensorboardX  # noqa: F401
    import torch
    from ultralytics.models.yolo.detect import DetectionTrainer  # noqa: F401

    import trainwright_trainer.pipeline  # noqa: F401

    torch.set_num_threads(1)  # threads do not survive a fork
    write_tiny_model(folder / "weights" / "tiny.pt")
    print("ready", flush=True)
    for line in sys.stdin:
        match line.split():
            case ["start", *places]:
                print(_fork(*map(Path, places)), flush=True)
            case ["wait", pid, seconds]:
                print(_wait(int(pid), float(seconds)), flush=True)


def _fork(plan: Path, workspace: Path, weights: Path, log: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        with log.open("a") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
            status = _carry_out(plan, workspace, weights)
    finally:
        os._exit(status)


def _carry_out(plan: Path, workspace: Path, weights: Path) -> int:
    from trainwright_trainer.__main__ import load_plan
    from trainwright_trainer.observers import LogObserver
    from trainwright_trainer.pipeline import execute
    from trainwright_trainer.places import Places

    execute(load_plan(plan), Places(workspace, weights=weights), observer=LogObserver(sys.stdout))
    return 0


def _wait(pid: int, seconds: float) -> str:
    import time

    deadline = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return str(os.waitstatus_to_exitcode(status))
        if time.monotonic() >= deadline:
            return "runs"
        time.sleep(0.005)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
