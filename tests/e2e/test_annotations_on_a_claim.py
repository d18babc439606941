"""Annotations on a claim: what is unfit is listed or refused, and the source is never touched."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from annotation_trees import write_tree
from stack_cluster import wait
from whole_stack import Team, condition

from trainwright.contract import ExitCode

Object = dict[str, Any]

CLAIM = "annotations"
UNFIT = {
    "belt2_000": "it can't be decoded",
    "belt5_000": "outside 0..1",
    "belt7_000": "class id 9 is not in the class map",
    "belt9_000": "4 columns, not 5",
}


def _spoil(data: Path) -> None:
    images, labels = data / "images", data / "labels"
    (images / "belt2_000.png").write_bytes(b"not a picture")
    (labels / "belt5_000.txt").write_text("0 0.5 1.5 0.1 0.1\n")
    (labels / "belt7_000.txt").write_text("9 0.5 0.5 0.1 0.1\n")
    (labels / "belt9_000.txt").write_text("0 0.5 0.5 0.1\n")


def _digest(root: Path) -> str:
    """Return a digest over names, bytes, rights and times of everything in a folder."""
    lines = []
    for path in sorted(root.rglob("*")):
        stat = path.stat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        lines.append(f"{path.relative_to(root)} {content} {stat.st_mode} {stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@pytest.fixture(scope="module")
def source(team: Team) -> Path:
    """The folder behind a claim with three trees of annotations: fit, mostly unfit, none."""
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    team.kubectl("apply", "-f", "-", manifest=claim)
    wait(lambda: team.get("pvc", CLAIM)["status"]["phase"] == "Bound", "the claim is bound")
    root = team.volume(CLAIM)
    wait(root.is_dir, "the volume's folder exists")
    _spoil(write_tree(root / "fit", 40) / "data")
    _spoil(write_tree(root / "unfit", 12) / "data")
    (root / "empty/data/images").mkdir(parents=True)
    return root


@pytest.fixture(scope="module")
def runs(team: Team, source: Path) -> dict[str, Object]:
    """The statuses of three runs that ended, by the tree they were given; they run side by side."""
    before = _digest(source)
    for path in ("fit", "unfit", "empty"):
        claim = {"claimName": CLAIM, "path": f"/{path}"}
        dataset = {"source": {"persistentVolumeClaim": claim}, "maxCorruptPercent": 15}
        team.apply(team.manifest(path, "vehicles", dataset=dataset, dryRun=path == "fit"))
    ended = {
        "fit": team.wait_for_phase("fit", "Succeeded"),
        "unfit": team.wait_for_phase("unfit", "Failed"),
        "empty": team.wait_for_phase("empty", "Failed"),
    }
    assert _digest(source) == before
    return ended


def test_a_dry_run_builds_the_dataset_and_nothing_else(team: Team, runs: dict[str, Object]) -> None:
    status = runs["fit"]
    assert condition(status, "Succeeded")["reason"] == "DryRun"
    assert condition(status, "DatasetReady")["status"] == "True"
    assert condition(status, "Trained")["status"] == "False"
    assert "model" not in status
    assert team.published("vehicles") == {"small": [], "big": []}


def test_what_is_unfit_is_counted_and_listed_by_name_and_reason(team: Team, runs: dict[str, Object]) -> None:
    dataset = runs["fit"]["dataset"]
    assert dataset["quarantined"] == len(UNFIT)
    assert sum(dataset["images"].values()) == 40 - len(UNFIT)
    text = (team.volume("fit-workspace") / "dataset/quarantine.jsonl").read_text()
    listed = {entry["name"]: entry["reason"] for entry in map(json.loads, text.splitlines())}
    assert listed.keys() == UNFIT.keys()
    for name, reason in UNFIT.items():
        assert reason in listed[name]


def test_too_much_unfit_fails_the_run_with_counts_and_the_first_reasons(runs: dict[str, Object]) -> None:
    failure = runs["unfit"]["failure"]
    assert (failure["cause"], failure["stage"], failure["exitCode"]) == ("Data", "Dataset", ExitCode.DATA)
    assert "4 of 12 annotations are unfit (33.3 %, at most 15 % are allowed)" in failure["message"]
    assert "belt2_000: image is no JPEG, PNG, WebP or BMP" in failure["message"]
    assert "maxCorruptPercent" in failure["hint"]


def test_a_folder_without_images_fails_the_run_with_a_hint(runs: dict[str, Object]) -> None:
    failure = runs["empty"]["failure"]
    assert failure["cause"] == "Data"
    assert "no images found in data/images" in failure["message"]
    assert "images/" in failure["hint"]


@pytest.mark.parametrize("tree", ["unfit", "empty"])
def test_bad_data_is_not_tried_again(runs: dict[str, Object], tree: str) -> None:
    (attempt,) = runs[tree]["attempts"]
    assert attempt["cause"] == "Data"
    assert condition(runs[tree], "Failed")["reason"] == "NotRetryable"
