"""Profiles: which value a run gets, what it may not ask for, and what no pod template can take away."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import pytest
from builders import RunBuilder

from trainwright_operator.api import ProfileSpec
from trainwright_operator.api.compute import APPARMOR
from trainwright_operator.catalogue import Catalogue, ProfileKey, profile_key
from trainwright_operator.hosts import is_allowed
from trainwright_operator.limits import find_violations
from trainwright_operator.manifests import PatchRefusedError, attempt_job
from trainwright_operator.names import JobKey
from trainwright_operator.plan import merge_spec, resolve_plan
from trainwright_operator.profiles import count_runs, describe_profile, judge_profile
from trainwright_operator.quantities import parse_quantity
from trainwright_operator.settings import OperatorSettings, TrainerSettings
from trainwright_operator.snapshot import Snapshot, choose_version, find_reference, take_snapshot

Object = dict[str, Any]
VERSIONS = [
    {"name": "v1", "image": "registry.example/trainer:v1", "default": True},
    {"name": "v2", "image": "registry.example/trainer:v2"},
]
KEY = ProfileKey("TrainingProfile", "ml", "small")


ON_CLAIM = {"persistentVolumeClaim": {"claimName": "annotations"}}


def settings(**fields: Any) -> OperatorSettings:
    return OperatorSettings(trainer=TrainerSettings(image="registry.example/trainer:platform"), **fields)


def snapshot_of(platform: Object | None = None, /, **spec: Any) -> Snapshot:
    profile = ProfileSpec.model_validate({"versions": VERSIONS, **spec})
    return take_snapshot(settings(defaults=platform or {}), "TrainingProfile", "small", profile, "v1")


def violations_of(run: Object, found: Object | None = None, **spec: Any) -> list[str]:
    snapshot = snapshot_of(**spec)
    effective = merge_spec(snapshot.defaults, run["spec"])
    return find_violations(run["spec"], effective, snapshot, found or {})


def template_of(patch: Object, **spec: Any) -> Object:
    """Return the pod's template of a run with all kinds of mounts, patched."""
    source = {"persistentVolumeClaim": {"claimName": "annotations"}}
    run = RunBuilder().spec(dataset={"source": source}, **spec).delivering().build()
    snapshot = snapshot_of(podTemplate=patch)
    effective = merge_spec(snapshot.defaults, run["spec"])
    plan = resolve_plan(run, effective, None).plan
    assert plan is not None
    template: Object = attempt_job(run, effective, plan, snapshot, JobKey(1))["spec"]["template"]
    return template


# --- values -------------------------------------------------------------------------------------------


def test_a_profile_wins_over_the_operators_settings_and_the_run_over_both() -> None:
    platform = {"training": {"epochs": 1, "batchSize": 1, "imageSize": 64}}
    snapshot = snapshot_of(platform, defaults={"training": {"epochs": 2, "batchSize": 2}})
    run = RunBuilder().spec(training={"epochs": 3}).build()
    training = merge_spec(snapshot.defaults, run["spec"]).training
    assert training is not None
    assert (training.epochs, training.batch_size, training.image_size) == (3, 2, 64)


def test_a_profiles_choice_replaces_another_of_the_operators_settings() -> None:
    workspace = {"persistentVolumeClaim": {"size": "1Gi"}}
    snapshot = snapshot_of(
        {"compute": {"workspace": workspace}}, defaults={"compute": {"workspace": {"emptyDir": {}}}}
    )
    assert snapshot.defaults["compute"]["workspace"] == {"emptyDir": {}}


def test_a_run_without_a_profile_has_the_operators_image_and_defaults() -> None:
    snapshot = take_snapshot(settings(defaults={"training": {"epochs": 9}}, pricePerGPUHour=2))
    assert snapshot.image == "registry.example/trainer:platform"
    assert (snapshot.defaults, snapshot.price_per_gpu_hour) == ({"training": {"epochs": 9}}, 2)
    assert snapshot.to_status() == {"digest": snapshot.digest}


