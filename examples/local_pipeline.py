"""Train, evaluate and export on a folder of images, without a cluster.

    python examples/local_pipeline.py ANNOTATIONS WORKSPACE

ANNOTATIONS holds data/images, data/labels and classes.json. Run it again with the same WORKSPACE after an
interruption: it goes on where it was.
"""

import sys
from pathlib import Path

from trainwright_trainer import Places, RunPlan, execute

MODEL = {"name": "parts", "version": "v1"}
DATASET = {"source": {"folder": {"path": "."}}}
TRAINING = {"baseModel": "yolo11n.yaml", "epochs": 10, "batchSize": 8, "imageSize": 128, "workers": 0}


def main() -> None:
    annotations, workspace = map(Path, sys.argv[1:])
    plan = RunPlan(run={"name": "parts-local"}, model=MODEL, dataset=DATASET, training=TRAINING)
    result = execute(plan, Places(workspace, data=annotations))
    print(result.report.metrics, workspace / result.onnx.path)


if __name__ == "__main__":  # with workers, each loads this file on systems that start processes afresh
    main()
