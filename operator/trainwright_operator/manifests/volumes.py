"""What is mounted into a trainer pod, and the argument that tells the trainer where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainwright.contract import RunPlan, StageGroup
from trainwright_operator.api import Recipients, TrainingRunSpec
from trainwright_operator.manifests.config import PLAN_KEY
from trainwright_operator.names import plan_name, workspace_name
from trainwright_operator.quantities import memory_limit

Object = dict[str, Any]

ACCOUNT_FOLDER = "/var/run/secrets/trainwright.dev/account"
TOKEN_SECONDS = 600  # the shortest a projected token may live; the trainer reads its file again each time
MIB = 1024**2


@dataclass(frozen=True)
class Mount:
    """One volume of the pod, mounted at one path; `option` is the trainer's argument for it, if any."""

    name: str
    path: str
    source: Object
    option: str = ""
    argument: str = ""  # a path below `path`, where the option wants a file
    read_only: bool = True

    def volume(self) -> Object:
        """Return the pod's volume."""
        return {"name": self.name, **self.source}

    def volume_mount(self) -> Object:
        """Return the container's mount."""
        mount: Object = {"name": self.name, "mountPath": self.path}
        return mount | ({"readOnly": True} if self.read_only else {})


def pod_mounts(
    run: Object, spec: TrainingRunSpec, plan: RunPlan, group: StageGroup | None = None
) -> list[Mount]:
    """Return every mount of an attempt's pod: of a group of stages, what these need and nothing else."""
    name = run["metadata"]["name"]
    plan_folder = "/etc/trainwright/plan"
    mounts = [
        *_own_volumes(spec),
        Mount(
            "plan",
            plan_folder,
            {"configMap": {"name": plan_name(name), "items": [{"key": PLAN_KEY, "path": PLAN_KEY}]}},
            "--plan",
            f"{plan_folder}/{PLAN_KEY}",
        ),
        Mount("workspace", "/workspace", _workspace(name, spec), "--workspace", read_only=False),
        Mount("account", ACCOUNT_FOLDER, _account(), "--service-account"),
        Mount("temporary", "/tmp", {"emptyDir": {}}, read_only=False),  # noqa: S108
    ]
    if group in (None, StageGroup.TRAINING):
        mounts.append(Mount("shared-memory", "/dev/shm", _shared_memory(spec, plan), read_only=False))  # noqa: S108
    claim = spec.dataset.source.persistent_volume_claim
    if claim and group in (None, StageGroup.DATASET):
        stream = spec.dataset.annotation_stream
        source = {"persistentVolumeClaim": {"claimName": claim.claim_name, "readOnly": stream is None}}
        mounts.append(Mount("data", "/data", source, "--data", read_only=stream is None))
        if stream:
            folder, source = "/etc/trainwright/stream", _secret(stream.credentials.secret_name)
            mounts.append(Mount("stream-credentials", folder, source, "--stream-credentials"))
    delivers = plan.delivery is not None and group in (None, StageGroup.DELIVERY)
    fetches = plan.model.parent is not None and group in (None, StageGroup.DATASET)
    if delivers or fetches:
        mounts += _server_mounts(spec)
    if fetches:
        mounts += _parent_mounts(spec)
    if delivers:
        mounts += _sealing_mounts(spec)
    trains = group in (None, StageGroup.TRAINING)
    return mounts + (_checkpoint_mounts(spec, plan) if trains else [])


def _checkpoint_mounts(spec: TrainingRunSpec, plan: RunPlan) -> list[Mount]:
    store = spec.checkpoint.store if spec.checkpoint and plan.checkpoint.store else None
    if store and store.persistent_volume_claim:
        source = {"persistentVolumeClaim": {"claimName": store.persistent_volume_claim.claim_name}}
        return [Mount("checkpoints", "/checkpoints", source, "--checkpoints", read_only=False)]
    if store and store.s3:
        source = _secret(store.s3.credentials.secret_name)
        folder, option = "/etc/trainwright/checkpoint", "--checkpoint-credentials"
        return [Mount("checkpoint-credentials", folder, source, option)]
    return []


def _own_volumes(spec: TrainingRunSpec) -> list[Mount]:
    """Return the volumes a run brings along; their names can't be those of ours."""
    mounts = []
    for volume in (spec.compute.volumes if spec.compute else None) or ():
        source: Object = {"emptyDir": {}}
        claim, config_map = volume.persistent_volume_claim, volume.config_map
        read_only = volume.empty_dir is None and (claim is None or claim.read_only is not False)
        if claim:
            source = {"persistentVolumeClaim": {"claimName": claim.claim_name, "readOnly": read_only}}
        elif config_map:
            source = {"configMap": {"name": config_map.name}}
        elif volume.empty_dir and volume.empty_dir.size_limit:
            source = {"emptyDir": {"sizeLimit": volume.empty_dir.size_limit}}
        mounts.append(Mount(f"own-{volume.name}", volume.mount_path, source, read_only=read_only))
    return mounts


