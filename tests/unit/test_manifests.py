"""Child objects: what a pod gets, and that it gets nothing more."""

from __future__ import annotations

from typing import Any

import pytest
from builders import RUN_UID, RunBuilder

from trainwright.contract import StageGroup
from trainwright_operator.manifests import attempt_job, plan_config_map, trainer_access, workspace_claim
from trainwright_operator.manifests.job import grace_seconds
from trainwright_operator.names import JobKey
from trainwright_operator.plan import merge_spec, resolve_plan
from trainwright_operator.settings import OperatorSettings, TrainerSettings
from trainwright_operator.snapshot import Snapshot, take_snapshot

Object = dict[str, Any]
IMAGE = "registry.example/trainer@sha256:" + "0" * 64
SNAPSHOT = take_snapshot(OperatorSettings(trainer=TrainerSettings(image=IMAGE)))


def make_job(
    run: Object, attempt: int = 1, snapshot: Snapshot = SNAPSHOT, key: JobKey | None = None
) -> Object:
    spec = merge_spec({}, run["spec"])
    plan = resolve_plan(run, spec, None).plan
    assert plan is not None
    return attempt_job(run, spec, plan, snapshot, key or JobKey(attempt))


def pod_of(job: Object) -> Object:
    pod: Object = job["spec"]["template"]["spec"]
    return pod


@pytest.mark.parametrize(
    ("saving", "grace"), [(None, 120), (0, 120), (0.4, 61), (45.2, 151), (9999, 1800), (1e300, 1800)]
)
def test_a_pod_has_as_much_time_to_end_as_the_last_checkpoint_took_to_save(
    saving: float | None, grace: int
) -> None:
    checkpoint = {} if saving is None else {"checkpoint": {"saveSeconds": saving}}
    assert grace_seconds({"trainer": checkpoint}) == grace
    assert grace_seconds({}) == 120


def test_a_job_is_one_pod_that_kubernetes_never_repeats() -> None:
    spec = make_job(RunBuilder().build())["spec"]
    assert (spec["backoffLimit"], spec["podReplacementPolicy"]) == (0, "Failed")
    assert spec["template"]["spec"]["restartPolicy"] == "Never"


def test_the_pod_passes_the_restricted_pod_security_level() -> None:
    pod = pod_of(make_job(RunBuilder().delivering().build()))
    container = pod["containers"][0]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    allowed = {"configMap", "emptyDir", "projected", "secret", "persistentVolumeClaim"}
    assert {key for volume in pod["volumes"] for key in volume if key != "name"} <= allowed


def test_everything_but_workspace_and_scratch_is_mounted_read_only() -> None:
    source = {"persistentVolumeClaim": {"claimName": "annotations"}}
    pod = pod_of(make_job(RunBuilder().spec(dataset={"source": source}).delivering().build()))
    mounts = pod["containers"][0]["volumeMounts"]
    writable = {mount["name"] for mount in mounts if not mount.get("readOnly")}
    assert writable == {"workspace", "temporary", "shared-memory"}


