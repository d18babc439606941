"""The custom resources of trainwright.dev as pydantic models: the only source of CRDs and their reference.

One module per section, one per kind. `trainwright_operator.crds` turns the kinds into CRDs.
"""

from __future__ import annotations

from trainwright_operator.api.checkpoint import (
    BucketStore,
    Checkpoint,
    CheckpointSecret,
    CheckpointStore,
    ClaimStore,
)
from trainwright_operator.api.compute import (
    ALLOWED_ENVIRONMENT,
    Compute,
    Queue,
    Resources,
    Retry,
    Toleration,
    Volume,
    VolumeClaim,
    VolumeConfigMap,
    VolumeEmptyDir,
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
from trainwright_operator.api.deadlines import Budget, Deadlines
from trainwright_operator.api.delivery import Api, Cdn, Delivery, Recipients, Sealing, SmallPart
from trainwright_operator.api.notify import Notify, SecretKey
from trainwright_operator.api.profile import (
    ClusterTrainingProfile,
    PodTemplate,
    ProfileDefaults,
    ProfileEnvironment,
    ProfileLimits,
    ProfileSpec,
    ProfileStatus,
    ProfileVersion,
    TrainingProfile,
)
from trainwright_operator.api.references import ConfigMapKey, ProfileReference, SecretReference
from trainwright_operator.api.run_settings import RunSettings
from trainwright_operator.api.run_status import (
    Attempt,
    Condition,
    CurrentPod,
    DatasetStatus,
    Failure,
    ModelStatus,
    Notice,
    PlanReference,
    ProfileSnapshot,
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
    "BucketStore",
    "Budget",
    "Cdn",
    "Checkpoint",
    "CheckpointSecret",
    "CheckpointStore",
    "ClaimSource",
    "ClaimStore",
    "Classes",
    "ClusterTrainingProfile",
    "Compute",
    "Condition",
    "ConfigMapKey",
    "CurrentPod",
    "Dataset",
    "DatasetStatus",
    "Deadlines",
    "Delivery",
    "Directories",
    "Export",
    "Failure",
    "Gate",
    "Metadata",
    "Model",
    "ModelStatus",
    "Notice",
    "Notify",
    "Observed",
    "Onnx",
    "Parity",
    "PlanReference",
    "PodTemplate",
    "ProfileDefaults",
    "ProfileEnvironment",
    "ProfileLimits",
    "ProfileReference",
    "ProfileSnapshot",
    "ProfileSpec",
    "ProfileStatus",
    "ProfileVersion",
    "Queue",
    "Recipients",
    "Resources",
    "Retry",
    "Rule",
    "RunSettings",
    "SampleSource",
    "Sealing",
    "SecretKey",
    "SecretReference",
    "Section",
    "SmallPart",
    "Source",
    "Split",
    "Toleration",
    "Training",
    "TrainingProfile",
    "TrainingRun",
    "TrainingRunSpec",
    "TrainingRunStatus",
    "Volume",
    "VolumeClaim",
    "VolumeConfigMap",
    "VolumeEmptyDir",
    "Workspace",
    "WorkspaceClaim",
    "WorkspaceEmptyDir",
]
