"""What the trainer's program says when it can't do its work; nothing here trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trainwright.contract import Cause, ExitCode, RunReport


def run(folder: Path, plan: dict[str, Any] | str, *options: str) -> tuple[int, RunReport]:
    """Run the program; return its exit code and its last word."""
    text = plan if isinstance(plan, str) else json.dumps(plan)
    (folder / "plan.json").write_text(text)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "trainwright_trainer", "run", "--plan", str(folder / "plan.json")),
            *("--workspace", str(folder / "workspace"), "--termination-message", str(folder / "message")),
            *options,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, RunReport.model_validate_json((folder / "message").read_text())


def plan(**fields: Any) -> dict[str, Any]:
    return {
        "run": {"name": "parts-1"},
        "model": {"name": "parts", "version": "v1"},
        "dataset": {"source": {"sample": {"images": 20, "imageSize": 32}}},
        **fields,
    }


FOLDER = {"source": {"folder": {}}}


@pytest.mark.parametrize(
    ("fields", "exit_code", "message"),
    [
        ({"dataset": FOLDER}, ExitCode.DATA, "no images found"),
        (
            {"training": {"arguments": {"mosiac": 1}}},
            ExitCode.USER_CONFIG,
            "did you mean training.augmentation.mosaic",
        ),
        ({"training": {"baseModel": "../x.pt"}}, ExitCode.USER_CONFIG, "baseModel '../x.pt' is no file"),
        ({"training": {"baseModel": "yolo99n.yaml"}}, ExitCode.USER_CONFIG, "no known architecture"),
        ({"gpus": 2}, ExitCode.GPU_FAULT, "compute.gpus is 2, but none of them can be seen"),
    ],
)
def test_a_plan_that_can_not_be_carried_out(
    tmp_path: Path, fields: dict[str, Any], exit_code: ExitCode, message: str
) -> None:
    (tmp_path / "data").mkdir()
    code, report = run(tmp_path, plan(**fields), "--data", str(tmp_path / "data"))
    assert code == exit_code
    assert report.outcome == "Failed"
    assert report.failure is not None
    assert message in report.failure.message
    assert report.failure.exit_code == exit_code


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "plan: Invalid JSON"),
        ('{"run": {"name": "x"}, "speed": 1}', "speed: Extra inputs are not permitted"),
        (json.dumps(plan(training={"epochs": 0})), "training.epochs: Input should be greater than"),
    ],
)
def test_a_plan_that_is_not_valid_is_explained_field_by_field(
    tmp_path: Path, text: str, problem: str
) -> None:
    code, report = run(tmp_path, text)
    assert code == ExitCode.USER_CONFIG
    assert report.failure is not None
    assert report.failure.cause is Cause.USER_CONFIG
    assert problem in report.failure.message


def test_a_dry_run_ends_with_the_dataset(tmp_path: Path) -> None:
    code, report = run(tmp_path, plan(dryRun=True))
    assert code == ExitCode.SUCCESS
    assert report.outcome == "DryRun"
    assert report.progress.percent == 100
    assert list(report.finished_stages) == ["Dataset"]


def test_a_workspace_of_another_plan_is_refused(tmp_path: Path) -> None:
    run(tmp_path, plan(dryRun=True))
    code, report = run(tmp_path, plan(dryRun=True, model={"name": "parts", "version": "v2"}))
    assert code == ExitCode.USER_CONFIG
    assert report.failure is not None
    assert "work of another plan" in report.failure.message