def test_a_run_that_names_a_profile_gets_no_version_or_kind_of_another_from_the_settings() -> None:
    named = {"name": "default", "kind": "ClusterTrainingProfile", "version": "v9"}
    options = settings(defaults={"profile": named})
    assert str(find_reference(options, RunBuilder().build())).startswith("name='default'")
    run = RunBuilder().spec(profile={"name": "small"}).build()
    reference = find_reference(options, run)
    assert reference is not None
    assert (reference.name, reference.kind, reference.version) == ("small", None, None)
    profile = merge_spec(options.defaults, run["spec"]).profile
    assert profile == reference


def test_the_default_version_is_the_marked_one_and_any_other_has_to_exist() -> None:
    spec = ProfileSpec.model_validate({"versions": VERSIONS[::-1]})
    versions = [choose_version(spec, wanted) for wanted in (None, "v2", "v3")]
    assert [version and version.name for version in versions] == ["v1", "v2", None]


def test_a_snapshot_keeps_its_digest_when_a_later_release_reads_it() -> None:
    older = snapshot_of().to_json().replace('"limits":{},', "")  # as if limits had come later
    again = Snapshot.from_json(older)
    assert again.to_json() == older
    assert again.digest != snapshot_of().digest
    assert Snapshot.from_json(snapshot_of().to_json()).digest == snapshot_of().digest


def test_a_profiles_price_wins_over_the_settings() -> None:
    profile = ProfileSpec.model_validate({"versions": VERSIONS, "pricePerGPUHour": 0})
    options = settings(pricePerGPUHour=3)
    assert take_snapshot(options, "TrainingProfile", "small", profile, "v1").price_per_gpu_hour == 0


# --- limits -------------------------------------------------------------------------------------------


def test_a_run_within_its_limits_breaks_none() -> None:
    limits = {"gpus": 1, "memory": "4Gi", "cpu": "2500m", "epochs": 120, "endpoints": ["api.example"]}
    run = (
        RunBuilder()
        .spec(compute={"resources": {"limits": {"memory": "4096Mi", "cpu": "2.5"}}})
        .delivering()
        .build()
    )
    assert violations_of(run, limits=limits) == []


def test_what_a_run_does_not_say_counts_as_its_built_in_default() -> None:
    sentences = violations_of(RunBuilder().build(), limits={"gpus": 0, "epochs": 119, "cpu": 1})
    assert [sentence.partition(":")[0] for sentence in sentences] == [
        "spec.compute.gpus is 1",
        "spec.training.epochs is 120",
        "spec.compute.resources.limits.cpu is not set",
    ]


def test_devices_by_another_name_are_refused_but_for_the_profiles_own() -> None:
    run = RunBuilder().spec(compute={"resources": {"limits": {"amd.com/gpu": 2, "rdma/hca": 1}}}).build()
    defaults = {"compute": {"resources": {"limits": {"rdma/hca": 1}}}}
    (sentence,) = violations_of(run, limits={"gpus": 1}, defaults=defaults)
    assert "spec.compute.resources.limits.amd.com/gpu is 2" in sentence


def test_the_pods_without_a_gpu_have_limits_too() -> None:
    compute = {"stages": "Apart", "cpuResources": {"limits": {"memory": "9Gi"}}}
    sentences = violations_of(RunBuilder().spec(compute=compute).build(), limits={"memory": "8Gi"})
    assert any("spec.compute.cpuResources.limits.memory is 9Gi" in sentence for sentence in sentences)
    sentences = violations_of(RunBuilder().spec(compute={"stages": "Apart"}).build(), limits={"cpu": 1})
    assert any("spec.compute.cpuResources.limits.cpu is not set" in sentence for sentence in sentences)


