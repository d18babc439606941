"""A model of real handwriting, learned in minutes on a CPU: the example, as it is in the repository."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stack_cluster import wait
from whole_stack import Team, condition

Object = dict[str, Any]

pytestmark = pytest.mark.timeout(1200)  # a minute and a half on two idle cores

EXAMPLES = Path(__file__).parents[2] / "examples"
CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "digits"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}


@pytest.fixture(scope="module")
def status(team: Team) -> Object:
    """The status of the example's run when it is over."""
    team.kubectl("apply", "-f", "-", manifest=CLAIM)
    wait(lambda: team.get("pvc", "digits")["status"]["phase"] == "Bound", "the claim is bound")
    folder = team.volume("digits")
    wait(folder.is_dir, "the volume's folder exists")
    subprocess.run([sys.executable, EXAMPLES / "digits.py", folder], check=True, timeout=120)
    team.kubectl("apply", "-f", str(EXAMPLES / "trainingrun-digits.yaml"))
    return team.wait_for_phase("digits-1", "Succeeded", seconds=1100)


def test_it_finds_digits_it_never_saw(status: Object) -> None:
    assert status["dataset"]["classes"] == 10
    assert sum(status["dataset"]["images"].values()) == 1000
    assert status["metrics"]["mAP50"] >= 0.8, status["metrics"]


def test_its_export_was_proven_and_the_gate_passed(status: Object) -> None:
    assert condition(status, "Verified")["status"] == "True"
    assert status["metrics"]["gatePassed"] == 1


def test_no_digit_is_on_two_sides_of_the_split(team: Team, status: Object) -> None:
    folder = team.volume("digits-1-workspace") / "dataset/images"
    sheets = [{path.name.split("_")[0] for path in side.iterdir()} for side in sorted(folder.iterdir())]
    assert len(sheets) == 3
    assert sum(map(len, sheets)) == len(set.union(*sheets)) == 100
