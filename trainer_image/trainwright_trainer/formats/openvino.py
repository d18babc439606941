"""OpenVINO's format: a graph as XML, and its weights beside it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

GRAPH = "model.xml"


class OpenVino:
    """Made and run by OpenVINO's own runtime, without its converter and its telemetry."""

    def convert(self, onnx: Path, folder: Path) -> None:
        openvino = _load()
        model = openvino.Core().read_model(str(onnx))
        openvino.save_model(model, str(folder / GRAPH), compress_to_fp16=False)

    def open(self, folder: Path) -> Callable[[NDArray[np.float32]], NDArray[Any]]:
        # Some processors would compute in half precision unasked.
        exact = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled = _load().Core().compile_model(str(folder / GRAPH), "CPU", exact)

        def run(images: NDArray[np.float32]) -> NDArray[Any]:
            return np.array(compiled([images])[0])

        return run


def _load() -> Any:
    """Import OpenVINO without its telemetry, which sends an event whenever OpenVINO is imported."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: it can't be imported
    import openvino  # noqa: PLC0415 - slow to import

    return openvino
