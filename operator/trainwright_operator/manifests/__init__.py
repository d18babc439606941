"""Child objects of a run, built without I/O: values in, JSON out."""

from trainwright_operator.manifests.access import trainer_access
from trainwright_operator.manifests.config import plan_config_map, shared_children, workspace_claim
from trainwright_operator.manifests.job import attempt_job
from trainwright_operator.manifests.pod_patch import PatchRefusedError

__all__ = [
    "PatchRefusedError",
    "attempt_job",
    "plan_config_map",
    "shared_children",
    "trainer_access",
    "workspace_claim",
]
