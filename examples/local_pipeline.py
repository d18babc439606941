"""Train, evaluate and export on a folder of images, without a cluster.

    python examples/local_pipeline.py ANNOTATIONS WORKSPACE

ANNOTATIONS holds data/images, data/labels and classes.json. Run it again with the same WORKSPACE after an
interruption: it goes on where it was.
"""

import sys
from pathlib import Path

from trainwright_trainer import Places, RunPlan, execute

annotations, workspace = map(Path, sys.argv[1:])
plan = RunPlan.model_validate(
    {
        "run": {"name": "parts-local"},
        "model": {"name": "parts", "version": "v1"},
        "dataset": {"source": {"folder": {"path": "."}}},
        "training": {"baseModel": "yolo11n.yaml", "epochs": 10, "batchSize": 8, "imageSize": 128},
    }
)
result = execute(plan, Places(workspace, data=annotations))
print(result.report.metrics, workspace / result.onnx.path)
