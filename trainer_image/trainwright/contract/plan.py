"""The plan of a run: everything one execution needs, from the operator to the trainer."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from trainwright.contract.words import MOST_CHECKPOINTS, Contract, Document, Stage


class RunIdentity(Contract):
    """Which run this is; the uid tells two runs of one name apart."""

    name: str
    namespace: str = "default"
    uid: str = ""


class ModelSettings(Contract):
    """What the trained model is called."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")
    version: str = Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")
    # A tag names a pointer beside those of the versions, which begin with a digit in a cluster.
    tag: str | None = Field(default=None, max_length=63, pattern=r"^[a-z]([a-z0-9._-]*[a-z0-9])?$")
    description: str = ""

    @model_validator(mode="after")
    def _tag_is_no_version(self) -> Self:
        if self.tag == self.version:
            raise ValueError(f"tag is {self.tag!r}, which is the version: the one would hide the other")
        return self


class FolderSource(Contract):
    """A tree of annotations, as a path below the data folder of the execution."""

    path: str = "."


class SampleSource(Contract):
    """Generated shapes; image i of seed s is always the same, and no two indexes share a seed."""

    images: int = Field(default=320, ge=10)
    image_size: int = Field(default=160, ge=32, le=2048)
    seed: int = Field(default=0, ge=0)


class DatasetSource(Contract):
    """Where annotations come from: exactly one member is set."""

    folder: FolderSource | None = None
    sample: SampleSource | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.folder is None) == (self.sample is None):
            raise ValueError("set exactly one of folder, sample")
        return self


class Directories(Contract):
    """The three trees below the source's root."""

    data: str = "data"
    seed: str = "data-seed"
    deleted: str = "data_deleted"


class ClassesSettings(Contract):
    """The class map: names in the order of their ids, or a file of the source."""

    inline: tuple[str, ...] | None = None
    from_source: str | None = "classes.json"


class SplitSettings(Contract):
    """Percentages of the split, their seed, and what may never be on both sides of it."""

    train: int = Field(default=70, ge=1, le=100)
    valid: int = Field(default=20, ge=1, le=100)
    test: int = Field(default=10, ge=1, le=100)
    seed: int = 0
    group_by: Literal["media", "image"] = "media"

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.train + self.valid + self.test != 100:
            raise ValueError(f"train + valid + test is {self.train + self.valid + self.test}, not 100")
        return self


class DatasetSettings(Contract):
    """How the dataset is built from the annotations."""

    source: DatasetSource
    directories: Directories = Directories()
    classes: ClassesSettings = ClassesSettings()
    include_seed: bool = False
    split: SplitSettings = SplitSettings()
    max_corrupt_percent: float = Field(default=5, ge=0, le=100)


ArgumentValue = bool | int | float | str


class TrainingSettings(Contract):
    """How YOLO is trained."""

    base_model: str = "yolo26m.pt"
    epochs: int = Field(default=120, ge=1)
    batch_size: int = Field(default=11, ge=1)
    image_size: int = Field(default=1280, ge=32, multiple_of=32)
    save_period: int = Field(default=1, ge=-1)
    workers: int = Field(default=24, ge=0)
    patience: int = Field(default=100, ge=0)
    seed: int = Field(default=0, ge=0)
    optimizer: str = "auto"
    learning_rate: float = Field(default=0.01, gt=0)
    warmup_epochs: float = Field(default=3.0, ge=0)
    close_mosaic: int = Field(default=10, ge=0)
    mixed_precision: bool = True
    arguments: dict[str, ArgumentValue] = Field(default={})


class OnnxSettings(Contract):
    """What the exported ONNX model looks like."""

    image_size: int | None = Field(default=None, ge=32, multiple_of=32)
    dynamic_batch: bool = True
    max_batch: int = Field(default=8, ge=1)
    nms: bool = True
    half: bool = False
    opset: int | None = None
    simplify: bool = True


class ParitySettings(Contract):
    """How much the export must agree with the weights on real images."""

    images: int = Field(default=16, ge=1)
    min_match_percent: float = Field(default=99, ge=0, le=100)


class ExportSettings(Contract):
    """The export and its proof."""

    onnx: OnnxSettings = OnnxSettings()
    parity: ParitySettings = ParitySettings()


class GateSettings(Contract):
    """What a model must reach on the test split to be delivered as good."""

    metric: Literal["mAP50", "mAP50to95", "precision", "recall"] = "mAP50to95"
    minimum: float = Field(default=0.0, ge=0, le=1)


class SmallPartSettings(Contract):
    """How much of a sealed model the small part holds: max(minKiB, percent of the whole)."""

    percent: int = Field(default=20, ge=0, le=90)
    min_ki_b: int = Field(default=3, ge=1, alias="minKiB")


class SealingSettings(Contract):
    """How the model is sealed; keys come as files, never in the plan."""

    format: Literal["trainwright-v1"] = "trainwright-v1"
    small_part: SmallPartSettings = SmallPartSettings()


class ApiSettings(Contract):
    """The REST side, which keeps the small part and the pointer."""

    url: str = Field(pattern=r"^https?://[^\s/]+")


class DeliverySettings(Contract):
    """Where the parts go. Credentials come as files, never in the plan."""

    folder: str = Field(default="models", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    bucket: str = Field(default="models", pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    api: ApiSettings
    sealing: SealingSettings = SealingSettings()


class BucketStore(Contract):
    """A bucket for checkpoints, reached through the S3 API; its key pair comes as files."""

    endpoint: str = Field(pattern=r"^https?://[^\s/]+")
    bucket: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    prefix: str = Field(default="", max_length=256, pattern=r"^([A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*)?$")
    region: str = "us-east-1"


class FolderStore(Contract):
    """A folder for checkpoints, as a path below the checkpoint folder of the execution."""

    path: str = "."


class CheckpointStoreSettings(Contract):
    """Where checkpoints are kept beside the workspace: exactly one member is set."""

    s3: BucketStore | None = None
    folder: FolderStore | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.s3 is None) == (self.folder is None):
            raise ValueError("set exactly one of s3, folder")
        return self


class CheckpointSettings(Contract):
    """How often a checkpoint is saved (by default as training.savePeriod says), how many stay, and where."""

    every_epochs: int | None = Field(default=None, ge=1)
    keep: int = Field(default=2, ge=1, le=MOST_CHECKPOINTS)
    store: CheckpointStoreSettings | None = None


class RunPlan(Document):
    """Everything one execution needs but its places on disk and its credentials; immutable.

    Without `delivery` the execution ends when the model is verified.
    """

    plan_version: Literal["v1"] = "v1"
    run: RunIdentity
    model: ModelSettings
    dataset: DatasetSettings
    training: TrainingSettings = TrainingSettings()
    export: ExportSettings = ExportSettings()
    gate: GateSettings = GateSettings()
    delivery: DeliverySettings | None = None
    checkpoint: CheckpointSettings = CheckpointSettings()
    gpus: int = Field(default=0, ge=0)
    dry_run: bool = False

    @property
    def export_image_size(self) -> int:
        """The side of the exported model's input: that of the training unless set."""
        return self.export.onnx.image_size or self.training.image_size

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages this plan goes through."""
        if self.dry_run:
            return (Stage.DATASET,)
        if self.delivery is None:
            return tuple(stage for stage in Stage if stage not in (Stage.SEALING, Stage.PUBLISHING))
        return tuple(Stage)
