"""What the operator and the trainer say to each other: the plan of a run, and the report about it.

`RunPlan` goes from the operator to the trainer as an immutable ConfigMap; its defaults are Trainwright's
built-in ones. `RunReport` comes back: live in `status.trainer` of the run, and as the pod's last word in
its termination message. `ExitCode` says the same to whoever sees neither.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator
from pydantic.alias_generators import to_camel

TERMINATION_MESSAGE_BYTES = 4096
"""The kubelet keeps this much of a termination message; a report in `status.trainer` obeys it too."""


MOST_CHECKPOINTS = 5
"""So many checkpoints of a run are kept at most, and named in its report."""


class Stage(StrEnum):
    """The stages of a run, in their order."""

    DATASET = "Dataset"
    TRAINING = "Training"
    EVALUATION = "Evaluation"
    EXPORT = "Export"
    VERIFICATION = "Verification"
    SEALING = "Sealing"
    PUBLISHING = "Publishing"


class StageGroup(StrEnum):
    """Stages that one pod carries out where a run's stages are apart, in their order."""

    DATASET = "Dataset"
    TRAINING = "Training"
    DELIVERY = "Delivery"

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of this group; only those of Training ever use a GPU."""
        return _GROUP_STAGES[self]


_GROUP_STAGES = {
    StageGroup.DATASET: (Stage.DATASET,),
    StageGroup.TRAINING: (Stage.TRAINING, Stage.EVALUATION),
    StageGroup.DELIVERY: (Stage.EXPORT, Stage.VERIFICATION, Stage.SEALING, Stage.PUBLISHING),
}


class Cause(StrEnum):
    """Why an attempt ended without success; each has a retry budget of its own or none at all."""

    USER_CONFIG = "UserConfig"
    DATA = "Data"
    NAN = "NaN"
    SHM_EXHAUSTED = "ShmExhausted"
    HOST_OOM = "HostOOM"
    CUDA_OOM = "CudaOOM"
    HANG = "Hang"
    GPU_FAULT = "GpuFault"
    PREEMPTED = "Preempted"
    NODE_LOST = "NodeLost"
    STORAGE = "Storage"
    NETWORK = "Network"
    IMAGE_PULL = "ImagePull"
    UNSCHEDULABLE = "Unschedulable"
    KILLED = "Killed"
    PUBLISHING = "Publishing"
    SUPERSEDED = "Superseded"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    BUDGET_EXCEEDED = "BudgetExceeded"
    INTERNAL = "Internal"
    UNKNOWN = "Unknown"


class ExitCode(IntEnum):
    """The trainer's exit codes, each named as its cause is (the sysexits numbers where one fits)."""

    SUCCESS = 0
    USER_CONFIG = 64
    DATA = 65
    PUBLISHING = 69
    INTERNAL = 70
    HOST_OOM = 71
    CUDA_OOM = 72
    SHM_EXHAUSTED = 73
    STORAGE = 74
    NETWORK = 75
    PREEMPTED = 76
    SUPERSEDED = 77
    GPU_FAULT = 78
    NAN = 79


class Outcome(StrEnum):
    """How an execution ended."""

    SUCCEEDED = "Succeeded"
    DRY_RUN = "DryRun"
    GROUP_DONE = "GroupDone"  # the stages of one group are done, and another group follows in another pod
    FAILED = "Failed"


class Contract(BaseModel):
    """Base of all contract values: camelCase in JSON, immutable, unknown fields refused."""

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, extra="forbid", frozen=True
    )


# --- the plan ---------------------------------------------------------------------------------------


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
    arguments: dict[str, ArgumentValue] = {}


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


