"""The further formats, as far as they need no trained model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from trainwright_trainer.formats import FURTHER, open_onnx


@pytest.fixture
def doubling(tmp_path: Path) -> Path:
    """A model that says twice what it is given."""
    shape = ["batch", 3, 4, 4]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["images", "images"], ["output0"])],
        "model",
        [onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info("output0", onnx.TensorProto.FLOAT, shape)],
    )
    opset = [onnx.helper.make_opsetid("", 18)]
    path = tmp_path / "model.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


@pytest.mark.parametrize("name", FURTHER)
def test_every_format_is_run_by_its_engine_and_has_the_same_bytes_each_time(
    name: str, doubling: Path, tmp_path: Path
) -> None:
    made = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
        FURTHER[name].convert(doubling, folder)  # type: ignore[index]
        made.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert made[0] == made[1]
    run, reference = FURTHER[name].open(tmp_path / "first"), open_onnx(doubling)  # type: ignore[index]
    for batch in (1, 3):
        images = np.random.default_rng(batch).random((batch, 3, 4, 4), dtype=np.float32)
        assert np.array_equal(run(images), reference(images))


def test_the_telemetry_of_openvino_is_not_imported_even_where_it_is_installed(tmp_path: Path) -> None:
    (tmp_path / "openvino_telemetry.py").write_text(f"open({str(tmp_path / 'told')!r}, 'w')")
    program = "from trainwright_trainer.formats.openvino import _load; print(_load().__version__)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert not (tmp_path / "told").exists()
