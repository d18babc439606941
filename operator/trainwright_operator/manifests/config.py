"""The plan and the workspace: the children that outlive an attempt."""

from __future__ import annotations

from typing import Any

from trainwright.contract import RunPlan
from trainwright_operator.api import TrainingRunSpec
from trainwright_operator.manifests.ownership import child_metadata
from trainwright_operator.names import plan_name, workspace_name
from trainwright_operator.snapshot import SNAPSHOT_KEY, Snapshot

Object = dict[str, Any]

PLAN_KEY = "plan.json"
WORKSPACE_SIZE = "20Gi"


def plan_config_map(run: Object, plan: RunPlan, snapshot: Snapshot) -> Object:
    """Return the immutable ConfigMap that holds the plan, and the snapshot it was made of."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": child_metadata(run, plan_name(run["metadata"]["name"]), plan.digest),
        "immutable": True,
        "data": {PLAN_KEY: plan.to_json(), SNAPSHOT_KEY: snapshot.to_json()},
    }


def shared_children(run: Object, spec: TrainingRunSpec, plan: RunPlan, snapshot: Snapshot) -> list[Object]:
    """Return what all attempts of a run share."""
    bodies = [plan_config_map(run, plan, snapshot), workspace_claim(run, spec, plan)]
    return [body for body in bodies if body is not None]


def workspace_claim(run: Object, spec: TrainingRunSpec, plan: RunPlan) -> Object | None:
    """Return the claim that keeps the workspace between attempts, or None where the run chose an emptyDir."""
    workspace = spec.compute.workspace if spec.compute else None
    if workspace and workspace.empty_dir:
        return None
    claim = workspace.persistent_volume_claim if workspace else None
    size = (claim and claim.size) or WORKSPACE_SIZE
    body: Object = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": size}},
    }
    if claim and claim.storage_class_name:
        body["storageClassName"] = claim.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": child_metadata(run, workspace_name(run["metadata"]["name"]), plan.digest),
        "spec": body,
    }
