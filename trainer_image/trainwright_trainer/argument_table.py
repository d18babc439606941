"""Writes the table of training arguments from the installed Ultralytics, or checks that it is up to date.

python -m trainwright_trainer.argument_table [--check]
"""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import distribution, version
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic.alias_generators import to_camel

from trainwright.contract import OnlineAugmentation
from trainwright.training_arguments import TABLE, USE

_TYPES = {"bool": "boolean", "int": "integer", "float": "number", "str": "string"}
_LINE = re.compile(r"^(?P<name>\w+):.*?# \((?P<types>[^)]*)\)")

_OWN_FIELDS = {
    "model": "baseModel",
    "epochs": "epochs",
    "batch": "batchSize",
    "imgsz": "imageSize",
    "save_period": "savePeriod",
    "workers": "workers",
    "patience": "patience",
    "seed": "seed",
    "optimizer": "optimizer",
    "lr0": "learningRate",
    "warmup_epochs": "warmupEpochs",
    "close_mosaic": "closeMosaic",
    "amp": "mixedPrecision",
    "nbs": "nominalBatchSize",
    "lrf": "finalLearningRate",
    "cos_lr": "cosineLearningRate",
    "momentum": "momentum",
    "weight_decay": "weightDecay",
    "warmup_momentum": "warmupMomentum",
    "warmup_bias_lr": "warmupBiasLearningRate",
    "freeze": "freeze",
    "multi_scale": "multiScale",
    "rect": "rect",
    "deterministic": "deterministic",
    "cache": "cache",
    "time": "maxHours",
    **{name: f"loss.{name}" for name in ("box", "cls", "dfl")},
    "cls_pw": "loss.classBalance",
    **{name: f"augmentation.{to_camel(name)}" for name in OnlineAugmentation.model_fields},
}
_REFUSED = {
    **{name: f"{USE}training.{field}" for name, field in _OWN_FIELDS.items()},
    **dict.fromkeys(("project", "name", "exist_ok", "save_dir"), "the workspace decides where files go"),
    **dict.fromkeys(("data", "fraction", "split", "classes"), "the dataset's settings decide what is used"),
    **dict.fromkeys(
        ("overlap_mask", "mask_ratio", "dropout", "pose", "kobj", "rle", "angle", "dlog", "dgrad", "dlam"),
        "it is for other tasks than detection",
    ),
    **dict.fromkeys(
        ("copy_paste", "copy_paste_mode", "auto_augment", "erasing"), "it is for other tasks than detection"
    ),
    "device": "use compute.gpus",
    "resume": "the newest checkpoint is found by itself",
    "save": "checkpoints are always saved",
    "val": "every epoch is validated, to find the best one",
    "plots": "no pictures are drawn",
    "cfg": "it is the path of a file; set its values one by one",
    "distill_model": "it is the path of a file",
    "pretrained": "it may be the path of a file; use training.baseModel",
    "tracker": "it is the path of a file",
    "source": "it is the path of a file",
    "task": "only detection is trained",
    "single_cls": "the dataset's class map decides the classes: give it one",
    "quantize": "the export decides the precision",
    "nms": "the export decides it",
    "save_json": "metrics are in the report",
    "verbose": "the log has its own level",
    "profile": "it is for other loggers",
    "dnn": "the export is verified with onnxruntime",
    "mode": "a training trains",
}
_OTHER_MODES = (
    "Predict settings",
    "Visualize settings",
    "Export settings",
    "Custom config",
    "Tracker settings",
)


def build_table() -> dict[str, Any]:
    """Return the table for the installed version: allowed arguments with types, refused ones with reasons."""
    path = Path(str(distribution("ultralytics").locate_file("ultralytics/cfg/default.yaml")))
    text = path.read_text(encoding="utf-8")
    types = _read_types(text)
    unknown = yaml.safe_load(text).keys() - types.keys()
    if unknown:
        raise ValueError(f"no type found for {sorted(unknown)}: the comments of default.yaml changed")
    allowed = {name: kinds for name, kinds in types.items() if kinds and name not in _REFUSED}
    of_other_modes = dict.fromkeys(types.keys() - allowed.keys(), "it is no setting of a training")
    return {
        "ultralytics": version("ultralytics"),
        "arguments": dict(sorted(allowed.items())),
        "refused": dict(sorted({**of_other_modes, **_REFUSED}.items())),
    }


def main() -> int:
    """Write the table, or with `--check` return 1 when it differs."""
    target = Path(str(files("trainwright").joinpath(TABLE)))
    text = json.dumps(build_table(), indent=1) + "\n"
    if "--check" not in sys.argv[1:]:
        target.write_text(text, encoding="utf-8")
        return 0
    if target.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write(f"{TABLE} differs from Ultralytics {version('ultralytics')}: generate it again\n")
    return 1


def _read_types(text: str) -> dict[str, list[str]]:
    """Return the types of every setting as its comment states them; none for those of other modes."""
    types: dict[str, list[str]] = {}
    of_training = True
    for line in text.splitlines():
        if line.startswith("# ") and line.endswith("---"):
            of_training = not line[2:].startswith(_OTHER_MODES)
        elif match := _LINE.match(line):
            names = re.findall(r"\w+", match["types"])
            types[match["name"]] = [_TYPES[name] for name in names if name in _TYPES] if of_training else []
    return types


if __name__ == "__main__":
    sys.exit(main())
