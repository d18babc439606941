"""`spec.compute`, `spec.queue`, `spec.retry`: what a run's pods get, and wait for; how often it is tried."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from trainwright_operator.api.section import (
    QUANTITY,
    LabelValue,
    ObjectName,
    Quantity,
    Rule,
    Section,
    ShortText,
    StorageSize,
    at_most_one_of,
    one_of,
    opaque_map,
)

ALLOWED_ENVIRONMENT = (
    "CUDA_LAUNCH_BLOCKING",
    "CUDA_VISIBLE_DEVICES",
    "MKL_NUM_THREADS",
    "NCCL_DEBUG",
    "NCCL_IB_DISABLE",
    "NCCL_P2P_DISABLE",
    "NCCL_SOCKET_IFNAME",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "TZ",
)
"""Variables that tune a trainer, and that a run may set where its profile names no others."""

FORBIDDEN_VARIABLES = "LD_*, PYTHON*, TRAINWRIGHT_*, PATH, HOME or TMPDIR"


def variable_rule(field: str) -> str:
    """Return a CEL expression: no name of this list or map makes the trainer load foreign code."""
    prefixes = "".join(f" && !key.startsWith('{prefix}')" for prefix in ("LD_", "PYTHON", "TRAINWRIGHT_"))
    return f"self.{field}.all(key, !(key in ['PATH', 'HOME', 'TMPDIR']){prefixes})"


class Resources(Section):
    """CPU and memory of the trainer's container. GPUs are asked for by gpus."""

    requests: dict[str, Quantity] | None = Field(
        default=None, max_length=16, description="What is set aside for the container, by resource name."
    )
    limits: dict[str, Quantity] | None = Field(
        default=None, max_length=16, description="The most the container may use, by resource name."
    )


class WorkspaceClaim(Section):
    """A claim of its own for the run, made by the operator: a later attempt goes on where the last ended."""

    size: StorageSize | None = Field(default=None, description="Size of the volume. Default: 20Gi.")
    storage_class_name: ObjectName | None = Field(
        default=None, description="Storage class of the volume. Default: the cluster's."
    )


class WorkspaceEmptyDir(Section):
    """A folder of the node, gone with the pod: without checkpoint.store a later attempt starts from zero."""

    size_limit: StorageSize | None = Field(
        default=None, description="The pod is evicted when the folder grows beyond this. Default: no limit."
    )


class Workspace(Section):
    """Where the run keeps dataset, checkpoints and results. Default: a claim of 20Gi."""

    persistent_volume_claim: WorkspaceClaim | None = None
    empty_dir: WorkspaceEmptyDir | None = None

    rules = (
        Rule(
            at_most_one_of("persistentVolumeClaim", "emptyDir"),
            "spec.compute.workspace must have at most one of persistentVolumeClaim, emptyDir",
        ),
    )


class Toleration(Section):
    """A taint the pod may be scheduled onto; as in a pod."""

    key: ShortText | None = Field(default=None, description="The taint's key; empty matches every key.")
    operator: Literal["Exists", "Equal"] | None = Field(
        default=None, description="Whether the value matters. Default: Equal."
    )
    value: ShortText | None = Field(default=None, description="The taint's value, with operator Equal.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="The taint's effect; empty matches every effect."
    )
    toleration_seconds: int | None = Field(
        default=None, ge=0, description="How long a NoExecute taint is tolerated; empty: for ever."
    )


class PullSecret(Section):
    """A Secret with a registry's credentials, in the run's namespace."""

    name: ObjectName = Field(description="Name of the Secret.")


class VolumeClaim(Section):
    """A claim of the run's namespace that exists."""

    claim_name: ObjectName = Field(description="Name of the PersistentVolumeClaim.")
    read_only: bool | None = Field(
        default=None, description="Whether the trainer may only read it. Default: true."
    )


