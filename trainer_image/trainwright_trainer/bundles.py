"""Training bundles: what it takes to train a version further, as one file of plain tensors.

A bundle is a safetensors file: the weights, the manifest of the dataset they were trained on (gzip, as a
tensor of bytes), and a JSON text with what the version is. Reading one runs no code that is in it: what it
names is looked up among what we know, so that a signature is not all that stands between it and us.
"""

from __future__ import annotations

import gzip
import json
import logging
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from trainwright.artifacts import Dataset, Evaluation, OnnxModel, Weights
from trainwright.contract import ClassMap, Contract, Digest, Metrics, RunPlan
from trainwright.errors import DataError
from trainwright_trainer import yolo

_LOG = logging.getLogger(__name__)
_FACTS, _MANIFEST, _WEIGHTS = "trainwright", "manifest", "weights."
_MOST_MANIFEST_BYTES = 4 * 1024**3  # that of 10 million images; more is no manifest


class BundleFacts(Contract):
    """What a bundle says of its version; `digest` is that of the model it is published as."""

    format: Literal["trainwright-bundle-v1"] = "trainwright-bundle-v1"
    model: str
    version: str
    digest: Digest
    architecture: str
    class_map: ClassMap
    dataset: Digest
    metrics: Metrics


@dataclass(frozen=True)
class Trained:
    """What a training made, from which it can be gone on with."""

    weights: Weights
    dataset: Dataset
    evaluation: Evaluation


def make_bundle(path: Path, trained: Trained, onnx: OnnxModel, plan: RunPlan, workspace: Path) -> bool:
    """Write the bundle of a version and return true, or say why there is none.

    That the weights come out of their tensors as they are is proven at once: later it is too late.
    """
    yolo.prepare(workspace / "ultralytics")
    plain = yolo.take_apart(workspace / trained.weights.path)
    names, proof = trained.dataset.class_names, path.with_suffix(".proof")
    try:
        yolo.put_together(plain, names, proof)
    except DataError as error:
        _LOG.warning("there is no training bundle, and this version can't be a parent: %s", error)
        return False
    finally:
        proof.unlink(missing_ok=True)
    facts = BundleFacts(
        model=plan.model.name,
        version=plan.model.version,
        digest=onnx.digest,
        architecture=plain.architecture,
        class_map=trained.dataset.class_map,
        dataset=trained.dataset.report.digest,
        metrics=trained.evaluation.metrics,
    )
    write_bundle(path, facts, plain.tensors, workspace / trained.dataset.manifest)
    return True


def write_bundle(path: Path, facts: BundleFacts, tensors: dict[str, Any], manifest: Path) -> None:
    """Write a bundle; the same parts give the same tensors."""
    import torch  # noqa: PLC0415 - takes seconds
    from safetensors.torch import save_file  # noqa: PLC0415 - imports torch

    packed = gzip.compress(manifest.read_bytes(), mtime=0)
    parts = {_WEIGHTS + name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    parts[_MANIFEST] = torch.frombuffer(bytearray(packed), dtype=torch.uint8)
    save_file(parts, path, metadata={_FACTS: facts.model_dump_json(by_alias=True)})


def open_bundle(path: Path, weights: Path, manifest: Path) -> BundleFacts:
    """Write the weights of a bundle as a `.pt` file and its manifest as it was; return what it says."""
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415 - needed with a parent only

    try:
        with safe_open(path, framework="pt") as file:
            facts = BundleFacts.model_validate_json((file.metadata() or {}).get(_FACTS, ""))
            tensors = {
                name.removeprefix(_WEIGHTS): file.get_tensor(name)
                for name in file.keys()  # noqa: SIM118 - it is no mapping
                if name.startswith(_WEIGHTS)
            }
            packed = file.get_tensor(_MANIFEST).numpy().tobytes()
    except ValidationError as error:
        said = json.dumps([".".join(map(str, item["loc"])) for item in error.errors()])
        raise DataError(f"the bundle does not say what it is: {said}", hint="Use a newer release.") from None
    except (SafetensorError, OSError) as error:
        raise DataError(f"the bundle is not one: {error}") from None
    plain = yolo.PlainWeights(facts.architecture, len(facts.class_map.names), tensors)
    yolo.put_together(plain, facts.class_map.names, weights)
    _unpack(packed, manifest)
    return facts


def _unpack(packed: bytes, target: Path) -> None:
    try:
        with gzip.open(BytesIO(packed)) as source, target.open("wb") as file:
            while piece := source.read(1 << 20):
                if file.tell() > _MOST_MANIFEST_BYTES:
                    raise DataError("the bundle's manifest has no end")
                file.write(piece)
    except (OSError, EOFError, zlib.error) as error:  # what gzip makes of bytes that are none
        raise DataError(f"the bundle's manifest is damaged: {error}") from None
