"""A training bundle gives back the weights and the manifest it was made of, and refuses what is none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from trainwright.contract import ClassMap
from trainwright.errors import DataError
from trainwright_trainer import yolo
from trainwright_trainer.bundles import BundleFacts, open_bundle, write_bundle

CLASSES = ClassMap.of_names(("gear", "bolt", "nut"))
DIGEST = "sha256:" + "0" * 64


def facts(**fields: object) -> BundleFacts:
    body = {
        "model": "parts",
        "version": "v1",
        "digest": DIGEST,
        "architecture": "yolo26n.yaml",
        "class_map": CLASSES,
        "dataset": DIGEST,
        "metrics": {"mAP50": 0.5},
    }
    return BundleFacts.model_validate({**body, **fields})


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model with an end-to-end head, as a training leaves it."""
    from ultralytics.nn.tasks import DetectionModel

    folder = tmp_path_factory.mktemp("weights")
    yolo.prepare(folder / "ultralytics")
    model = DetectionModel("yolo26n.yaml", ch=3, nc=3, verbose=False).half()
    model.names, model.args = dict(enumerate(CLASSES.names)), {}
    torch.save({"epoch": -1, "model": model, "train_args": {}}, folder / "weights.pt")
    return folder / "weights.pt"


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "manifest.jsonl"
    path.write_text('{"digest": 1}\n' + '{"name": "belt"}\n' * 1000)
    return path


def test_weights_and_manifest_come_back_as_they_were(weights: Path, manifest: Path, tmp_path: Path) -> None:
    plain, bundle, again = yolo.take_apart(weights), tmp_path / "bundle", tmp_path / "again.pt"
    assert (plain.architecture, plain.classes) == ("yolo26n.yaml", 3)
    write_bundle(bundle, facts(), plain.tensors, manifest)
    found = open_bundle(bundle, again, tmp_path / "manifest-again")
    assert found == facts()
    assert (tmp_path / "manifest-again").read_bytes() == manifest.read_bytes()
    assert yolo.is_harmless(again)
    assert yolo.Model(again).end_to_end
    image = np.random.default_rng(0).random((1, 3, 64, 64), dtype=np.float32)
    before, after = (yolo.Model(path).detector(end_to_end=True)(image) for path in (weights, again))
    assert len(before[0]) > 0
    assert np.array_equal(before[0], after[0])


def refused(bundle: Path, tmp_path: Path) -> str:
    with pytest.raises(DataError) as caught:
        open_bundle(bundle, tmp_path / "weights.pt", tmp_path / "out.jsonl")
    assert not (tmp_path / "weights.pt").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    "architecture", ["../yolo26n.yaml", "yolo99n.yaml", "/etc/passwd", "yolo26n.pt", "exec"]
)
def test_an_architecture_is_one_we_know_by_name(
    architecture: str, weights: Path, manifest: Path, tmp_path: Path
) -> None:
    tensors = yolo.take_apart(weights).tensors
    write_bundle(tmp_path / "bundle", facts(architecture=architecture), tensors, manifest)
    assert repr(architecture) in refused(tmp_path / "bundle", tmp_path)


def test_weights_of_another_shape_are_refused(weights: Path, manifest: Path, tmp_path: Path) -> None:
    tensors = yolo.take_apart(weights).tensors
    more = ClassMap.of_names(("gear", "bolt", "nut", "screw"))
    write_bundle(tmp_path / "bundle", facts(class_map=more), tensors, manifest)
    assert "do not fill yolo26n.yaml" in refused(tmp_path / "bundle", tmp_path)
    del tensors[next(iter(tensors))]
    write_bundle(tmp_path / "bundle", facts(), tensors, manifest)
    assert "do not fill yolo26n.yaml" in refused(tmp_path / "bundle", tmp_path)


def test_a_pickle_or_any_other_file_is_no_bundle(weights: Path, tmp_path: Path) -> None:
    assert "not one" in refused(weights, tmp_path)
    (tmp_path / "empty").write_bytes(b"")
    assert "not one" in refused(tmp_path / "empty", tmp_path)


def test_tensors_that_do_not_say_what_they_are_are_refused(tmp_path: Path) -> None:
    save_file({"weights.a": torch.zeros(1)}, tmp_path / "bare")
    assert "does not say" in refused(tmp_path / "bare", tmp_path)
    newer = json.dumps(
        {**json.loads(facts().model_dump_json(by_alias=True)), "format": "trainwright-bundle-v2"}
    )
    save_file({"weights.a": torch.zeros(1)}, tmp_path / "newer", metadata={"trainwright": newer})
    assert "format" in refused(tmp_path / "newer", tmp_path)
