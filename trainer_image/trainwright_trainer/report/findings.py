"""What a report tells of: gathered from what the stages left in the workspace."""

from __future__ import annotations

import csv
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from trainwright.artifacts import Dataset, Evaluation, OnnxModel, VerifiedModel, Weights
from trainwright.contract import EvaluationDetails, RunPlan, Stage

_PACKAGES = ("trainwright", "ultralytics", "torch", "onnx", "onnxruntime")


@dataclass(frozen=True)
class Made:
    """What the stages made: everything that is there when a model is verified."""

    dataset: Dataset
    weights: Weights
    evaluation: Evaluation
    onnx: OnnxModel
    verified: VerifiedModel


@dataclass(frozen=True)
class Findings:
    """The figures behind a report; `history` has a row for each epoch, `drift` is empty without a parent."""

    plan: RunPlan
    made: Made
    details: EvaluationDetails
    summary: dict[str, Any]
    history: list[dict[str, float]]
    seconds: dict[Stage, float]
    versions: dict[str, str]
    test_images: Path

    @property
    def drift(self) -> dict[str, Any]:
        """How the dataset differs from the parent's."""
        found = self.summary.get("parent")
        return found if isinstance(found, dict) else {}


def gather_findings(plan: RunPlan, made: Made, workspace: Path, seconds: Mapping[Stage, float]) -> Findings:
    """Read what the stages left; raise `OSError` or `ValueError` where that is not there or damaged."""
    details = (workspace / made.evaluation.details).read_text(encoding="utf-8")
    return Findings(
        plan=plan,
        made=made,
        details=EvaluationDetails.model_validate_json(details),
        summary=json.loads((workspace / made.dataset.summary).read_text(encoding="utf-8")),
        history=_read_history(workspace / made.weights.history) if made.weights.history else [],
        seconds=dict(seconds),
        versions=_versions(),
        test_images=workspace / made.dataset.folder / "images" / "test",
    )


def _read_history(path: Path) -> list[dict[str, float]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [{name: _to_number(value) for name, value in row.items()} for row in csv.DictReader(file)]


def _to_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