class RunPlan(Contract):
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

    # The text this plan was read from: a later release with more fields would write another one.
    _text: str | None = PrivateAttr(default=None)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a plan; its digest stays that of the text it was written as, whatever release reads it."""
        plan = cls.model_validate_json(text)
        plan._text = text
        return plan

    def to_json(self) -> str:
        """Return the text it was read from, else the canonical JSON: the same plan gives the same bytes."""
        if self._text is not None:
            return self._text
        return json.dumps(self.model_dump(mode="json", by_alias=True), sort_keys=True, separators=(",", ":"))

    @property
    def digest(self) -> str:
        """`sha256:` and the hex digest of the JSON text."""
        return "sha256:" + hashlib.sha256(self.to_json().encode()).hexdigest()

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


# --- the report -------------------------------------------------------------------------------------
# Its bounds are those of the CRD: the API server refuses a status that breaks one, so neither side may.

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Metrics = Annotated[dict[str, float], Field(max_length=32)]


class Progress(Contract):
    """How far the execution is: percent of the whole, and where it stands."""

    percent: int = Field(ge=0, le=100, description="Percent of the whole execution.")
    stage: Stage = Field(description="The stage that is being carried out.")
    epoch: int | None = Field(default=None, description="Epochs trained.")
    epochs: int | None = Field(default=None, description="Epochs to train in all.")
    estimated_remaining_seconds: int | None = Field(
        default=None, description="Seconds until training ends, as it looks now."
    )
    step: int | None = Field(
        default=None,
        ge=0,
        description="Steps made by this execution in all: batches, images read, pieces sent. It only grows.",
    )
    step_time: datetime | None = Field(default=None, description="When the last step was made.")


class CheckpointReport(Contract):
    """The newest verified checkpoint: another attempt goes on from there."""

    epoch: int = Field(ge=0, description="Epochs that the checkpoint has behind it.")
    time: datetime = Field(description="When it was complete and verified.")
    save_seconds: float = Field(ge=0, description="Seconds it took to save it, and to upload the last one.")
    digest: Digest = Field(description="Digest of its manifest, which names the digests of its files.")
    stored_epoch: int | None = Field(
        default=None,
        ge=0,
        description="Epoch of the newest one in the checkpoint store, if there is one.",
    )
    problem: str = Field(
        default="", max_length=256, description="Why newer ones are not in the store; uploads are repeated."
    )
    earlier: Annotated[tuple[Digest, ...], Field(max_length=MOST_CHECKPOINTS)] = Field(
        default=(), description="Digests of the kept ones before it, the newest first."
    )


class ImageCounts(Contract):
    """Images in each split."""

    train: int = Field(ge=0, description="Images to train on.")
    valid: int = Field(ge=0, description="Images to choose the best epoch by.")
    test: int = Field(ge=0, description="Images to measure the finished model on.")


class DatasetReport(Contract):
    """The dataset the model was trained on."""

    digest: Digest = Field(description="The same digest, the same images and labels.")
    images: ImageCounts
    quarantined: int = Field(ge=0, description="Annotations left out: unreadable or malformed.")
    classes: int = Field(ge=0, description="How many classes the labels have.")


class PartReport(Contract):
    """One part of a sealed model, as it lies on its server."""

    name: str = Field(max_length=255, description="Name of the object on its server.")
    size: int = Field(ge=0, description="Size in bytes.")
    digest: Digest = Field(description="Digest of the part's bytes.")


class PartsReport(Contract):
    """Both parts."""

    small: PartReport
    big: PartReport


class ModelReport(Contract):
    """The model: `digest` is that of the plain ONNX file."""

    name: str = Field(max_length=256, description="Name of the model.")
    version: str = Field(max_length=256, description="Version of the model.")
    digest: Digest = Field(description="Digest of the plain ONNX file.")
    size: int = Field(ge=0, description="Size of the plain ONNX file, in bytes.")
    parts: PartsReport | None = None


class PublishingReport(Contract):
    """What is about to be committed: the operator's fence sees it before the small part is uploaded."""

    file_id: str = Field(max_length=64, description="The id that both parts of the sealed model carry.")


class PromotionReport(Contract):
    """Whether the published version became the newest of its name, and what the gate said."""

    promoted: bool = Field(description="Whether the model's name and tag lead to this version.")
    reason: str = Field(max_length=256, description="What the gate found.")


class FailureReport(Contract):
    """Why the execution ended, in words a user can act on."""

    stage: Stage | None = Field(default=None, description="The stage it ended in.")
    cause: Cause = Field(description="What kind of failure it is.")
    exit_code: int = Field(description="The exit code the pod ends with.")
    message: str = Field(max_length=2048, description="What went wrong.")
    hint: str = Field(default="", max_length=1024, description="What can be done about it.")
    log_tail: str = Field(default="", max_length=4096, description="The last lines of the log.")


class Adjustments(Contract):
    """How an attempt differs from the plan, for what an earlier one failed by; nothing where it does not."""

    batch_size: int | None = Field(default=None, ge=1, description="Images in a batch.")
    workers: int | None = Field(
        default=None,
        ge=0,
        description="Processes that load images, of the plan's; where there are fewer CPUs, the same part of"
        " those.",
    )
    shared_memory: Annotated[str, Field(max_length=32)] | None = Field(
        default=None, description="Size of /dev/shm."
    )


class RunReport(Contract):
    """What one pod says of itself; at most `TERMINATION_MESSAGE_BYTES` of JSON."""

    attempt: int = Field(ge=1, description="Number of the attempt that reports.")
    group: StageGroup | None = Field(
        default=None, description="The stages this pod carries out; empty where one pod does all of them."
    )
    sequence: int = Field(default=0, ge=0, description="Grows with every report of a pod.")
    heartbeat_time: datetime = Field(description="When the report was made.")
    progress: Progress
    finished_stages: dict[Stage, float] = Field(default={}, description="Seconds each finished stage took.")
    resumed_from_epoch: int | None = Field(
        default=None, ge=0, description="The epoch whose checkpoint the execution went on from."
    )
    checkpoint: CheckpointReport | None = None
    stage_time: datetime | None = Field(
        default=None, description="When the last stage was finished: another attempt does not repeat it."
    )
    adjustments: Adjustments | None = None
    metrics: Metrics = Field(default={}, description="mAP50, mAP50to95, precision, recall: as last measured.")
    dataset: DatasetReport | None = None
    model: ModelReport | None = None
    publishing: PublishingReport | None = None
    promotion: PromotionReport | None = None
    outcome: Outcome | None = Field(default=None, description="How it ended; empty while it runs.")
    failure: FailureReport | None = None

    def to_json(self) -> str:
        """Return compact JSON of at most `TERMINATION_MESSAGE_BYTES`; the log tail gives way first."""
        text = self._dump()
        if len(text.encode()) <= TERMINATION_MESSAGE_BYTES or self.failure is None:
            return text
        report = self
        for field, keep in (("log_tail", 1024), ("log_tail", 0), ("message", 512), ("hint", 256)):
            shortened = getattr(report.failure, field)[-keep:] if keep else ""
            failure = self.failure if report.failure is None else report.failure
            report = report.model_copy(update={"failure": failure.model_copy(update={field: shortened})})
            if len(report._dump().encode()) <= TERMINATION_MESSAGE_BYTES:
                break
        return report._dump()

    def _dump(self) -> str:
        return self.model_dump_json(by_alias=True, exclude_none=True)
