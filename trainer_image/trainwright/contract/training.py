"""`training`, `export` and `gate` of a plan: how a model is made, and what it must reach."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainwright.contract.words import Contract

ArgumentValue = bool | int | float | str


class OnlineAugmentation(Contract):
    """How images are changed while they are loaded, anew in every epoch; names are those of Ultralytics."""

    mosaic: float = Field(default=1.0, ge=0, le=1)
    mixup: float = Field(default=0.0, ge=0, le=1)
    cutmix: float = Field(default=0.0, ge=0, le=1)
    degrees: float = Field(default=0.0, ge=0, le=180)
    translate: float = Field(default=0.1, ge=0, le=1)
    scale: float = Field(default=0.5, ge=0, le=1)
    shear: float = Field(default=0.0, ge=0, le=90)
    perspective: float = Field(default=0.0, ge=0, le=0.01)
    fliplr: float = Field(default=0.5, ge=0, le=1)
    flipud: float = Field(default=0.0, ge=0, le=1)
    hsv_h: float = Field(default=0.015, ge=0, le=1)
    hsv_s: float = Field(default=0.7, ge=0, le=1)
    hsv_v: float = Field(default=0.4, ge=0, le=1)
    bgr: float = Field(default=0.0, ge=0, le=1)


class LossSettings(Contract):
    """What the parts of the loss weigh."""

    box: float = Field(default=7.5, ge=0)
    cls: float = Field(default=0.5, ge=0)
    dfl: float = Field(default=1.5, ge=0)
    class_balance: float = Field(default=0.0, ge=0, le=1)


class TrainingSettings(Contract):
    """How YOLO is trained."""

    base_model: str = "yolo26m.pt"
    epochs: int = Field(default=120, ge=1)
    batch_size: int = Field(default=11, ge=1)
    gpu_memory_fraction: float | None = Field(default=None, gt=0, lt=1)
    nominal_batch_size: int = Field(default=64, ge=1)
    image_size: int = Field(default=1280, ge=32, multiple_of=32)
    save_period: int = Field(default=1, ge=-1)
    workers: int = Field(default=24, ge=0)
    patience: int = Field(default=100, ge=0)
    seed: int = Field(default=0, ge=0)
    optimizer: str = "auto"
    learning_rate: float = Field(default=0.01, gt=0)
    warmup_epochs: float = Field(default=3.0, ge=0)
    final_learning_rate: float = Field(default=0.01, gt=0, le=1)
    cosine_learning_rate: bool = False
    momentum: float = Field(default=0.937, ge=0, lt=1)
    weight_decay: float = Field(default=0.0005, ge=0, le=1)
    warmup_momentum: float = Field(default=0.8, ge=0, lt=1)
    warmup_bias_learning_rate: float = Field(default=0.1, ge=0)
    freeze: int = Field(default=0, ge=0)
    multi_scale: float = Field(default=0.0, ge=0, lt=1)
    rect: bool = False
    close_mosaic: int = Field(default=10, ge=0)
    mixed_precision: bool = True
    deterministic: bool = True
    cache: Literal["Off", "Memory", "Disk"] = "Off"
    max_hours: float | None = Field(default=None, gt=0)
    augmentation: OnlineAugmentation = OnlineAugmentation()
    loss: LossSettings = LossSettings()
    arguments: dict[str, ArgumentValue] = Field(default={})


class OnnxSettings(Contract):
    """What the exported ONNX model looks like."""

    image_size: int | None = Field(default=None, ge=32, multiple_of=32)
    dynamic_batch: bool = True
    max_batch: int = Field(default=8, ge=1)
    dynamic_image_size: bool = False
    nms: bool = True
    half: bool = False
    opset: int | None = None
    simplify: bool = True


class ParitySettings(Contract):
    """How much the export must agree with the weights on real images."""

    images: int = Field(default=16, ge=1)
    min_match_percent: float = Field(default=99, ge=0, le=100)


FurtherFormat = Literal["openvino"]
"""What a model can be exported to beside ONNX."""


class ExportSettings(Contract):
    """The export and its proof; `formats` are made of the ONNX model, and proven as it is."""

    onnx: OnnxSettings = OnnxSettings()
    formats: tuple[FurtherFormat, ...] = ()
    parity: ParitySettings = ParitySettings()


class GateSettings(Contract):
    """What a model must reach on the test split to be delivered as good.

    `max_drop_from_parent` is how much less than its parent it may have, on the same images.
    """

    metric: Literal["mAP50", "mAP50to95", "precision", "recall"] = "mAP50to95"
    minimum: float = Field(default=0.0, ge=0, le=1)
    minimum_per_class: float = Field(default=0.0, ge=0, le=1)
    max_drop_from_parent: float = Field(default=0.02, ge=0, le=1)