def _server_mounts(spec: TrainingRunSpec) -> list[Mount]:
    """Return the credentials of both servers."""
    root = "/etc/trainwright"
    delivery = spec.delivery
    mounts: list[Mount] = []
    if delivery and delivery.api and delivery.api.credentials:
        source = _secret(delivery.api.credentials.secret_name)
        mounts.append(Mount("api-credentials", f"{root}/api", source, "--api-credentials"))
    if delivery and delivery.cdn and delivery.cdn.credentials:
        source = _secret(delivery.cdn.credentials.secret_name)
        mounts.append(Mount("cdn-credentials", f"{root}/cdn", source, "--cdn-credentials"))
    return mounts


def _parent_mounts(spec: TrainingRunSpec) -> list[Mount]:
    """Return what a parent is opened with: only the pod that fetches it has the private key."""
    root, bundle = "/etc/trainwright", spec.delivery and spec.delivery.bundle
    mounts: list[Mount] = []
    if bundle and bundle.private_key:
        mounts.append(
            Mount("bundle-key", f"{root}/bundle", _secret(bundle.private_key.secret_name), "--bundle-key")
        )
    if bundle and bundle.publishers:
        mounts.append(Mount("publishers", f"{root}/publishers", _key_ring(bundle.publishers), "--publishers"))
    return mounts


def _sealing_mounts(spec: TrainingRunSpec) -> list[Mount]:
    """Return the keys that a model, and its training bundle, are sealed and signed with."""
    root, delivery = "/etc/trainwright", spec.delivery
    mounts: list[Mount] = []
    sealing = delivery.sealing if delivery else None
    bundle = delivery.bundle if delivery else None
    if sealing and sealing.recipients:
        mounts.append(
            Mount("recipients", f"{root}/recipients", _key_ring(sealing.recipients), "--recipients")
        )
    if bundle and bundle.recipients:
        source, option = _key_ring(bundle.recipients), "--bundle-recipients"
        mounts.append(Mount("bundle-recipients", f"{root}/bundle-recipients", source, option))
    if sealing and sealing.signing_key:
        source = _secret(sealing.signing_key.secret_name)
        mounts.append(Mount("signing-key", f"{root}/signing", source, "--signing-key"))
    return mounts


def _key_ring(keys: Recipients) -> Object:
    if keys.secret_name:
        return _secret(keys.secret_name)
    return {"configMap": {"name": keys.config_map_name}}


def _secret(name: str) -> Object:
    return {"secret": {"secretName": name, "defaultMode": 0o440}}


def _workspace(run: str, spec: TrainingRunSpec) -> Object:
    workspace = spec.compute.workspace if spec.compute else None
    if workspace and workspace.empty_dir:
        limit = workspace.empty_dir.size_limit
        return {"emptyDir": {"sizeLimit": limit} if limit else {}}
    return {"persistentVolumeClaim": {"claimName": workspace_name(run)}}


def _account() -> Object:
    """Return a volume like the one the API server injects, with a token that ends sooner."""
    token = {"path": "token", "expirationSeconds": TOKEN_SECONDS}
    bundle = {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    return {"projected": {"sources": [{"serviceAccountToken": token}, {"configMap": bundle}]}}


def shared_memory_size(spec: TrainingRunSpec, plan: RunPlan) -> str:
    """Return the size of the memory that loader processes share; a container's own 64 MiB are too little.

    `Auto` has room for twice the batches that the workers may hold ready: two each. What is in it counts
    against the memory limit, so it never takes more than half of that.
    """
    wanted = spec.compute.shared_memory if spec.compute else None
    if wanted is not None and wanted != "Auto":
        return wanted
    training = plan.training
    batch_bytes = training.batch_size * training.image_size**2 * 3
    mebibytes, limit = 64 + 4 * training.workers * batch_bytes // MIB, memory_limit(spec)
    return f"{mebibytes if limit is None else min(mebibytes, int(limit) // MIB // 2)}Mi"


def _shared_memory(spec: TrainingRunSpec, plan: RunPlan) -> Object:
    return {"emptyDir": {"medium": "Memory", "sizeLimit": shared_memory_size(spec, plan)}}
