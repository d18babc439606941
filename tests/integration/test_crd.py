"""What a real API server makes of the CRD: wrong runs are refused with a sentence, right ones kept as is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from installation import REPOSITORY, Kubectl, find_kubectl, install, sample_run

if TYPE_CHECKING:
    from kubernetes import client

    from trainwright_devstack.controlplane import ControlPlane

RUNS = ("trainwright.dev", "v1alpha1")
EXAMPLES = sorted((REPOSITORY / "examples").glob("trainingrun-*.yaml"))


@pytest.fixture(scope="module")
def kubectl(control_plane: ControlPlane, assets: Path) -> Kubectl:
    found = find_kubectl(assets, control_plane)
    install(found)
    return found


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_accepted(kubectl: Kubectl, namespace: str, example: Path) -> None:
    kubectl.succeed("apply", "--namespace", namespace, "--dry-run=server", "--filename", str(example))


SAMPLE: dict[str, Any] = {"sample": {}}
CLAIM = {"persistentVolumeClaim": {"claimName": "annotations"}}
STREAM = {"host": "mq.example.com", "stream": "annotations", "credentials": {"secretName": "mq"}}
API = {"url": "https://example.com"}

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "epochs of zero": (
        {"training": {"epochs": 0}},
        "spec.training.epochs in body should be greater than or equal to 1",
    ),
    "unknown field": ({"training": {"epoch": 3}}, 'unknown field "spec.training.epoch"'),
    "image size": (
        {"training": {"imageSize": 100}},
        "spec.training.imageSize in body should be a multiple of 32",
    ),
    "two sources": (
        {"dataset": {"source": SAMPLE | CLAIM}},
        "spec.dataset.source must have exactly one of persistentVolumeClaim, sample",
    ),
    "no source": (
        {"dataset": {"source": {}}},
        "spec.dataset.source must have exactly one of persistentVolumeClaim, sample",
    ),
    "a stream without trees to read it into": (
        {"dataset": {"source": SAMPLE, "annotationStream": STREAM}},
        "spec.dataset.annotationStream needs spec.dataset.source.persistentVolumeClaim",
    ),
    "a broker with its port in the name": (
        {"dataset": {"source": CLAIM, "annotationStream": STREAM | {"host": "mq.example.com:5552"}}},
        "spec.dataset.annotationStream.host in body should match",
    ),
    "a split of 90": (
        {"dataset": {"source": SAMPLE, "split": {"train": 60, "valid": 20, "test": 10}}},
        "spec.dataset.split: train + valid + test must be 100",
    ),
    "two parts of a split that leave nothing": (
        {"dataset": {"source": SAMPLE, "split": {"train": 80, "valid": 20}}},
        "spec.dataset.split: train + valid + test must be 100, each of them at least 1",
    ),
    "two class maps": (
        {"dataset": {"source": SAMPLE, "classes": {"inline": ["cog"], "fromSource": "classes.json"}}},
        "spec.dataset.classes must have at most one of configMapKeyRef, inline, fromSource",
    ),
    "a class map outside the source": (
        {"dataset": {"source": CLAIM, "classes": {"fromSource": "../classes.json"}}},
        "spec.dataset.classes.fromSource must be a file below the source's path",
    ),
    "a folder outside the source": (
        {"dataset": {"source": CLAIM, "directories": {"data": "/etc"}}},
        "spec.dataset.directories.data must be a folder below the source's path",
    ),
    "a path that climbs": (
        {"dataset": {"source": {"persistentVolumeClaim": {"claimName": "a", "path": "/a/../.."}}}},
        "spec.dataset.source.persistentVolumeClaim.path must not contain '..'",
    ),
    "two alterations in one": (
        {"dataset": {"source": SAMPLE, "augmentation": {"transforms": [{"flip": {}, "noise": {}}]}}},
        "spec.dataset.augmentation.transforms: each must have exactly one of flip, brightnessContrast",
    ),
    "an alteration nobody knows": (
        {"dataset": {"source": SAMPLE, "augmentation": {"transforms": [{"melt": {}}]}}},
        'unknown field "spec.dataset.augmentation.transforms[0].melt"',
    ),
    "a smallest scale above the largest": (
        {"dataset": {"source": SAMPLE, "augmentation": {"transforms": [{"affine": {"scaleMin": 1.3}}]}}},
        "spec.dataset.augmentation.transforms[].affine: scaleMin must not be greater than scaleMax",
    ),
    "a chance of more than one": (
        {"dataset": {"source": SAMPLE, "augmentation": {"transforms": [{"flip": {"probability": 1.5}}]}}},
        "probability in body should be less than or equal to 1",
    ),
    "too many copies": (
        {"dataset": {"source": SAMPLE, "augmentation": {"copies": 32}}},
        "spec.dataset.augmentation.copies in body should be less than or equal to 31",
    ),
    "plain http": (
        {"delivery": {"api": {"url": "http://example.com"}}},
        "spec.delivery.api.url must be an https:// address",
    ),
    "loopback in a name": (
        {"delivery": {"api": {"url": "http://127.0.0.1.example.com"}}},
        "spec.delivery.api.url must be an https:// address",
    ),
    "a password in the address": (
        {"delivery": {"api": {"url": "https://me:secret@example.com"}}},
        "spec.delivery.api.url must be an https:// address without user and password",
    ),
    "a backslash in the address": (
        {"delivery": {"api": {"url": "https://example.org\\.example.com"}}},
        "spec.delivery.api.url must be an https:// address",
    ),
    "both kinds of recipients": (
        {"delivery": {"sealing": {"recipients": {"secretName": "a", "configMapName": "b"}}}},
        "spec.delivery.sealing.recipients must have exactly one of secretName, configMapName",
    ),
    "two checkpoint stores": (
        {"checkpoint": {"store": {}}},
        "spec.checkpoint.store must have exactly one of persistentVolumeClaim, s3",
    ),
    "a checkpoint store in the clear": (
        {
            "checkpoint": {
                "store": {
                    "s3": {
                        "endpoint": "http://s3.example.com",
                        "bucket": "checkpoints",
                        "credentials": {"secretName": "store"},
                    }
                }
            }
        },
        "spec.checkpoint.store.s3.endpoint must be an https:// address",
    ),
    "two workspaces": (
        {"compute": {"workspace": {"emptyDir": {}, "persistentVolumeClaim": {}}}},
        "spec.compute.workspace must have at most one of persistentVolumeClaim, emptyDir",
    ),
    "a variable that loads code": (
        {"compute": {"environment": {"LD_PRELOAD": "/data/mine.so"}}},
        "spec.compute.environment must not have LD_*, PYTHON*",
    ),
    "a label of the operator's": (
        {"compute": {"labels": {"trainwright.dev/run": "other"}}},
        "spec.compute.labels must not have keys of trainwright.dev",
    ),
    "no AppArmor": (
        {
            "compute": {
                "annotations": {"container.apparmor.security.beta.kubernetes.io/trainer": "unconfined"}
            }
        },
        "spec.compute.annotations must not have keys of container.apparmor.security.beta.kubernetes.io/",
    ),
    "an unknown metric": ({"gate": {"metric": "f1"}}, 'spec.gate.metric: Unsupported value: "f1"'),
    "a model name with a slash": ({"model": {"name": "a/b"}}, "spec.model.name in body should match"),
    "a budget below no limit": ({"retry": {"preemption": -2}}, "spec.retry.preemption in body should be"),
    "no model": ({"model": None}, "spec.model: Required value"),
}


@pytest.mark.parametrize(("spec", "sentence"), WRONG.values(), ids=WRONG.keys())
@pytest.mark.usefixtures("kubectl")
def test_a_wrong_run_is_refused_by_name_of_its_field(
    kube: client.ApiClient, namespace: str, spec: dict[str, Any], sentence: str
) -> None:
    assert sentence in _refusal(kube, sample_run("wrong", namespace, **spec))


@pytest.mark.parametrize("case", list(WRONG)[:5])
def test_kubectl_says_so_at_apply(kubectl: Kubectl, namespace: str, case: str) -> None:
    spec, sentence = WRONG[case]
    refused = kubectl.run("apply", "--filename", "-", manifest=sample_run("wrong", namespace, **spec))
    assert refused.returncode == 1
    assert sentence in refused.stderr


@pytest.mark.parametrize("name", ["x" * 41, "parts.nightly"])
@pytest.mark.usefixtures("kubectl")
def test_a_name_that_children_can_not_carry_is_refused(
    kube: client.ApiClient, namespace: str, name: str
) -> None:
    refusal = _refusal(kube, sample_run(name, namespace))
    assert "metadata.name must be at most 40 characters, without '.'" in refusal


@pytest.mark.parametrize(
    "spec",
    [
        {"dataset": {"source": SAMPLE, "split": {"train": 60, "valid": 30}}},
        {"dataset": {"source": SAMPLE, "classes": {}}},
        {"delivery": {"api": {"url": "http://127.0.0.1:8443/base"}}},
        {"delivery": {"api": {"url": "http://[::1]:8443"}}},
        {"training": {"arguments": {"iou": 0.5, "cls_remap": True, "max_det": 3, "compile": "default"}}},
        {"compute": {"resources": {"limits": {"cpu": 2, "memory": "4Gi"}}, "environment": {"TZ": "UTC"}}},
    ],
    ids=[
        "part of a split",
        "no class map",
        "loopback",
        "loopback v6",
        "arguments of all types",
        "quantities",
    ],
)
@pytest.mark.usefixtures("kubectl")
def test_a_right_run_is_accepted(kube: client.ApiClient, namespace: str, spec: dict[str, Any]) -> None:
    assert _refusal(kube, sample_run("right", namespace, **spec)) == ""


def _refusal(kube: client.ApiClient, run: dict[str, Any]) -> str:
    """Return what the API server says against a run, as strict as kubectl asks it to be."""
    from kubernetes import client

    runs = client.CustomObjectsApi(kube)
    namespace = run["metadata"]["namespace"]
    try:
        runs.create_namespaced_custom_object(
            *RUNS, namespace, "trainingruns", run, dry_run="All", field_validation="Strict"
        )
    except client.ApiException as error:
        return str(json.loads(error.body)["message"])
    return ""


def test_nothing_is_stamped_into_a_run(kubectl: Kubectl, namespace: str) -> None:
    run = sample_run("plain", namespace)
    kubectl.succeed("create", "--filename", "-", manifest=run)
    stored = yaml.safe_load(kubectl.succeed("get", "trun", "plain", "-n", namespace, "-o", "yaml"))
    assert stored["spec"] == run["spec"]
    assert not stored["metadata"].keys() & {"annotations", "labels", "finalizers"}


FROZEN = {
    "another setting": {"training": {"epochs": 4}},
    "one setting less": {"training": {"epochs": None}},
    "a section more": {"gate": {"minimum": 0.5}},
    "a section less": {"compute": None},
    "another dataset": {"dataset": {"source": {"sample": {"seed": 2}}}},
    "an argument's value": {"training": {"arguments": {"iou": 0.6}}},
    "an argument's type": {"training": {"arguments": {"cls_remap": 1}}},
    "another argument": {"training": {"arguments": {"iou": None, "conf": 0.5}}},
    "one argument more": {"training": {"arguments": {"conf": 0.5}}},
    "deep in the affinity": {"compute": {"affinity": {"nodeAffinity": {"anything": {"deep": 2}}}}},
    "renamed in the affinity": {
        "compute": {"affinity": {"nodeAffinity": {"anything": {"deep": None, "low": 1}}}}
    },
    "a dry run": {"dryRun": True},
}


@pytest.fixture
def recorded(kubectl: Kubectl, namespace: str) -> str:
    """The name of a run that exists."""
    spec = {
        "training": {"epochs": 3, "arguments": {"iou": 0.5, "cls_remap": True}},
        "compute": {"affinity": {"nodeAffinity": {"anything": {"deep": 1}}}},
    }
    kubectl.succeed("create", "--filename", "-", manifest=sample_run("recorded", namespace, **spec))
    return "recorded"


@pytest.mark.parametrize("change", FROZEN.values(), ids=FROZEN.keys())
def test_what_is_trained_can_not_change(
    kube: client.ApiClient, namespace: str, recorded: str, change: dict[str, Any]
) -> None:
    from kubernetes import client

    runs = client.CustomObjectsApi(kube)
    with pytest.raises(client.ApiException) as refused:
        runs.patch_namespaced_custom_object(
            *RUNS,
            namespace,
            "trainingruns",
            recorded,
            {"spec": change},
            _content_type="application/merge-patch+json",
        )
    section = next(iter(change))
    message = json.loads(str(refused.value.body))["message"]
    assert f"spec.{section} can't be changed: a run is a record of what was trained" in message
    assert "Create a new run instead" in message


def test_suspend_cancel_and_retry_change(kubectl: Kubectl, namespace: str, recorded: str) -> None:
    for change in ({"suspend": True}, {"suspend": False}, {"retryRequest": "again"}, {"cancel": True}):
        assert _patch(kubectl, namespace, recorded, change).returncode == 0
    for back in ({"cancel": False}, {"cancel": None}):
        refused = _patch(kubectl, namespace, recorded, back)
        assert "spec.cancel can't be taken back: create a new run instead" in refused.stderr


def test_the_same_file_applies_again(kubectl: Kubectl, namespace: str) -> None:
    arguments = ("apply", "--namespace", namespace, "--filename", str(EXAMPLES[-1]))
    kubectl.succeed(*arguments)
    assert "unchanged" in kubectl.succeed(*arguments)


def _patch(kubectl: Kubectl, namespace: str, name: str, spec: dict[str, Any]) -> Any:
    body = yaml.safe_dump({"spec": spec})
    return kubectl.run("patch", "trun", name, "-n", namespace, "--type=merge", "--patch", body)


def test_explain_reads_like_documentation(kubectl: Kubectl) -> None:
    text = " ".join(kubectl.succeed("explain", "trainingrun.spec.dataset").split())
    assert "What the model is trained on. The source is never changed" in text
    assert (
        "source <Object> -required- Where the annotations come from. Set exactly one of its fields." in text
    )
    epochs = " ".join(kubectl.succeed("explain", "trainingrun.spec.training.epochs").split())
    assert "How often the model sees every training image. Default: 120." in epochs


def test_columns_show_where_a_run_stands(kubectl: Kubectl, namespace: str, recorded: str) -> None:
    status = {
        "phase": "Running",
        "stage": "Training",
        "attempt": 2,
        "attempts": [{"number": 1, "job": "a", "node": "old"}, {"number": 2, "job": "b", "node": "node-7"}],
        "trainer": {
            "attempt": 2,
            "heartbeatTime": "2026-11-21T10:00:00Z",
            "progress": {
                "percent": 40,
                "stage": "Training",
                "epoch": 4,
                "epochs": 10,
                "estimatedRemainingSeconds": 90,
            },
            "metrics": {"mAP50to95": 0.512},
        },
    }
    body = yaml.safe_dump({"status": status})
    patch = (
        "patch",
        "trun",
        recorded,
        "-n",
        namespace,
        "--subresource=status",
        "--type=merge",
        "--patch",
        body,
    )
    kubectl.succeed(*patch)
    header, row = kubectl.succeed("get", "truns", recorded, "-n", namespace).splitlines()
    assert " ".join(header.split()) == "NAME PHASE STAGE PROGRESS EPOCH MAP ATTEMPT MODEL REASON AGE"
    assert " ".join(row.split()[:-1]) == "recorded Running Training 40 4 0.512 2 parts"
    wide = kubectl.succeed("get", "trainwright", "-n", namespace, "-o", "wide").splitlines()
    columns = ["VERSION", "QUEUE", "NODE", "GPUS", "GPU-SECONDS", "ETA", "MESSAGE"]
    assert wide[0].split()[-len(columns) :] == columns
    assert wide[1].split()[-2:] == ["node-7", "90"]


def test_a_status_has_an_end(kubectl: Kubectl, namespace: str, recorded: str) -> None:
    failure = {"cause": "Data", "message": "x" * 2049}
    body = yaml.safe_dump({"status": {"failure": failure}})
    patch = (
        "patch",
        "trun",
        recorded,
        "-n",
        namespace,
        "--subresource=status",
        "--type=merge",
        "--patch",
        body,
    )
    assert "status.failure.message: Too long" in kubectl.run(*patch).stderr