class VolumeConfigMap(Section):
    """A ConfigMap of the run's namespace, a file for each of its keys."""

    name: ObjectName = Field(description="Name of the ConfigMap.")


class VolumeEmptyDir(Section):
    """A folder of the node that is gone with the pod."""

    size_limit: StorageSize | None = Field(
        default=None, description="The pod is evicted when the folder grows beyond this. Default: no limit."
    )


class Volume(Section):
    """A volume of the run's own, such as one with a base model. Set exactly one of its sources."""

    name: Annotated[str, Field(min_length=1, max_length=48, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")] = (
        Field(description="Name of the volume.")
    )
    mount_path: Annotated[str, Field(max_length=256, pattern=r"^/mnt/[A-Za-z0-9_-][A-Za-z0-9._/-]*$")] = (
        Field(description="Where it is mounted: a path below /mnt.")
    )
    persistent_volume_claim: VolumeClaim | None = None
    config_map: VolumeConfigMap | None = None
    empty_dir: VolumeEmptyDir | None = None

    rules = (
        Rule(
            one_of("persistentVolumeClaim", "configMap", "emptyDir"),
            "spec.compute.volumes must each have exactly one of persistentVolumeClaim, configMap, emptyDir",
        ),
        Rule(
            "!self.mountPath.split('/').exists(part, part == '..')",
            "spec.compute.volumes must not have '..' in a mountPath",
        ),
    )


QueueName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]

APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
"""What the annotations begin with that choose a container's AppArmor profile, or none."""

_OUR_KEYS = "self.{0}.all(key, !key.startsWith('trainwright.dev/') && !key.contains('.trainwright.dev/'))"


