"""The formats a model is exported to, behind one interface.

ONNX comes from Ultralytics; a further format is made of the finished ONNX file, so that it is the same graph
with the same suppression, and is proven in the same way. To add one: a module with a class as below, its name
in `contract.FurtherFormat`, and a line in `FURTHER`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trainwright.contract import FurtherFormat
from trainwright_trainer.formats.openvino import OpenVino

Run = Callable[[NDArray[np.float32]], NDArray[Any]]
"""Takes a batch of RGB images (batch, 3, height, width) in 0..1; returns what the model says of them."""


class Further(Protocol):
    """A format that a finished ONNX file can be turned into, and the engine that runs it."""

    def convert(self, onnx: Path, folder: Path) -> None:
        """Write the model's files into a folder: their bytes depend on the ONNX file only."""

    def open(self, folder: Path) -> Run:
        """Open what `convert` wrote, to be run on the CPU."""


FURTHER: Mapping[FurtherFormat, Further] = {"openvino": OpenVino()}
"""How each further format is made and run."""


def open_onnx(path: Path) -> Run:
    """Open an ONNX file, to be run by onnxruntime on the CPU."""
    import onnxruntime  # noqa: PLC0415 - slow to import

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(images: NDArray[np.float32]) -> NDArray[Any]:
        return np.asarray(session.run(None, {name: images})[0])

    return run
