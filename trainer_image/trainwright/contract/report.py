"""The report about an execution, from the trainer to the operator.

Its bounds are those of the CRD: the API server refuses a status that breaks one, so neither side may.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, Field, FiniteFloat

from trainwright.contract.words import (
    MOST_CHECKPOINTS,
    TERMINATION_MESSAGE_BYTES,
    Cause,
    Contract,
    Outcome,
    Stage,
    StageGroup,
)

# Its bounds are those of the CRD: the API server refuses a status that breaks one, so neither side may.

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Metrics = Annotated[dict[str, FiniteFloat], Field(max_length=32)]


class Progress(Contract):
    """How far the execution is: percent of the whole, and where it stands."""

    percent: int = Field(ge=0, le=100, description="Percent of the whole execution.")
    stage: Stage = Field(description="The stage that is being carried out.")
    epoch: int | None = Field(default=None, description="Epochs trained.")
    epochs: int | None = Field(default=None, description="Epochs to train in all.")
    batch: int | None = Field(default=None, ge=0, description="Batches trained of the epoch that runs.")
    batches: int | None = Field(default=None, ge=1, description="Batches of an epoch.")
    estimated_remaining_seconds: int | None = Field(
        default=None, description="Seconds until training ends, as it looks now."
    )
    step: int | None = Field(
        default=None,
        ge=0,
        description="Steps made by this execution in all: batches, images read, pieces sent. It only grows.",
    )
    step_time: AwareDatetime | None = Field(default=None, description="When the last step was made.")


class CheckpointReport(Contract):
    """The newest verified checkpoint: another attempt goes on from there."""

    epoch: int = Field(ge=0, description="Epochs that the checkpoint has behind it.")
    time: AwareDatetime = Field(description="When it was complete and verified.")
    save_seconds: FiniteFloat = Field(
        ge=0, description="Seconds it took to save it, and to upload the last one."
    )
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
    copies: int = Field(default=0, ge=0, description="Altered copies of training images, beside them.")
    quarantined: int = Field(ge=0, description="Annotations left out: unreadable or malformed.")
    classes: int = Field(ge=0, description="How many classes the labels have.")
    stream_offset: int | None = Field(
        default=None, ge=0, description="The annotation stream is in it up to this offset."
    )


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


class ReportFile(Contract):
    """The report of the run: a page in its workspace, which needs nothing else to be read."""

    path: str = Field(max_length=256, description="Where it is, below the run's workspace.")
    digest: Digest = Field(description="Digest of the page.")
    size: int = Field(ge=0, description="Size in bytes.")


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
    heartbeat_time: AwareDatetime = Field(description="When the report was made.")
    progress: Progress
    finished_stages: dict[Stage, FiniteFloat] = Field(
        default={}, description="Seconds each finished stage took."
    )
    resumed_from_epoch: int | None = Field(
        default=None, ge=0, description="The epoch whose checkpoint the execution went on from."
    )
    checkpoint: CheckpointReport | None = None
    stage_time: AwareDatetime | None = Field(
        default=None, description="When the last stage was finished: another attempt does not repeat it."
    )
    adjustments: Adjustments | None = None
    metrics: Metrics = Field(default={}, description="mAP50, mAP50to95, precision, recall: as last measured.")
    dataset: DatasetReport | None = None
    model: ModelReport | None = None
    publishing: PublishingReport | None = None
    promotion: PromotionReport | None = None
    report: ReportFile | None = None
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
