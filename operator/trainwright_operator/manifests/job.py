"""One attempt of a run as a batch/v1 Job.

Every path the trainer uses is an argument, so the pod's specification tells all there is to know.
"""

from __future__ import annotations

import copy
from math import ceil
from typing import Any

from pydantic import BaseModel

from trainwright.contract import Adjustments, RunPlan
from trainwright_operator.api import Compute, TrainingRunSpec
from trainwright_operator.manifests.ownership import child_labels, child_metadata
from trainwright_operator.manifests.pod_patch import patch_pod
from trainwright_operator.manifests.volumes import Mount, pod_mounts
from trainwright_operator.names import (
    ADJUSTMENTS_ANNOTATION,
    ATTEMPT_LABEL,
    GPUS_ANNOTATION,
    GROUP_LABEL,
    QUEUE_LABEL,
    QUEUE_PRIORITY_LABEL,
    RETRY_REQUEST_ANNOTATION,
    TRAINER_ACCOUNT,
    TRAINER_CONTAINER,
    JobKey,
    job_name,
)
from trainwright_operator.snapshot import Snapshot

Object = dict[str, Any]

UNCHANGED = Adjustments()
USER = 65532  # the image's user; volumes are made readable by its group
GRACE_SECONDS = 120  # between SIGTERM and SIGKILL, until it is known how long a checkpoint takes
GRACE_BOUNDS = (60, 1800)
GRACE_BESIDE_SAVING = 60  # to end a batch, and to report
GPU_RESOURCE = "nvidia.com/gpu"
CPU_RESOURCES = {"requests": {"cpu": "1", "memory": "2Gi"}}  # of a pod that does not train
TERMINATION_MESSAGE = "/dev/termination-log"
TEMPORARY = "/tmp"  # noqa: S108  (an emptyDir of the pod's own)


def attempt_job(  # noqa: PLR0913, PLR0917 - what a run is, what it is carried out with, and which Job of it
    run: Object,
    spec: TrainingRunSpec,
    plan: RunPlan,
    snapshot: Snapshot,
    key: JobKey,
    adjustments: Adjustments = UNCHANGED,
) -> Object:
    """Return a Job of an attempt: one pod, never repeated by the Job controller, never beside another.

    Only a queue replaces its pod: it suspends the Job, and lets it go on later. A profile's patch that breaks
    what is guaranteed of a pod raises `PatchRefusedError`.
    """
    name = run["metadata"]["name"]
    metadata = child_metadata(run, job_name(name, *key), plan.digest)
    compute = spec.compute or Compute()
    queue = _queue_labels(spec, key)
    metadata["labels"] = {**(compute.labels or {}), **metadata["labels"], **_key_labels(key), **queue}
    metadata["annotations"] = {**(compute.annotations or {}), **metadata["annotations"]} | {
        RETRY_REQUEST_ANNOTATION: run["spec"].get("retryRequest", ""),
        GPUS_ANNOTATION: str(_gpus(plan, key)),
    }
    if adjustments != UNCHANGED:
        metadata["annotations"][ADJUSTMENTS_ANNOTATION] = adjustments.model_dump_json(
            by_alias=True, exclude_none=True
        )
    template = _pod_template(run, spec, plan, snapshot, key)
    if key.trains:
        template["spec"]["containers"][0]["args"] += _adjust_arguments(adjustments)
    template = patch_pod(template, snapshot.pod_template)
    if not key.trains:
        template = _without_devices(template)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "podReplacementPolicy": "Failed",
            "template": template,
            # Only at its making: from then on the field is the queue's.
            **({"suspend": True} if queue else {}),
        },
    }


def grace_seconds(status: Object) -> int:
    """Return how long a pod may take to save and end: twice what the newest checkpoint took, and a minute.

    What a pod says of itself is believed within bounds.
    """
    checkpoint = (status.get("trainer") or {}).get("checkpoint") or {}
    seconds = checkpoint.get("saveSeconds")
    if not seconds:
        return GRACE_SECONDS
    low, high = GRACE_BOUNDS
    wanted: int = GRACE_BESIDE_SAVING + ceil(2 * seconds)
    return max(low, min(wanted, high))


def _adjust_arguments(adjustments: Adjustments) -> list[str]:
    options = {"--batch-size": adjustments.batch_size, "--workers": adjustments.workers}
    return [word for option, value in options.items() if value is not None for word in (option, str(value))]


