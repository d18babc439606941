"""TrainingRun: one training, from annotations to a published sealed model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from trainwright_operator.api.dataset import Dataset
from trainwright_operator.api.delivery import Delivery
from trainwright_operator.api.notify import Notify
from trainwright_operator.api.references import ProfileReference
from trainwright_operator.api.run_settings import RunSettings
from trainwright_operator.api.run_status import TrainingRunStatus
from trainwright_operator.api.section import Observed, Rule, Section, ShortText

MUTABLE = (
    "suspend",
    "cancel",
    "retryRequest",
    "deadlines",
    "budget",
    "ttlSecondsAfterFinished",
    "notify",
)
"""The fields of a run's spec that may change; everything else says what was trained."""


class Model(Section):
    """What the trained model is called. Models are versions of a name."""

    name: Annotated[str, Field(max_length=40, pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")] = Field(
        description="Name of the model: at most 40 lower-case letters, digits and '-'."
    )
    tag: Annotated[str, Field(max_length=63, pattern=r"^[a-z]([a-z0-9._-]*[a-z0-9])?$")] | None = Field(
        default=None,
        description="A word that stands for the newest version it was given to, such as nightly:"
        " `trainwright fetch NAME@nightly`. It moves to this version when the model passes its gate.",
    )
    description: Annotated[str, Field(max_length=1024)] | None = Field(
        default=None, description="What people should know about the model."
    )
    parent: Annotated[str, Field(max_length=104, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")] | None = Field(
        default=None,
        description="The published version to start from, as MODEL-VERSION: its weights take the place of"
        " training.baseModel. It needs a training bundle, and spec.delivery.bundle the key to open it.",
    )


class TrainingRunSpec(RunSettings):
    """What is trained, on what, how, and where it goes.

    A field that is left out takes its value from the profile, else from the operator's settings, else its
    built-in default. After creation only suspend, cancel, retryRequest, deadlines, budget,
    ttlSecondsAfterFinished and notify can change.
    """

    suspend: bool | None = Field(
        default=None,
        description="Whether the run is stopped for now: its pod is asked to save and end, and goes on from"
        " its checkpoint when this is false again. Default: false.",
    )
    cancel: bool | None = Field(
        default=None, description="End the run for good. It can't be taken back. Default: false."
    )
    dry_run: bool | None = Field(
        default=None,
        description="Check everything and build the dataset, but train and publish nothing. Default: false.",
    )
    retry_request: ShortText | None = Field(
        default=None,
        description="Any text. A failed run whose text is changed gets one more attempt, which starts at the"
        " first stage that is not done.",
    )
    profile: ProfileReference | None = None
    model: Model
    dataset: Dataset
    delivery: Delivery | None = None
    notify: Annotated[tuple[Notify, ...], Field(max_length=4)] | None = Field(
        default=None,
        description="Who is told what becomes of the run. An address that is added later is told of the phase"
        " the run is in by then.",
    )


def _unchanged(field: str) -> str:
    return (
        f"has(self.{field}) == has(oldSelf.{field})"
        f" && (!has(self.{field}) || self.{field} == oldSelf.{field})"
    )


TrainingRunSpec.rules = (
    *(
        Rule(
            _unchanged(str(field.alias)),
            f"spec.{field.alias} can't be changed: a run is a record of what was trained"
            f" (only {', '.join(MUTABLE)} may change). Create a new run instead",
        )
        for field in TrainingRunSpec.model_fields.values()
        if field.alias not in MUTABLE
    ),
    Rule(
        "!has(oldSelf.cancel) || !oldSelf.cancel || (has(self.cancel) && self.cancel)",
        "spec.cancel can't be taken back: create a new run instead",
    ),
)


class Metadata(Observed):
    """What the operator reads of an object's metadata."""

    name: str
    namespace: str
    uid: str = ""
    generation: int = 0


class TrainingRun(Section):
    """One training, from annotations to a published sealed model. It is a record: it never deletes itself."""

    model_config = ConfigDict(extra="ignore")

    api_version: Literal["trainwright.dev/v1alpha1"] = "trainwright.dev/v1alpha1"
    kind: Literal["TrainingRun"] = "TrainingRun"
    metadata: Metadata
    spec: TrainingRunSpec
    status: TrainingRunStatus | None = None

    rules = (
        Rule(
            "size(self.metadata.name) <= 40 && !self.metadata.name.contains('.')",
            "metadata.name must be at most 40 characters, without '.': Jobs and pods are named after it",
        ),
    )
