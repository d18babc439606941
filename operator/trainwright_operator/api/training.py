"""`spec.training`, `spec.export` and `spec.gate`: how a model is made and what it must reach."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from trainwright import contract
from trainwright.contract import ArgumentValue
from trainwright_operator.api.section import RelativePath, Rule, Section, built_in_of, opaque_map

Optimizer = Literal["auto", "SGD", "MuSGD", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSprop"]

Arguments = Annotated[dict[str, ArgumentValue], opaque_map(64)]


def _image_size(description: str) -> Any:
    return Field(default=None, ge=32, le=8192, multiple_of=32, description=description)


def _part(description: str, most: float = 1) -> Any:
    return Field(default=None, ge=0, le=most, description=description)


class OnlineAugmentation(Section):
    """How training images are changed while they are loaded, anew in every epoch, by Ultralytics' names."""

    built_in = built_in_of(contract.OnlineAugmentation)

    mosaic: float | None = _part("Probability that four images become one.")
    mixup: float | None = _part("Probability that two images are blended.")
    cutmix: float | None = _part("Probability that a region of one image is put into another.")
    degrees: float | None = _part("Images are turned by up to so many degrees, either way.", 180)
    translate: float | None = _part("Images are moved by up to this part of their side, either way.")
    scale: float | None = _part("Images are scaled by up to this part, either way.")
    shear: float | None = _part("Images are sheared by up to so many degrees, either way.", 90)
    perspective: float | None = _part("The perspective changes by up to so much; 0.001 is a lot.", 0.01)
    fliplr: float | None = _part("Probability that left and right change places.")
    flipud: float | None = _part("Probability that top and bottom change places.")
    hsv_h: float | None = _part("The hue changes by up to this part, either way.")
    hsv_s: float | None = _part("The saturation changes by up to this part, either way.")
    hsv_v: float | None = _part("The brightness changes by up to this part, either way.")
    bgr: float | None = _part("Probability that red and blue change places.")


class Loss(Section):
    """What the parts of the loss weigh."""

    built_in = built_in_of(contract.LossSettings)

    box: float | None = _part("Weight of where a box is.", 1000)
    cls: float | None = _part("Weight of what is in a box.", 1000)
    dfl: float | None = _part("Weight of where a box's edges are.", 1000)
    class_balance: float | None = _part(
        "How much more rare classes weigh: from 0, not at all, to 1, by the inverse of their number."
    )


class Training(Section):
    """How YOLO is trained."""

    built_in = built_in_of(contract.TrainingSettings)
    rules = (
        Rule(
            "!(has(self.batchSize) && has(self.gpuMemoryFraction))",
            "spec.training: set batchSize or gpuMemoryFraction, which finds the size of the batch",
        ),
    )

    base_model: RelativePath | None = Field(
        default=None,
        description="What training starts from: a weights file (.pt) to fine-tune, or an architecture (.yaml)"
        " to train from scratch; a name the trainer's image holds, or a path below /mnt on one of"
        " compute.volumes.",
    )
    epochs: int | None = Field(
        default=None, ge=1, le=100_000, description="How often the model sees every training image."
    )
    batch_size: int | None = Field(
        default=None, ge=1, le=65_536, description="Images in one step, on all GPUs together."
    )
    gpu_memory_fraction: float | None = Field(
        default=None,
        ge=0.05,
        le=0.95,
        description="In place of batchSize: the batch size with which training takes about this part of the"
        " GPU's memory is found before the first epoch, and kept by later attempts. For one GPU.",
    )
    nominal_batch_size: int | None = Field(
        default=None,
        ge=1,
        le=65_536,
        description="Gradients of smaller batches are added up to one step of the optimizer over about so"
        " many images.",
    )
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
    final_learning_rate: float | None = Field(
        default=None, ge=1e-8, le=1, description="Learning rate at the end, as a part of that at the start."
    )
    cosine_learning_rate: bool | None = Field(
        default=None, description="Whether the learning rate falls along a cosine, or along a line."
    )
    momentum: float | None = Field(
        default=None, ge=0, le=0.999, description="Momentum of SGD, or the first beta of Adam."
    )
    weight_decay: float | None = _part("How much weights are drawn towards 0 in a step.")
    warmup_momentum: float | None = Field(
        default=None, ge=0, le=0.999, description="Momentum at the start of the warm-up."
    )
    warmup_bias_learning_rate: float | None = _part(
        "Learning rate of the biases at the start of the warm-up.", 10
    )
    freeze: int | None = Field(
        default=None, ge=0, le=1000, description="The first so many layers keep the base model's weights."
    )
    multi_scale: float | None = Field(
        default=None,
        ge=0,
        le=0.9,
        description="Batches are scaled by up to this part of imageSize, either way; that needs memory.",
    )
    rect: bool | None = Field(
        default=None,
        description="Whether a batch has images of one shape, with less padding, unshuffled. For one GPU.",
    )
    close_mosaic: int | None = Field(
        default=None, ge=0, le=100_000, description="The last epochs, which see images without mosaic."
    )
    mixed_precision: bool | None = Field(
        default=None, description="Whether training computes in half precision where that is safe."
    )
    deterministic: bool | None = Field(
        default=None, description="Whether only such operations are used as give the same result each time."
    )
    cache: Literal["Off", "Memory", "Disk"] | None = Field(
        default=None,
        description="Where decoded images are kept for the next epochs: in memory, if the container's limit"
        " leaves room for them, else nowhere; or in the workspace.",
    )
    max_hours: float | None = Field(
        default=None,
        ge=0.001,
        le=100_000,
        description="End the training after the epoch with which it has taken so many hours in all attempts;"
        " evaluation and what follows use the best epoch until then. Default: no limit.",
    )
    augmentation: OnlineAugmentation | None = None
    loss: Loss | None = None
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
    dynamic_image_size: bool | None = Field(
        default=None,
        description="Whether a call may have images of other sizes: any multiple of 32 as height and width.",
    )
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
    formats: list[contract.FurtherFormat] | None = Field(
        default=None,
        max_length=8,
        description="Formats to export to beside ONNX; they are proven as it is, and stay in the workspace."
        " Default: none.",
    )
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
    minimum_per_class: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="The least value of the metric for each class of which the test split has boxes.",
    )
    max_drop_from_parent: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="How much lower than its parent's the metric may be on the same images; 1 allows all.",
    )