def test_a_claim_that_a_stream_is_read_into_is_writable_for_the_pod_that_does_it_only() -> None:
    stream = {"host": "mq", "stream": "s", "credentials": {"secretName": "mq-account"}}
    source = {"persistentVolumeClaim": {"claimName": "annotations"}}
    run = RunBuilder().spec(dataset={"source": source, "annotationStream": stream}).build()
    pod = pod_of(make_job(run))
    container, volumes = pod["containers"][0], {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert "readOnly" not in mounts["data"]
    assert volumes["data"]["persistentVolumeClaim"] == {"claimName": "annotations", "readOnly": False}
    assert volumes["stream-credentials"]["secret"]["secretName"] == "mq-account"
    assert mounts["stream-credentials"]["readOnly"] is True
    assert "--stream-credentials" in container["args"]
    training = pod_of(make_job(run, key=JobKey(1, StageGroup.TRAINING)))
    assert not {"data", "stream-credentials"} & {volume["name"] for volume in training["volumes"]}


def test_every_mount_with_an_option_is_an_argument_below_its_mount_path() -> None:
    container = pod_of(make_job(RunBuilder().delivering().build()))["containers"][0]
    arguments = dict(zip(container["args"][1::2], container["args"][2::2], strict=True))
    paths = [mount["mountPath"] for mount in container["volumeMounts"]]
    for option in ("--plan", "--workspace", "--service-account", "--recipients", "--signing-key"):
        assert any(arguments[option] == path or arguments[option].startswith(path + "/") for path in paths)


def test_the_token_ends_soon_and_is_not_the_default_one() -> None:
    pod = pod_of(make_job(RunBuilder().build()))
    account = next(volume for volume in pod["volumes"] if volume["name"] == "account")
    assert pod["automountServiceAccountToken"] is False
    token = account["projected"]["sources"][0]["serviceAccountToken"]
    assert token == {"path": "token", "expirationSeconds": 600}  # no audience: the API server wants its own


def test_gpus_are_asked_for_by_name_only_if_there_are_any() -> None:
    limits = pod_of(make_job(RunBuilder().spec(compute={"gpus": 1}).build()))["containers"][0]["resources"]
    assert limits == {"limits": {"nvidia.com/gpu": "1"}}
    assert (
        pod_of(make_job(RunBuilder().spec(compute={"gpus": 0}).build()))["containers"][0]["resources"] == {}
    )


def test_shared_memory_grows_with_workers_batch_and_image_size() -> None:
    training = {"workers": 8, "batchSize": 16, "imageSize": 640}
    volumes = pod_of(make_job(RunBuilder().spec(training=training).build()))["volumes"]
    shared = next(volume for volume in volumes if volume["name"] == "shared-memory")
    batch_bytes = 16 * 640 * 640 * 3
    assert shared["emptyDir"] == {"medium": "Memory", "sizeLimit": f"{64 + 4 * 8 * batch_bytes // 2**20}Mi"}


def test_a_runs_labels_and_placement_reach_the_pod_but_cannot_replace_ours() -> None:
    compute = {
        "labels": {"team": "vision"},
        "nodeSelector": {"gpu": "a100"},
        "imagePullSecrets": [{"name": "pull"}],
    }
    job = make_job(RunBuilder().spec(compute=compute).build())
    template = job["spec"]["template"]
    assert job["metadata"]["labels"]["team"] == "vision"
    assert template["metadata"]["labels"]["team"] == "vision"
    assert template["metadata"]["labels"]["trainwright.dev/run"] == "parts-1"
    assert template["spec"]["nodeSelector"] == {"gpu": "a100"}
    assert template["spec"]["imagePullSecrets"] == [{"name": "pull"}]


def test_children_go_with_their_run_and_never_hold_up_its_deletion() -> None:
    run = RunBuilder().build()
    spec = merge_spec({}, run["spec"])
    plan = resolve_plan(run, spec, None).plan
    assert plan is not None
    children = [plan_config_map(run, plan, SNAPSHOT), workspace_claim(run, spec, plan), make_job(run)]
    for child in children:
        assert child is not None
        owner = child["metadata"]["ownerReferences"][0]
        assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == (RUN_UID, True, False)
        assert "finalizers" not in child["metadata"]
    assert plan_config_map(run, plan, SNAPSHOT)["immutable"] is True


def test_a_run_with_an_empty_dir_has_no_claim() -> None:
    run = RunBuilder().spec(compute={"workspace": {"emptyDir": {"sizeLimit": "1Gi"}}}).build()
    spec = merge_spec({}, run["spec"])
    plan = resolve_plan(run, spec, None).plan
    assert plan is not None
    assert workspace_claim(run, spec, plan) is None
    workspace = next(v for v in pod_of(make_job(run))["volumes"] if v["name"] == "workspace")
    assert workspace["emptyDir"] == {"sizeLimit": "1Gi"}


@pytest.mark.parametrize(
    ("store", "volume", "option", "read_only"),
    [
        (
            {"persistentVolumeClaim": {"claimName": "checkpoints"}},
            {"name": "checkpoints", "persistentVolumeClaim": {"claimName": "checkpoints"}},
            ["--checkpoints", "/checkpoints"],
            False,
        ),
        (
            {
                "s3": {
                    "endpoint": "https://s3.example.com",
                    "bucket": "checkpoints",
                    "credentials": {"secretName": "store"},
                }
            },
            {"name": "checkpoint-credentials", "secret": {"secretName": "store", "defaultMode": 0o440}},
            ["--checkpoint-credentials", "/etc/trainwright/checkpoint"],
            True,
        ),
    ],
    ids=["claim", "bucket"],
)
def test_a_checkpoint_store_is_mounted_and_the_trainer_told_where(
    store: Any, volume: Any, option: list[str], read_only: bool
) -> None:
    pod = pod_of(make_job(RunBuilder().spec(checkpoint={"store": store}).build()))
    (container,) = pod["containers"]
    assert volume in pod["volumes"]
    at = container["args"].index(option[0])
    assert container["args"][at : at + 2] == option
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == volume["name"]]
    assert mount.get("readOnly", False) is read_only


def test_the_trainer_knows_its_grace_period() -> None:
    pod = pod_of(make_job(RunBuilder().build()))
    arguments = pod["containers"][0]["args"]
    at = arguments.index("--grace-seconds")
    assert arguments[at + 1] == str(pod["terminationGracePeriodSeconds"])


def test_the_trainers_account_is_bound_to_its_own_role_only() -> None:
    account, binding = trainer_access("ml")
    assert account["automountServiceAccountToken"] is False
    assert binding["roleRef"]["name"] == "trainwright-trainer"
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": "trainwright-trainer", "namespace": "ml"}
    ]


def test_shared_memory_never_takes_more_than_half_of_the_memory_limit() -> None:
    training = {"workers": 24, "batchSize": 64, "imageSize": 1280}
    compute = {"resources": {"limits": {"memory": "8Gi"}}}
    volumes = pod_of(make_job(RunBuilder().spec(training=training, compute=compute).build()))["volumes"]
    shared = next(volume for volume in volumes if volume["name"] == "shared-memory")
    assert shared["emptyDir"]["sizeLimit"] == "4096Mi"


def test_a_runs_own_volumes_are_read_only_unless_it_says_so_and_can_not_take_our_names() -> None:
    own = [
        {"name": "plan", "mountPath": "/mnt/models", "persistentVolumeClaim": {"claimName": "models"}},
        {
            "name": "cache",
            "mountPath": "/mnt/cache",
            "persistentVolumeClaim": {"claimName": "cache", "readOnly": False},
        },
        {"name": "maps", "mountPath": "/mnt/maps", "configMap": {"name": "maps"}},
        {"name": "scratch", "mountPath": "/mnt/scratch", "emptyDir": {"sizeLimit": "1Gi"}},
    ]
    pod = pod_of(make_job(RunBuilder().spec(compute={"volumes": own}).build()))
    mounts = [
        mount for mount in pod["containers"][0]["volumeMounts"] if mount["mountPath"].startswith("/mnt/")
    ]
    assert {mount["mountPath"]: mount.get("readOnly", False) for mount in mounts} == {
        "/mnt/models": True,
        "/mnt/cache": False,
        "/mnt/maps": True,
        "/mnt/scratch": False,
    }
    names = [volume["name"] for volume in pod["volumes"]]
    assert len(names) == len(set(names))
    assert {mount["name"] for mount in mounts} <= set(names)
