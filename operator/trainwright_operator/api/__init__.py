"""The custom resources of trainwright.dev as pydantic models: the only source of CRDs and their reference.

One module per section, one per kind. `trainwright_operator.crds` turns the kinds into CRDs.
"""

from __future__ import annotations

from trainwright_operator.api.compute import (
    ALLOWED_ENVIRONMENT,
    Compute,
    Queue,
    Resources,
    Retry,
    Toleration,
    Workspace,
    WorkspaceClaim,
    WorkspaceEmptyDir,
)
from trainwright_operator.api.dataset import (
    ClaimSource,
    Classes,
    Dataset,
    Directories,
    SampleSource,
    Source,
    Split,
)
from trainwright_operator.api.delivery import Api, Cdn, Delivery, Recipients, Sealing, SmallPart
from trainwright_operator.api.references import ConfigMapKey, SecretReference
from trainwright_operator.api.run_status import (
    Attempt,
    Condition,
    CurrentPod,
    DatasetStatus,
    Failure,
    ModelStatus,
    PlanReference,
    TrainingRunStatus,
)
from trainwright_operator.api.section import Observed, Rule, Section
from trainwright_operator.api.training import Export, Gate, Onnx, Parity, Training
from trainwright_operator.api.trainingrun import MUTABLE, Metadata, Model, TrainingRun, TrainingRunSpec

__all__ = [
    "ALLOWED_ENVIRONMENT",
    "MUTABLE",
    "Api",
    "Attempt",
    "Cdn",
    "ClaimSource",
    "Classes",
    "Compute",
    "Condition",
    "ConfigMapKey",
    "CurrentPod",
    "Dataset",
    "DatasetStatus",
    "Delivery",
    "Directories",
    "Export",
    "Failure",
    "Gate",
    "Metadata",
    "Model",
    "ModelStatus",
    "Observed",
    "Onnx",
    "Parity",
    "PlanReference",
    "Queue",
    "Recipients",
    "Resources",
    "Retry",
    "Rule",
    "SampleSource",
    "Sealing",
    "SecretReference",
    "Section",
    "SmallPart",
    "Source",
    "Split",
    "Toleration",
    "Training",
    "TrainingRun",
    "TrainingRunSpec",
    "TrainingRunStatus",
    "Workspace",
    "WorkspaceClaim",
    "WorkspaceEmptyDir",
]
