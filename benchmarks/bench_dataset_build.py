"""Builds a dataset of many small images, and copies the same tree with cp: seconds, memory, and once more.

    python benchmarks/bench_dataset_build.py --images 10000 100000

Every build is a process of its own, so that its peak memory is its own. The results are in
results/dataset-build.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

RESULTS = Path(__file__).parent / "results" / "dataset-build.json"
SIDE = 96
CLASSES = ("bolt", "nut", "washer")
FRAMES_OF_A_MEDIUM = 20
BUILD = """
import json, resource, sys, time
from pathlib import Path
from trainwright_trainer import Places, RunPlan, execute
source, workspace, cache = map(Path, sys.argv[1:4])
plan = RunPlan.model_validate_json(sys.argv[4])
start, cpu = time.monotonic(), time.process_time()
result = execute(plan, Places(workspace, data=source, cache=cache))
report = result.report.dataset
workers = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({
    "seconds": round(time.monotonic() - start, 2),
    "cpuSeconds": round(time.process_time() - cpu + workers.ru_utime + workers.ru_stime, 2),
    "peakMiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    "readerPeakMiB": round(workers.ru_maxrss / 1024, 1),
    "digest": report.digest,
    "images": report.images.model_dump(),
    "quarantined": report.quarantined,
}))
"""


def draw_tree(root: Path, count: int) -> None:
    """Write so many small JPEGs with a label each, frames of media."""
    images, labels = root / "data" / "images", root / "data" / "labels"
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    (root / "classes.json").write_text(json.dumps(CLASSES), encoding="utf-8")
    rng = random.Random(0)
    for index in range(count):
        name = f"belt{index // FRAMES_OF_A_MEDIUM}_{index % FRAMES_OF_A_MEDIUM:03d}"
        coarse = Image.frombytes("RGB", (12, 12), rng.randbytes(12 * 12 * 3))
        file = BytesIO()
        coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(file, format="JPEG", quality=85)
        (images / f"{name}.jpg").write_bytes(file.getvalue())
        boxes = [f"{rng.randrange(len(CLASSES))} 0.5 0.5 0.25 0.25\n" for _ in range(rng.randint(1, 3))]
        (labels / f"{name}.txt").write_text("".join(boxes), encoding="utf-8")


def build(source: Path, workspace: Path, cache: Path) -> dict[str, Any]:
    """Build the dataset in a process of its own and return what that says."""
    plan = {
        "run": {"name": "bench"},
        "model": {"name": "parts", "version": "v1"},
        "dataset": {"source": {"folder": {}}},
        "dryRun": True,
    }
    command = [sys.executable, "-c", BUILD, str(source), str(workspace), str(cache), json.dumps(plan)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def build_again(source: Path, workspace: Path, cache: Path) -> dict[str, Any]:
    """Build once more in the same workspace; the journal is put aside, or nothing would be asked at all."""
    (workspace / "journal.json").unlink()
    return build(source, workspace, cache)


def copy(source: Path, target: Path, *options: str) -> float:
    """Return the seconds that cp takes for the tree."""
    start = time.monotonic()
    subprocess.run(["cp", *options, str(source), str(target)], check=True)
    return round(time.monotonic() - start, 2)


def measure(count: int, folder: Path) -> dict[str, Any]:
    """Build and copy a tree of so many images; each starts with warm files, as it has just been written."""
    source, cache = folder / "source", folder / "cache"
    cache.mkdir()
    draw_tree(source, count)
    os.sync()
    first = build(source, folder / "work", cache)
    os.sync()
    again = build_again(source, folder / "work", cache)
    other = build(source, folder / "other", cache)
    assert first["digest"] == again["digest"] == other["digest"]
    os.sync()
    copied = copy(source, folder / "copied", "-r")
    linked = copy(source, folder / "linked", "-al")
    bytes_of_images = sum(path.stat().st_size for path in (source / "data" / "images").iterdir())
    return {
        "images": count,
        "imageMiB": round(bytes_of_images / 2**20, 1),
        "first": first,
        "again": again,
        "againPercent": round(100 * again["seconds"] / first["seconds"], 2),
        "anotherRun": other,
        "anotherRunPercent": round(100 * other["seconds"] / first["seconds"], 2),
        "imagesPerSecond": round(count / first["seconds"]),
        "cpSeconds": copied,
        "cpLinksSeconds": linked,
        "ratioToCp": round(first["seconds"] / copied, 2),
        "ratioToCpLinks": round(first["seconds"] / linked, 2),
    }


def main() -> None:
    """Measure every size, print and write down the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--folder", type=Path, help="where the trees are written; a temporary one else")
    options = parser.parse_args()
    sizes = []
    for count in options.images:
        folder = Path(tempfile.mkdtemp(dir=options.folder))
        try:
            sizes.append(measure(count, folder))
        finally:
            shutil.rmtree(folder)
        print(json.dumps(sizes[-1]), flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    record = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {"processor": platform.machine(), "cpus": os.cpu_count(), "load": os.getloadavg()[0]},
        "sizes": sizes,
        "growthMiB": round(sizes[-1]["first"]["peakMiB"] - sizes[0]["first"]["peakMiB"], 1),
    }
    RESULTS.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
