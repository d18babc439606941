"""Child objects of a run, built without I/O: values in, JSON out."""

from trainwright_operator.manifests.access import trainer_access
from trainwright_operator.manifests.config import plan_config_map, workspace_claim
from trainwright_operator.manifests.job import attempt_job

__all__ = ["attempt_job", "plan_config_map", "trainer_access", "workspace_claim"]
