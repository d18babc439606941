"""`delivery` and `checkpoint` of a plan: where models go, and checkpoints."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from trainwright.contract.words import MOST_CHECKPOINTS, Contract


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
    """Where the parts go. Credentials come as files, never in the plan.

    With `bundle` each version gets a training bundle beside it, for recipients of its own: from that a later
    run can train it further.
    """

    folder: str = Field(default="models", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    bucket: str = Field(default="models", pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    api: ApiSettings
    sealing: SealingSettings = SealingSettings()
    bundle: bool | None = None  # a run has a section of that name, so there is no default to tell


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
