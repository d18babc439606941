"""`spec.training`, `spec.export` and `spec.gate`: how a model is made and what it must reach."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from trainwright import contract
from trainwright.contract import ArgumentValue
from trainwright_operator.api.section import RelativePath, Section, built_in_of, opaque_map

Optimizer = Literal["auto", "SGD", "MuSGD", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSprop"]

Arguments = Annotated[dict[str, ArgumentValue], opaque_map(64)]


def _image_size(description: str) -> Any:
    return Field(default=None, ge=32, le=8192, multiple_of=32, description=description)


class Training(Section):
    """How YOLO is trained."""

    built_in = built_in_of(contract.TrainingSettings)

    base_model: RelativePath | None = Field(
        default=None,
        description="What training starts from: a weights file (.pt) to fine-tune, or an architecture (.yaml)"
        " to train from scratch; a name the trainer's image holds, or a path below /mnt on one of"
        " compute.volumes.",
    )
    epochs: int | None = Field(
        default=None, ge=1, le=100_000, description="How often the model sees every training image."
    )
    batch_size: int | None = Field(default=None, ge=1, le=65_536, description="Images in one step.")
    image_size: int | None = _image_size(
        "Width and height, in pixels, to which images are scaled; a multiple of 32."
    )
    save_period: int | None = Field(
        default=None, ge=-1, le=100_000, description="Keep a checkpoint every so many epochs; -1 keeps none."
    )
    workers: int | None = Field(
        default=None, ge=0, le=512, description="Processes that load images; they need shared memory."
    )
    patience: int | None = Field(
        default=None, ge=0, le=100_000, description="Stop early after so many epochs without a better one."
    )
    seed: int | None = Field(
        default=None, ge=0, le=2**31 - 1, description="Seed of everything random in the training."
    )
    optimizer: Optimizer | None = Field(
        default=None,
        description="The optimizer; auto chooses it, and its learning rate, by the run's length.",
    )
    learning_rate: float | None = Field(
        default=None,
        ge=1e-8,
        le=10,
        description="Learning rate at the start; without effect while the optimizer is auto.",
    )
    warmup_epochs: float | None = Field(
        default=None, ge=0, le=1000, description="Epochs over which the learning rate rises to its start."
    )
    close_mosaic: int | None = Field(
        default=None, ge=0, le=100_000, description="The last epochs, which see images without mosaic."
    )
    mixed_precision: bool | None = Field(
        default=None, description="Whether training computes in half precision where that is safe."
    )
    arguments: Arguments | None = Field(
        default=None,
        description="Any other Ultralytics training setting, by its Ultralytics name: a number, a string or a"
        " boolean. The operator refuses unknown ones, and paths and settings that are its own.",
    )


class Onnx(Section):
    """What the exported ONNX model looks like."""

    built_in = built_in_of(contract.OnnxSettings)

    image_size: int | None = _image_size(
        "Width and height of the model's input, in pixels; a multiple of 32. Default: training.imageSize."
    )
    dynamic_batch: bool | None = Field(
        default=None, description="Whether one call takes from 1 to maxBatch images, or always maxBatch."
    )
    max_batch: int | None = Field(default=None, ge=1, le=1024, description="The most images in one call.")
    nms: bool | None = Field(
        default=None, description="Whether the model itself removes overlapping detections of one thing."
    )
    half: bool | None = Field(
        default=None, description="Whether the weights are stored in half precision: half the size."
    )
    opset: int | None = Field(
        default=None, ge=11, le=30, description="ONNX operator set. Default: the newest the exporter knows."
    )
    simplify: bool | None = Field(default=None, description="Whether the graph is simplified.")


class Parity(Section):
    """The proof that the export detects what the trained weights detect, on real images."""

    built_in = built_in_of(contract.ParitySettings)

    images: int | None = Field(
        default=None, ge=1, le=10_000, description="Images of the test split on which both are compared."
    )
    min_match_percent: float | None = Field(
        default=None,
        ge=0,
        le=100,
        description="Percent of the detections that must agree, else the run fails.",
    )


class Export(Section):
    """The model's export, and the proof that it is as good as the weights."""

    onnx: Onnx | None = None
    parity: Parity | None = None


class Gate(Section):
    """What a model must reach on the test split."""

    built_in = built_in_of(contract.GateSettings)

    metric: Literal["mAP50", "mAP50to95", "precision", "recall"] | None = Field(
        default=None, description="The metric that is looked at."
    )
    minimum: float | None = Field(
        default=None, ge=0, le=1, description="The least value of the metric with which a model passes."
    )