def test_the_object_store_in_a_secret_has_to_be_an_allowed_host() -> None:
    text = base64.b64encode(b"host: https://store.example.org\n").decode()
    found = {("Secret", "cdn"): {"data": {"cdn.yaml": text}}}
    (sentence,) = violations_of(
        RunBuilder().delivering().build(), found, limits={"endpoints": ["api.example"]}
    )
    assert "cdn.yaml in Secret 'cdn'" in sentence
    assert "'store.example.org'" in sentence


@pytest.mark.parametrize(
    ("tls", "allowed", "violations"),
    [
        (True, "mq.example:5551", 0),
        (False, "mq.example:5552", 0),
        (True, "mq.example", 0),
        (True, "mq.example:5552", 1),
        (True, "api", 1),
    ],
)
def test_an_annotation_stream_comes_from_an_allowed_host_and_port(
    tls: bool, allowed: str, violations: int
) -> None:
    stream = {"host": "MQ.example", "stream": "s", "tls": tls, "credentials": {"secretName": "mq"}}
    source = {"persistentVolumeClaim": {"claimName": "annotations"}}
    run = RunBuilder().spec(dataset={"source": source, "annotationStream": stream}).build()
    sentences = violations_of(run, {}, limits={"endpoints": [allowed]})
    assert len(sentences) == violations
    for sentence in sentences:
        assert sentence.startswith("spec.dataset.annotationStream.host leads to 'mq.example'")


@pytest.mark.parametrize(
    ("host", "port", "limits", "refused"),
    [
        ("mq.example", None, {}, True),
        ("mq.example", None, {"endpoints": ["mq.example"]}, True),
        ("mq.example", 15552, {"endpoints": ["mq.example", "mq.example:5552"]}, True),
        ("mq.example", None, {"endpoints": ["mq.example:5552"]}, False),
        ("MQ.example", 15552, {"endpoints": ["*.example:15552"]}, False),
        ("127.0.0.1.example", None, {}, True),
        ("127.0.0.1", None, {}, False),
        ("localhost", None, {}, False),
    ],
)
def test_a_stream_is_read_in_the_clear_only_where_the_platform_names_host_and_port(
    host: str, port: int | None, limits: Object, refused: bool
) -> None:
    stream = {"host": host, "stream": "s", "tls": False, "credentials": {"secretName": "mq"}}
    stream |= {"port": port} if port else {}
    run = RunBuilder().spec(dataset={"source": ON_CLAIM, "annotationStream": stream}).build()
    sentences = violations_of(run, limits=limits)
    where = f"{host}:{port or 5552}".lower()
    assert sentences == refused * [
        "spec.dataset.annotationStream.tls is false, and would send password and images in the clear to"
        f" {where}: leave it out, or have the profile's limits.endpoints name {where}"
    ]


def test_a_default_stream_of_the_platform_may_be_in_the_clear() -> None:
    stream = {"host": "mq", "stream": "s", "tls": False, "credentials": {"secretName": "mq"}}
    snapshot = snapshot_of({"dataset": {"annotationStream": stream}})
    run = RunBuilder().spec(dataset={"source": ON_CLAIM}).build()
    effective = merge_spec(snapshot.defaults, run["spec"])
    assert effective.dataset.annotation_stream is not None
    assert find_violations(run["spec"], effective, snapshot, {}) == []


def test_checkpoints_and_notifications_go_to_allowed_hosts_only_and_no_secret_is_told() -> None:
    bucket = {"endpoint": "https://s3.example.org", "bucket": "b1b", "credentials": {"secretName": "keys"}}
    notify = [{"urlFrom": {"secretName": "chat", "key": key}, "on": ["Failed"]} for key in ("hook", "chat")]
    run = RunBuilder().spec(checkpoint={"store": {"s3": bucket}}, notify=notify).build()
    texts = {"hook": b"https://hooks.example.org/s3cret", "chat": b"slack://s3cret/token"}
    data = {key: base64.b64encode(text).decode() for key, text in texts.items()}
    sentences = violations_of(run, {("Secret", "chat"): {"data": data}}, limits={"endpoints": []})
    assert [sentence.partition(":")[0] for sentence in sentences] == [
        "spec.notify[0].urlFrom (hook in Secret 'chat') leads to 'hooks.example.org'",
        "spec.checkpoint.store.s3.endpoint leads to 's3.example.org'",
    ]
    assert "s3cret" not in " ".join(sentences)


