"""Annotation trees for tests: a folder as an annotation tool leaves it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from trainwright.contract import CheckpointReport, RunPlan
from trainwright_trainer.annotations.sample import CLASS_NAMES, draw_sample


def write_tree(root: Path, count: int = 12, *, tree: str = "data", first: int = 0) -> Path:
    """Write `count` annotated images, each of a medium of its own, and a class map."""
    images, labels = root / tree / "images", root / tree / "labels"
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    for index in range(first, first + count):
        drawn = draw_sample(7, index, 32)
        name = f"belt{index}_000"
        (images / f"{name}.png").write_bytes(drawn.png)
        (labels / f"{name}.txt").write_text("".join(shape.to_line() + "\n" for shape in drawn.shapes))
    entries = [
        {"Id": index, "Name": name, "ShortName": name[0], "Color": "#fff"}
        for index, name in enumerate(CLASS_NAMES)
    ]
    (root / "classes.json").write_text(json.dumps(entries))
    return root


def plan_of(dataset: dict[str, Any], **fields: Any) -> RunPlan:
    """Return a plan with this dataset section."""
    return RunPlan.model_validate(
        {
            "run": {"name": "parts-1"},
            "model": {"name": "parts", "version": "v1"},
            "dataset": dataset,
            **fields,
        }
    )


def folder_plan(**dataset: Any) -> RunPlan:
    """Return a plan that builds a dataset from a folder."""
    return plan_of({"source": {"folder": {}}, **dataset}, dryRun=True)


def digest_tree(root: Path) -> dict[str, str]:
    """Return the digest of every file below a folder."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


class Silent:
    """A watcher that nobody listens to, and that never stops anything."""

    def advance(self, fraction: float) -> None:
        assert 0 <= fraction <= 1

    def train_batch(self, epoch: int, epochs: int, batch: int, batches: int) -> None:
        pass

    def check(self) -> None:
        """Nobody asks for a stop."""

    def linger(self) -> None:
        """Go on."""

    def use_batch(self, batch_size: int) -> None:
        """Go on."""

    def finish_epoch(self, epoch: int, epochs: int, metrics: Any) -> None:
        """Go on."""

    def keep_checkpoint(self, checkpoint: CheckpointReport) -> None:
        """Go on."""

    def store_checkpoint(self, epoch: int | None, seconds: float, problem: str) -> None:
        """Go on."""

    def resume_from(self, epoch: int) -> None:
        """Go on."""
