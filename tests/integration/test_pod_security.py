"""Pods of every kind of run in a namespace that enforces the restricted Pod Security level."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from builders import RunBuilder

from trainwright.contract import StageGroup
from trainwright_operator.api import ProfileSpec
from trainwright_operator.manifests import attempt_job, trainer_access
from trainwright_operator.names import JobKey
from trainwright_operator.plan import merge_spec, resolve_plan
from trainwright_operator.settings import OperatorSettings, TrainerSettings
from trainwright_operator.snapshot import take_snapshot

if TYPE_CHECKING:
    from kubernetes import client

Object = dict[str, Any]

CLAIM = {"dataset": {"source": {"persistentVolumeClaim": {"claimName": "annotations"}}}}
VOLUMES = [
    {"name": "models", "mountPath": "/mnt/models", "persistentVolumeClaim": {"claimName": "models"}},
    {"name": "maps", "mountPath": "/mnt/maps", "configMap": {"name": "maps"}},
    {"name": "scratch", "mountPath": "/mnt/scratch", "emptyDir": {"sizeLimit": "1Gi"}},
]
AFFINITY = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}]
        }
    }
}
HELPER = {
    "name": "exporter",
    "image": "registry.example/exporter:1",
    "restartPolicy": "Always",
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    },
    "volumeMounts": [{"name": "workspace", "mountPath": "/workspace", "readOnly": True}],
}

RUNS: dict[str, Object] = {
    "generated shapes": {},
    "a claim as the source": CLAIM,
    "an emptyDir as the workspace": {"compute": {"workspace": {"emptyDir": {"sizeLimit": "1Gi"}}}},
    "a dry run": {"dryRun": True},
    "no gpu": {"compute": {"gpus": 0}},
    "a gpu of another name": {"compute": {"gpus": 1, "gpuResource": "amd.com/gpu"}},
    "all of compute": {
        "compute": {
            "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "4Gi", "cpu": "2"}},
            "sharedMemory": "1Gi",
            "nodeSelector": {"gpu": "a100"},
            "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "affinity": AFFINITY,
            "runtimeClassName": "nvidia",
            "schedulerName": "bin-packing",
            "imagePullSecrets": [{"name": "registry"}],
            "environment": {"OMP_NUM_THREADS": "4"},
            "labels": {"team": "vision"},
            "annotations": {"example.com/team": "vision"},
            "volumes": VOLUMES,
        }
    },
}

PATCHES: dict[str, Object] = {
    "no patch": {},
    "a patch": {
        "spec": {
            "hostname": "trainer",
            "initContainers": [HELPER],
            "securityContext": {"runAsUser": 1000, "supplementalGroups": [2000]},
        }
    },
}


@pytest.fixture
def restricted(kube: client.ApiClient, namespace: str) -> Iterator[str]:
    """A namespace that admits no pod below the restricted level, with the trainers' account."""
    from kubernetes import client

    core = client.CoreV1Api(kube)
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    core.patch_namespace(namespace, {"metadata": {"labels": labels}})
    account, _ = trainer_access(namespace)
    core.create_namespaced_service_account(namespace, account)
    client.NodeV1Api(kube).create_runtime_class({"metadata": {"name": "nvidia"}, "handler": "nvidia"})
    yield namespace
    client.NodeV1Api(kube).delete_runtime_class("nvidia")


def make_pods(namespace: str, spec: Object, patch: Object) -> Iterator[tuple[str, Object]]:
    """Yield the pods of a run: the one that does all stages, or that of each group of stages."""
    run = RunBuilder(namespace=namespace).spec(**spec).delivering().build()
    profile = {"versions": [{"name": "v1", "image": "registry.example/trainer:1", "default": True}]}
    settings = OperatorSettings(trainer=TrainerSettings(image="registry.example/trainer:0"))
    profile_spec = ProfileSpec.model_validate({**profile, "podTemplate": patch})
    snapshot = take_snapshot(settings, "TrainingProfile", "any", profile_spec, "v1")
    effective = merge_spec(snapshot.defaults, run["spec"])
    plan = resolve_plan(run, effective, None).plan
    assert plan is not None
    for group in (None, *StageGroup):
        template = attempt_job(run, effective, plan, snapshot, JobKey(1, group))["spec"]["template"]
        name = f"trainer-{str(group or 'all').lower()}"
        pod = template | {"metadata": template["metadata"] | {"name": name}}
        yield name, {"apiVersion": "v1", "kind": "Pod", **pod}


def test_every_pod_of_every_kind_of_run_is_admitted(kube: client.ApiClient, restricted: str) -> None:
    from kubernetes import client

    core = client.CoreV1Api(kube)
    refused = []
    for kind, spec in RUNS.items():
        for how, patch in PATCHES.items():
            for name, pod in make_pods(restricted, spec, patch):
                try:
                    core.create_namespaced_pod(restricted, pod, dry_run="All", field_validation="Strict")
                except client.ApiException as error:
                    refused.append(f"{kind}, {how}, {name}: {error.body}")
    assert refused == []


def test_a_pod_that_is_less_restricted_would_be_refused(kube: client.ApiClient, restricted: str) -> None:
    from kubernetes import client

    _, pod = next(make_pods(restricted, {}, {}))
    del pod["spec"]["securityContext"]["seccompProfile"]
    with pytest.raises(client.ApiException, match="violates PodSecurity"):
        client.CoreV1Api(kube).create_namespaced_pod(restricted, pod, dry_run="All")
