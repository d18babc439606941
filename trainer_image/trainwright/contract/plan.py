"""The plan of a run: everything one execution needs, from the operator to the trainer."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainwright.contract.dataset import DatasetSettings
from trainwright.contract.delivery import CheckpointSettings, DeliverySettings
from trainwright.contract.training import ExportSettings, GateSettings, TrainingSettings
from trainwright.contract.words import Contract, Document, Stage


class RunIdentity(Contract):
    """Which run this is; the uid tells two runs of one name apart."""

    name: str
    namespace: str = "default"
    uid: str = ""


BUNDLE_SUFFIX = ".bundle"
"""What the version of a model's training bundle ends in: it is published as a version of its own."""

ModelName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]
ModelVersionName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")]


class ParentSettings(Contract):
    """The published version that a training starts from, in place of `training.baseModel`."""

    model: ModelName
    version: ModelVersionName

    def __str__(self) -> str:
        return f"{self.model}-{self.version}"


class ModelSettings(Contract):
    """What the trained model is called, and which version it is made from."""

    name: ModelName
    version: ModelVersionName
    # A tag names a pointer beside those of the versions, which begin with a digit in a cluster.
    tag: str | None = Field(default=None, max_length=63, pattern=r"^[a-z]([a-z0-9._-]*[a-z0-9])?$")
    description: str = ""
    parent: ParentSettings | None = None

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        if self.tag == self.version:
            raise ValueError(f"tag is {self.tag!r}, which is the version: the one would hide the other")
        taken = [name for name in (self.version, self.tag) if name and name.endswith(BUNDLE_SUFFIX)]
        if taken:
            raise ValueError(f"{taken[0]!r} ends in {BUNDLE_SUFFIX!r}, which is for training bundles")
        return self


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

    @model_validator(mode="after")
    def _parent_can_be_fetched(self) -> Self:
        if self.model.parent and self.delivery is None and not self.dry_run:
            raise ValueError("model.parent needs delivery: the parent is where models are delivered to")
        return self

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