@pytest.mark.parametrize(
    "address",
    [
        "HTTPS://evil.org/s3cret",
        "https://s3cret:s3cret@ex\u2100mple.com/x",
        "https://[s3cret",
        "https://evil.org\\@api.example/s3cret",
    ],
)
def test_no_spelling_of_a_notifications_address_gets_around_the_hosts_or_into_the_log(address: str) -> None:
    run = RunBuilder().spec(notify=[{"urlFrom": {"secretName": "a", "key": "k"}, "on": ["Failed"]}]).build()
    found = {("Secret", "a"): {"data": {"k": base64.b64encode(address.encode()).decode()}}}
    (sentence,) = violations_of(run, found, limits={"endpoints": ["api.example"]})
    assert "spec.notify[0].urlFrom (k in Secret 'a')" in sentence
    assert "s3cret" not in sentence


def test_a_notifications_address_may_have_a_user() -> None:
    run = RunBuilder().spec(notify=[{"urlFrom": {"secretName": "a", "key": "k"}, "on": ["Failed"]}]).build()
    found = {("Secret", "a"): {"data": {"k": base64.b64encode(b"jsons://me:s3cret@api.example/x").decode()}}}
    assert violations_of(run, found, limits={"endpoints": ["api.example"]}) == []


@pytest.mark.parametrize(
    ("address", "pattern", "allowed"),
    [
        ("https://api.example.com/base", "api.example.com", True),
        ("https://API.example.com", "api.example.com", True),
        ("https://api.example.com:8443", "api.example.com", True),
        ("https://api.example.com:8443", "api.example.com:443", False),
        ("https://api.example.com", "api.example.com:443", True),
        ("https://api.example.com", "*.example.com", True),
        ("https://example.com", "*.example.com", False),
        ("https://badexample.com", "*.example.com", False),
        ("https://api.example.com.evil.org", "api.example.com", False),
        ("https://evil.org/?api.example.com", "api.example.com", False),
        ("https://api.example.com@evil.org", "api.example.com", False),
        ("store.example.com", "store.example.com", True),
        ("https://api.example.com:x", "api.example.com", False),
        ("https://evil.org\\.example.com", "*.example.com", False),
        ("https://evil.org\\@api.example.com", "api.example.com", False),
        ("https://me@api.example.com", "api.example.com", False),
        ("https://[api.example.com", "api.example.com", False),
    ],
)
def test_a_host_is_allowed_by_its_name_its_port_or_its_domain(
    address: str, pattern: str, allowed: bool
) -> None:
    assert is_allowed(address, (pattern,)) is allowed


@pytest.mark.parametrize(
    ("quantity", "number"),
    [("1.5", 1.5), ("500m", 0.5), (3, 3), ("2k", 2000), ("1Gi", 2**30), ("4Pi", 4 * 2**50)],
)
def test_quantities_are_numbers(quantity: int | str, number: float) -> None:
    assert parse_quantity(quantity) == number


# --- the pod's template -------------------------------------------------------------------------------


def test_a_patch_merges_objects_removes_by_null_and_merges_lists_by_name_or_mount_path() -> None:
    mount = {"name": "licences", "mountPath": "/mnt/licences", "readOnly": True}
    trainer = {"name": "trainer", "env": [{"name": "TZ", "value": "UTC"}], "volumeMounts": [mount]}
    patch = {
        "metadata": {"labels": {"team": "vision"}},
        "spec": {
            "hostname": None,
            "dnsPolicy": "Default",
            "tolerations": [{"operator": "Exists"}],
            "containers": [trainer],
            "volumes": [{"name": "licences", "secret": {"secretName": "licences"}}],
        },
    }
    before, after = template_of({}), template_of(patch)
    assert after["metadata"]["labels"] == before["metadata"]["labels"] | {"team": "vision"}
    assert after["spec"]["dnsPolicy"] == "Default"
    assert [volume["name"] for volume in after["spec"]["volumes"]][-1] == "licences"
    (container,) = after["spec"]["containers"]
    assert container["args"] == before["spec"]["containers"][0]["args"]
    assert container["volumeMounts"] == [*before["spec"]["containers"][0]["volumeMounts"], mount]
    assert {"name": "TZ", "value": "UTC"} in container["env"]


