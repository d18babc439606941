"""The trainer's program on one workspace, with a plan that trains for seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainwright.contract import RunPlan, RunReport, Stage

IMAGE_SIZE = 64

# Python imports a module of this name when it starts: it writes down every attempt to reach a network.
NETWORK_WATCH = """
import sys
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        with open({path!r}, "a") as file:
            print(event, arguments[-1], file=file)
sys.addaudithook(watch)
"""


def tiny_plan(
    base_model: str = "yolo11n.yaml", epochs: int = 1, image_size: int = IMAGE_SIZE, **fields: Any
) -> RunPlan:
    """Return a plan that trains for seconds."""
    return RunPlan.model_validate(
        {
            "run": {"name": "shapes-1"},
            "model": {"name": "shapes", "version": "v1"},
            "dataset": {
                "source": {"sample": {"images": 40, "imageSize": image_size}},
                "split": {"train": 60, "valid": 15, "test": 25},
            },
            "training": {
                "baseModel": base_model,
                "epochs": epochs,
                "batchSize": 8,
                "imageSize": image_size,
                "optimizer": "AdamW",
                "learningRate": 0.002,
                "nominalBatchSize": 8,
                "augmentation": {"mosaic": 0},
            },
            **fields,
        }
    )


@dataclass
class Program:
    """The trainer's program on one workspace."""

    folder: Path
    plan: RunPlan
    confined_by: tuple[str, ...] = ()  # what starts it, in surroundings of its own

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"

    def start(self, attempt: int = 1, *options: str) -> subprocess.Popen[str]:
        """Start an attempt."""
        watch = self.folder / "watch"
        watch.mkdir(exist_ok=True)
        (watch / "sitecustomize.py").write_text(NETWORK_WATCH.format(path=str(self.folder / "network")))
        (self.folder / "plan.json").write_text(self.plan.to_json())
        return subprocess.Popen(
            [
                *self.confined_by,
                *(sys.executable, "-m", "trainwright_trainer", "run", "--attempt", str(attempt)),
                *("--plan", str(self.folder / "plan.json"), "--workspace", str(self.workspace)),
                *("--termination-message", str(self.folder / f"message-{attempt}"), *options),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,  # a program that leaves files where it runs leaves them here
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder / "home"),
                "PYTHONPATH": str(watch),
                "OMP_NUM_THREADS": "2",
            },
        )

    def run(self, attempt: int = 1, *options: str) -> tuple[int, str]:
        """Carry an attempt out; return its exit code and output."""
        process = self.start(attempt, *options)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output

    def report(self, attempt: int = 1) -> RunReport:
        """Return the attempt's last word."""
        return RunReport.model_validate_json((self.folder / f"message-{attempt}").read_text())

    def recall(self, stage: Stage, kind: type[Any]) -> Any:
        """Return what the journal says a stage made."""
        journal = json.loads((self.workspace / "journal.json").read_text())
        return kind.model_validate_json(journal["entries"][stage]["output"])
