"""Tries the demo's settings on several seeds: what it learns from scratch, and how long that takes.

    python benchmarks/bench_demo_settings.py --seeds 0 1 2

Each seed draws its own images and its own weights. The results are in results/demo-settings.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

RESULTS = Path(__file__).parent / "results" / "demo-settings.json"
RUN = Path(__file__).parents[1] / "devstack/trainwright_devstack/demo/trainingrun.yaml"
THREADS = "2"
BAR = 0.70  # mAP50 on the test split that the demo must reach


def read_settings() -> dict[str, Any]:
    """Return dataset and training of the demo's run."""
    spec = yaml.safe_load(RUN.read_text(encoding="utf-8"))["spec"]
    return {section: spec[section] for section in ("dataset", "training")}


def try_seed(seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Train once and return what came of it."""
    from trainwright_trainer import Places, RunPlan, execute  # noqa: PLC0415 - after OMP_NUM_THREADS is set

    sample = settings["dataset"]["source"]["sample"]
    plan = RunPlan.model_validate(
        {
            "run": {"name": f"demo-{seed}"},
            "model": {"name": "shapes", "version": "v1"},
            "dataset": settings["dataset"] | {"source": {"sample": {**sample, "seed": seed}}},
            "training": {**settings["training"], "seed": seed},
        }
    )
    with tempfile.TemporaryDirectory() as workspace:
        wall, cpu = time.monotonic(), time.process_time()
        result = execute(plan, Places(Path(workspace)))
        wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    assert result.verified is not None
    report = result.report
    return {
        "seed": seed,
        "mAP50": report.metrics["mAP50"],
        "mAP50to95": report.metrics["mAP50to95"],
        "testImages": report.dataset.images.test if report.dataset else 0,
        "parityPercent": result.verified.parities[0].match_percent,
        "stageSeconds": report.finished_stages,
        "wallSeconds": round(wall, 1),
        "cpuSeconds": round(cpu, 1),
    }


def main() -> None:
    """Try every seed, print and write down the results; fail when one misses the bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    os.environ.setdefault("OMP_NUM_THREADS", THREADS)
    settings, trials = read_settings(), []
    for seed in parser.parse_args().seeds:
        trials.append(try_seed(seed, settings))
        print(json.dumps(trials[-1]), flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    machine = {
        "processor": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": os.environ["OMP_NUM_THREADS"],
    }
    versions = {name: version(name) for name in ("ultralytics", "torch", "onnxruntime")}
    record = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine,
        "versions": versions,
        "settings": settings,
        "trials": trials,
    }
    RESULTS.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    assert all(trial["mAP50"] >= BAR for trial in trials), "a seed missed the bar"


if __name__ == "__main__":
    main()