def trainer_patch(**fields: Any) -> Object:
    return {"spec": {"containers": [{"name": "trainer", **fields}]}}


HELPER = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}

REFUSED: dict[str, tuple[Object, str]] = {
    "another account": ({"spec": {"serviceAccountName": "admin"}}, "spec.serviceAccountName"),
    "the account's own token": (
        {"spec": {"automountServiceAccountToken": True}},
        "automountServiceAccountToken",
    ),
    "the node's network": ({"spec": {"hostNetwork": True}}, "spec.hostNetwork"),
    "restarts": ({"spec": {"restartPolicy": "OnFailure"}}, "spec.restartPolicy"),
    "root": ({"spec": {"securityContext": {"runAsUser": 0}}}, "spec.securityContext.runAsUser"),
    "maybe root": ({"spec": {"securityContext": None}}, "spec.securityContext.runAsNonRoot"),
    "no seccomp": ({"spec": {"securityContext": {"seccompProfile": None}}}, "seccompProfile"),
    "a label of ours": ({"metadata": {"labels": {"trainwright.dev/run": "other"}}}, "trainwright.dev/run"),
    "no AppArmor": (
        {"metadata": {"annotations": {f"{APPARMOR}trainer": "unconfined"}}},
        f"metadata.annotations {APPARMOR}trainer",
    ),
    "our labels": ({"metadata": {"labels": None}}, "trainwright.dev/attempt"),
    "a folder of the node": (
        {"spec": {"volumes": [{"name": "node", "hostPath": {"path": "/"}}]}},
        "volume 'node' is a hostPath",
    ),
    "our workspace": ({"spec": {"volumes": [{"name": "workspace", "emptyDir": {}}]}}, "volume 'workspace'"),
    "all volumes": ({"spec": {"volumes": []}}, "volume 'plan'"),
    "another command": (trainer_patch(command=["sh"]), "container 'trainer'.command"),
    "other arguments": (trainer_patch(args=[]), "container 'trainer'.args"),
    "another image": (trainer_patch(image="registry.example/other"), "container 'trainer'.image"),
    "another plan": (
        trainer_patch(volumeMounts=[{"name": "temporary", "mountPath": "/etc/trainwright/plan"}]),
        "the mount /etc/trainwright/plan can't be changed",
    ),
    "a mount over ours": (
        trainer_patch(volumeMounts=[{"name": "temporary", "mountPath": "/etc/trainwright"}]),
        "the mount /etc/trainwright is in the way of",
    ),
    "source data to write": (
        trainer_patch(volumeMounts=[{"name": "data", "mountPath": "/data", "readOnly": False}]),
        "the mount /data can't be changed",
    ),
    "a root file system to write": (
        trainer_patch(securityContext={"readOnlyRootFilesystem": False}),
        "readOnlyRootFilesystem must be True",
    ),
    "a capability": (
        trainer_patch(securityContext={"capabilities": {"add": ["SYS_ADMIN"]}}),
        "securityContext.capabilities",
    ),
    "a privileged trainer": (trainer_patch(securityContext={"privileged": True}), "root or privileged"),
    "a home elsewhere": (trainer_patch(env=[{"name": "HOME", "value": "/data"}]), "variable HOME"),
    "a second container": (
        {"spec": {"containers": [{"name": "proxy", "securityContext": HELPER}]}},
        "use initContainers with restartPolicy: Always",
    ),
    "no trainer": ({"spec": {"containers": []}}, "spec.containers must have 'trainer'"),
    "a helper with rights": (
        {"spec": {"initContainers": [{"name": "helper"}]}},
        "container 'helper'.securityContext",
    ),
    "a helper with our token": (
        {
            "spec": {
                "initContainers": [
                    {
                        "name": "helper",
                        "securityContext": HELPER,
                        "volumeMounts": [{"name": "account", "mountPath": "/account"}],
                    }
                ]
            }
        },
        "container 'helper' must not mount the volume 'account'",
    ),
}


