"""The words both sides use: stages, causes, exit codes, outcomes; and what all values share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, PrivateAttr
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


class Document(Contract):
    """Base of what is written once and kept by the digest of its text, whatever release reads it later."""

    # The text it was read from, as a later release with more fields would write another; or else the one it
    # was written as: both it and its digest are asked for again and again.
    _text: str | None = PrivateAttr(default=None)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a document; its digest stays that of the text it was written as."""
        document = cls.model_validate_json(text)
        document._text = text
        return document

    def to_json(self) -> str:
        """Return the text it was read from, else the canonical JSON: the same values give the same bytes."""
        if self._text is None:
            body = self.model_dump(mode="json", by_alias=True)
            self._text = json.dumps(body, sort_keys=True, separators=(",", ":"))
        return self._text

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy; one with changes has a text, and so a digest, of its own."""
        copy = super().model_copy(update=update, deep=deep)
        if update:
            copy._text = None
        return copy

    @property
    def digest(self) -> str:
        """`sha256:` and the hex digest of the JSON text."""
        return digest_of(self.to_json())


def digest_of(text: str) -> str:
    """Return `sha256:` and the hex digest of a text."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