def _key_labels(key: JobKey) -> dict[str, str]:
    labels = {ATTEMPT_LABEL: str(key.attempt)}
    return labels | ({GROUP_LABEL: str(key.group)} if key.group else {})


def _queue_labels(spec: TrainingRunSpec, key: JobKey) -> dict[str, str]:
    """Return what makes a queue hold the Job; only one that trains is worth waiting for."""
    queue = spec.queue
    if queue is None or queue.name is None or spec.dry_run or not key.trains:
        return {}
    priority = {QUEUE_PRIORITY_LABEL: queue.priority_class} if queue.priority_class else {}
    return {QUEUE_LABEL: queue.name} | priority


def _pod_template(
    run: Object, spec: TrainingRunSpec, plan: RunPlan, snapshot: Snapshot, key: JobKey
) -> Object:
    compute = spec.compute or Compute()
    mounts = pod_mounts(run, spec, plan, key.group)
    container = _container(compute, plan, snapshot, key, mounts)
    grace = grace_seconds(run.get("status") or {})
    container["args"] += ["--grace-seconds", str(grace)]
    pod: Object = {
        "restartPolicy": "Never",
        "serviceAccountName": TRAINER_ACCOUNT,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [mount.volume() for mount in mounts],
    }
    return {
        "metadata": {
            "labels": {**(compute.labels or {}), **child_labels(run), **_key_labels(key)},
            "annotations": dict(compute.annotations or {}),
        },
        "spec": pod | _placement(compute, key),
    }


def _container(
    compute: Compute, plan: RunPlan, snapshot: Snapshot, key: JobKey, mounts: list[Mount]
) -> Object:
    arguments = ["run", "--attempt", str(key.attempt), "--termination-message", TERMINATION_MESSAGE]
    if key.group:
        arguments += ["--stages", str(key.group)]
    for mount in mounts:
        if mount.option:
            arguments += [mount.option, mount.argument or mount.path]
    # Libraries write below these, if anywhere: the root file system is read-only.
    own = {"HOME": TEMPORARY, "TMPDIR": TEMPORARY}
    environment = {**snapshot.environment, **(compute.environment or {}), **own}
    return {
        "name": TRAINER_CONTAINER,
        "image": snapshot.image,
        "imagePullPolicy": snapshot.image_pull_policy,
        "command": ["trainwright-trainer"],
        "args": arguments,
        "env": [{"name": name, "value": value} for name, value in sorted(environment.items())],
        "resources": _resources(compute, plan, key),
        "volumeMounts": [mount.volume_mount() for mount in mounts],
        "terminationMessagePath": TERMINATION_MESSAGE,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _gpus(plan: RunPlan, key: JobKey) -> int:
    return plan.gpus if key.trains else 0


def _resources(compute: Compute, plan: RunPlan, key: JobKey) -> Object:
    if not key.trains:
        return _plain(compute.cpu_resources) or CPU_RESOURCES
    resources = _plain(compute.resources) or {}
    if gpus := _gpus(plan, key):
        gpu = {compute.gpu_resource or GPU_RESOURCE: str(gpus)}
        resources["limits"] = {**resources.get("limits", {}), **gpu}
    return resources


def _without_devices(template: Object) -> Object:
    """Return a pod's template that asks for no device: a profile's patch means the pod that trains."""
    template = copy.deepcopy(template)
    pod = template["spec"]
    for container in [*pod["containers"], *pod.get("initContainers", ())]:
        resources = container.get("resources") or {}
        for section in ("requests", "limits"):
            asked = resources.get(section, {})
            resources |= {section: {name: asked[name] for name in asked if "/" not in name}} if asked else {}
    return template


def _placement(compute: Compute, key: JobKey) -> Object:
    """Return where the pod may run, as far as the run says so."""
    placement = {
        "nodeSelector": compute.node_selector,
        "tolerations": _plain(compute.tolerations),
        "affinity": compute.affinity,
        "priorityClassName": compute.priority_class_name,
        # A GPU's runtime shows every GPU of its node to a pod that asks for none.
        "runtimeClassName": compute.runtime_class_name if key.trains else None,
        "schedulerName": compute.scheduler_name,
        "imagePullSecrets": _plain(compute.image_pull_secrets),
    }
    return {key: value for key, value in placement.items() if value}


def _plain(value: object) -> Any:
    """Return JSON for API models, alone or in a sequence."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_none=True)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