@pytest.mark.parametrize(("patch", "fragment"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_guaranteed_of_a_pod_can_not_be_patched_away(patch: Object, fragment: str) -> None:
    with pytest.raises(PatchRefusedError) as refused:
        template_of(patch)
    assert any(fragment in problem for problem in refused.value.problems), refused.value.problems


def test_a_helper_as_restricted_as_the_trainer_is_welcome() -> None:
    mounts = [{"name": "workspace", "mountPath": "/workspace"}]
    helper = {"name": "helper", "restartPolicy": "Always", "securityContext": HELPER, "volumeMounts": mounts}
    assert template_of({"spec": {"initContainers": [helper]}})["spec"]["initContainers"] == [helper]


# --- the catalogue ------------------------------------------------------------------------------------


def profile(generation: int = 1, version: int = 1, **fields: Any) -> Object:
    metadata = {
        "name": "small",
        "namespace": "ml",
        "uid": "p",
        "generation": generation,
        "resourceVersion": str(version),
    }
    return {"kind": "TrainingProfile", "metadata": metadata, "spec": {"versions": VERSIONS, **fields}}


def test_only_a_new_spec_of_a_profile_concerns_runs() -> None:
    catalogue = Catalogue()
    assert catalogue.keep(profile(1, 1)) == KEY
    assert catalogue.keep(profile(1, 2)) is None  # its status was written
    assert catalogue.keep(profile(2, 5)) == KEY
    assert catalogue.keep(profile(1, 4)) is None  # a watch that lags
    assert catalogue.find(KEY) == profile(2, 5)
    assert catalogue.replace("TrainingProfile", []) == {KEY}
    assert catalogue.find(KEY) is None


def test_a_profile_of_the_cluster_is_the_same_in_every_namespace() -> None:
    keys = {profile_key("ClusterTrainingProfile", namespace, "small") for namespace in ("ml", "vision")}
    assert keys == {ProfileKey("ClusterTrainingProfile", "", "small")}


def test_runs_are_counted_by_profile_and_namespace() -> None:
    users = {("ml", "TrainingProfile/small"): 2, ("vision", "TrainingProfile/small"): 4}
    assert count_runs(KEY, users) == 2
    of_cluster = {("ml", "ClusterTrainingProfile/all"): 1, ("vision", "ClusterTrainingProfile/all"): 2}
    assert count_runs(ProfileKey("ClusterTrainingProfile", "", "all"), of_cluster) == 3


def test_a_profile_that_contradicts_itself_is_not_ready_and_says_why() -> None:
    wrong = profile(
        defaults={"training": {"epochs": 9, "arguments": {"lrf0": 1}}},
        limits={"epochs": 8, "memory": "1Gi"},
        podTemplate={"spec": {"hostPID": True}},
    )
    problems = judge_profile(KEY, wrong, settings())
    for fragment in ("spec.defaults: spec.training.epochs is 9", "lrf0", "spec.hostPID"):
        assert any(fragment in problem for problem in problems)
    assert not any("memory" in problem for problem in problems)  # runs may say it
    status = describe_profile(wrong, problems, 3, datetime(2026, 1, 2, tzinfo=UTC))
    assert (status["conditions"][0]["status"], status["runs"]) == ("False", 3)
    assert judge_profile(KEY, profile(limits={"gpus": 0}), settings()) == ()
