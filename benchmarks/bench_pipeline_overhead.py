"""The training stage of execute(plan) against plain `yolo train`: same settings, dataset, seed, and machine.

    python benchmarks/bench_pipeline_overhead.py --repeats 5 --epochs 6

Both are programs that start from nothing and end with the best weights, one after the other, in turns. The
results are in results/pipeline-overhead.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trainwright.contract import RunPlan, RunReport, Stage
from trainwright_trainer.steps.training import HISTORY, training_arguments

RESULTS = Path(__file__).parent / "results" / "pipeline-overhead.json"
THREADS = "2"
YOLO = Path(sys.executable).with_name("yolo")


def make_plan(epochs: int, images: int, image_size: int) -> RunPlan:
    """Return the plan that both carry out."""
    return RunPlan.model_validate(
        {
            "run": {"name": "overhead"},
            "model": {"name": "shapes", "version": "v1"},
            "dataset": {"source": {"sample": {"images": images, "imageSize": image_size}}},
            "training": {
                "baseModel": "yolo11n.yaml",
                "epochs": epochs,
                "batchSize": 8,
                "imageSize": image_size,
                "workers": 0,
            },
        }
    )


def environment(folder: Path) -> dict[str, str]:
    """Return what both start with: the same threads, and no network to ask for the newest release."""
    settings = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_CONFIG_DIR": str(folder / "yolo")}
    return {"PATH": os.environ["PATH"], "HOME": str(folder), "OMP_NUM_THREADS": THREADS, **settings}


def run_stages(plan: Path, workspace: Path, stages: str) -> RunReport:
    """Carry out some stages of the plan; return the report."""
    word = workspace.with_suffix(".json")
    command = (sys.executable, "-m", "trainwright_trainer", "run", "--stages", stages)
    places = ("--plan", plan, "--workspace", workspace, "--termination-message", word)
    subprocess.run(
        [*command, *places], check=True, stdout=subprocess.DEVNULL, env=environment(workspace.parent)
    )
    return RunReport.model_validate_json(word.read_text())


def train_ours(plan: Path, built: Path, folder: Path) -> dict[str, float]:
    """Return the seconds of the training stage, and those of its epochs alone."""
    shutil.copytree(built, folder / "ours")
    report = run_stages(plan, folder / "ours", "Training")
    return {
        "seconds": report.finished_stages[Stage.TRAINING],
        "epochSeconds": last_time(folder / "ours" / HISTORY),
    }


def train_plainly(plan: RunPlan, built: Path, folder: Path) -> dict[str, float]:
    """Return the seconds of `yolo train`, and those of its epochs alone."""
    shutil.copytree(built / "dataset", folder / "dataset")
    settings = training_arguments(plan.training) | {
        "model": plan.training.base_model,
        "data": folder / "dataset" / "data.yaml",
        "project": folder,
        "name": "plain",
        "device": "cpu",
        "workers": 0,
        "plots": False,
        "cache": False,
    }
    arguments = [f"{name}={value}" for name, value in settings.items()]
    began = time.monotonic()
    subprocess.run(
        [YOLO, "detect", "train", *arguments],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(folder),
        cwd=folder,
    )
    return {
        "seconds": round(time.monotonic() - began, 1),
        "epochSeconds": last_time(folder / "plain" / "results.csv"),
    }


def last_time(table: Path) -> float:
    """Return the seconds until the last epoch of a history was done."""
    with table.open(newline="") as file:
        return float(list(csv.DictReader(file))[-1]["time"])


def compare(plan: RunPlan, repeats: int) -> list[dict[str, dict[str, float]]]:
    """Train in turns, the other one first each time."""
    pairs = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "plan.json").write_text(plan.to_json(), encoding="utf-8")
        run_stages(root / "plan.json", root / "built", "Dataset")
        for repeat in range(repeats):
            folder = root / str(repeat)
            folder.mkdir()
            turns = {
                "ours": lambda folder=folder: train_ours(root / "plan.json", root / "built", folder),
                "plain": lambda folder=folder: train_plainly(plan, root / "built", folder),
            }
            order = list(turns) if repeat % 2 else list(reversed(turns))
            pair: dict[str, dict[str, float]] = {side: turns[side]() for side in order}
            print(json.dumps(pair), flush=True)
            pairs.append(pair)
            shutil.rmtree(folder)
    return pairs


def ratios(pairs: list[dict[str, dict[str, float]]], figure: str) -> list[float]:
    """Return ours over plain for each pair."""
    return [round(pair["ours"][figure] / pair["plain"][figure], 4) for pair in pairs]


def main() -> None:
    """Compare, print and write down the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--image-size", type=int, default=128)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    pairs = compare(make_plan(options.epochs, options.images, options.image_size), options.repeats)
    body: dict[str, Any] = {
        "name": "pipeline-overhead",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "what": "training stage of execute(plan) over `yolo train`, whole programs; epochs alone beside it",
        "ratio": statistics.median(ratios(pairs, "seconds")),
        "epochsRatio": statistics.median(ratios(pairs, "epochSeconds")),
        "ratios": ratios(pairs, "seconds"),
        "epochsRatios": ratios(pairs, "epochSeconds"),
        "pairs": pairs,
        "epochs": options.epochs,
        "images": options.images,
        "imageSize": options.image_size,
        "ultralytics": version("ultralytics"),
        "torch": version("torch"),
        "machine": {
            "processor": platform.machine(),
            "cpus": os.cpu_count(),
            "threads": THREADS,
            "loadBefore": round(load, 1),
        },
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    print(f"ratio {body['ratio']}, of the epochs alone {body['epochsRatio']}")


if __name__ == "__main__":
    main()