class Compute(Section):
    """What the run's pod gets, and where it may run."""

    built_in = {"gpus": 1, "gpuResource": "nvidia.com/gpu", "sharedMemory": "Auto", "stages": "Together"}  # noqa: RUF012

    gpus: int | None = Field(
        default=None,
        ge=0,
        le=64,
        description="GPUs of the pod, at most 16, which share a batch; 0 trains on the CPU.",
    )
    gpu_resource: (
        Annotated[str, Field(min_length=3, max_length=128, pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")] | None
    ) = Field(default=None, description="The resource name the GPUs are asked for by.")
    resources: Resources | None = None
    shared_memory: Annotated[str, Field(max_length=32, pattern=f"^Auto$|{QUANTITY}")] | None = Field(
        default=None,
        description="Size of /dev/shm, through which workers hand over images; it counts against the memory"
        " limit. Auto computes it from workers, batch and image size.",
    )
    workspace: Workspace | None = None
    stages: Literal["Together", "Apart"] | None = Field(
        default=None,
        description="Together: one pod does all stages. Apart: a pod without GPU builds the dataset, then one"
        " with the GPU trains and evaluates, then one without exports, seals and publishes; they share the"
        " workspace's claim, so it must be reachable from all their nodes.",
    )
    cpu_resources: Resources | None = Field(
        default=None,
        description="CPU and memory of the pods without a GPU where stages are Apart. Default: requests of"
        " one CPU and 2Gi of memory, no limits.",
    )
    node_selector: dict[str, LabelValue] | None = Field(
        default=None, max_length=32, description="Labels a node must have."
    )
    tolerations: tuple[Toleration, ...] | None = Field(
        default=None, max_length=32, description="Taints the pod may be scheduled onto."
    )
    affinity: Annotated[dict[str, Any], opaque_map(3)] | None = Field(
        default=None,
        description="Affinity of the pod, as in a pod: nodeAffinity, podAffinity, podAntiAffinity.",
    )
    priority_class_name: ObjectName | None = Field(
        default=None, description="PriorityClass of the pod. Default: the cluster's."
    )
    runtime_class_name: ObjectName | None = Field(
        default=None, description="RuntimeClass of the pod. Default: the node's."
    )
    scheduler_name: ObjectName | None = Field(
        default=None, description="The scheduler that places the pod. Default: the cluster's."
    )
    image_pull_secrets: tuple[PullSecret, ...] | None = Field(
        default=None, max_length=16, description="Secrets with which the trainer's image is pulled."
    )
    environment: dict[str, ShortText] | None = Field(
        default=None,
        max_length=32,
        description="Environment variables of the trainer. Allowed are those its profile names, else"
        f" {', '.join(ALLOWED_ENVIRONMENT)}.",
    )
    volumes: Annotated[
        tuple[Volume, ...] | None,
        Field(
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = Field(default=None, description="Volumes of the run's own, beside those the operator makes.")
    labels: dict[str, LabelValue] | None = Field(
        default=None, max_length=32, description="Labels of the Job and its pod, beside the operator's."
    )
    annotations: dict[str, Annotated[str, Field(max_length=1024)]] | None = Field(
        default=None, max_length=32, description="Annotations of the Job and its pod, beside the operator's."
    )

    rules = (
        Rule(
            "!has(self.stages) || self.stages != 'Apart' || !has(self.workspace)"
            " || !has(self.workspace.emptyDir)",
            "spec.compute.stages is Apart, and spec.compute.workspace an emptyDir, which ends with its pod:"
            " use a persistentVolumeClaim, or stages Together",
        ),
        Rule(
            "!has(self.environment) || " + variable_rule("environment"),
            f"spec.compute.environment must not have {FORBIDDEN_VARIABLES}: they decide what code is loaded",
        ),
        Rule(
            "!has(self.volumes) || self.volumes.all(volume, self.volumes.exists_one(other,"
            " other.mountPath == volume.mountPath))",
            "spec.compute.volumes must not have one mountPath twice",
        ),
        Rule(
            "!has(self.labels) || " + _OUR_KEYS.format("labels"),
            "spec.compute.labels must not have keys of trainwright.dev: they are the operator's",
        ),
        Rule(
            "!has(self.labels) || self.labels.all(key, key != 'kueue.x-k8s.io/queue-name'"
            " && key != 'kueue.x-k8s.io/priority-class')",
            "spec.compute.labels must not name a queue, which every Job would wait in: use spec.queue",
        ),
        Rule(
            "!has(self.annotations) || " + _OUR_KEYS.format("annotations"),
            "spec.compute.annotations must not have keys of trainwright.dev: they are the operator's",
        ),
        Rule(
            f"!has(self.annotations) || self.annotations.all(key, !key.startsWith('{APPARMOR}'))",
            f"spec.compute.annotations must not have keys of {APPARMOR}: they switch AppArmor off",
        ),
    )


def _budget(description: str) -> int | None:
    budget: int | None = Field(default=None, ge=-1, le=1000, description=description)
    return budget


class Retry(Section):
    """How many more attempts a run gets, for each cause an attempt may fail of. -1 is no limit."""

    built_in = {  # noqa: RUF012
        "preemption": -1,
        "infrastructure": 3,
        "outOfMemory": 2,
        "hang": 1,
        "publishing": 5,
        "unknown": 1,
    }

    preemption: int | None = _budget("Attempts after the pod was preempted, evicted or asked to stop.")
    infrastructure: int | None = _budget("Attempts after a node, a volume or a network failed.")
    out_of_memory: int | None = _budget("Attempts after the accelerator or the machine ran out of memory.")
    hang: int | None = _budget("Attempts after the trainer made no step for too long.")
    publishing: int | None = _budget("Attempts to deliver the finished model; none of them trains again.")
    unknown: int | None = _budget("Attempts after an error inside the trainer, or one nothing is known of.")


class Queue(Section):
    """The queue the Job that trains waits in, where Kueue is installed. Default: none, it starts at once."""

    name: QueueName | None = Field(default=None, description="The LocalQueue of the run's namespace.")
    priority_class: QueueName | None = Field(
        default=None, description="Kueue's WorkloadPriorityClass. Default: the queue's own order."
    )
