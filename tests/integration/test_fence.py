"""The admission policy that keeps a trainer from writing anything but the report about its own run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from installation import find_kubectl, install, sample_run

from trainwright_operator.manifests.access import trainer_access
from trainwright_operator.names import TRAINER_ACCOUNT, TRAINER_MANAGER

if TYPE_CHECKING:
    from kubernetes import client

    from trainwright_devstack.controlplane import ControlPlane

RUNS = ("trainwright.dev", "v1alpha1")
REPORT = {
    "attempt": 1,
    "heartbeatTime": "2026-11-21T10:00:00Z",
    "progress": {"percent": 40, "stage": "Training", "epoch": 4, "epochs": 10},
}
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
JSON = "application/json-patch+json"


@pytest.fixture(scope="module", autouse=True)
def installed(control_plane: ControlPlane, assets: Path) -> None:
    install(find_kubectl(assets, control_plane))


@dataclass(frozen=True)
class Stage:
    """A namespace with a trainer's account, two of its pods, and a run whose current pod is the first."""

    kube: client.ApiClient
    namespace: str
    pods: dict[str, str]

    def token(self, pod: str | None) -> str:
        """Return a token of the trainer's account; bound to a pod, as the kubelet asks for it, or unbound."""
        from kubernetes import client

        bound = pod and {"kind": "Pod", "apiVersion": "v1", "name": pod, "uid": self.pods[pod]}
        body = {"spec": {"expirationSeconds": 600, "audiences": [], "boundObjectRef": bound or None}}
        answer = client.CoreV1Api(self.kube).create_namespaced_service_account_token(
            TRAINER_ACCOUNT, self.namespace, body
        )
        return str(answer.status.token)

    def send(
        self, token: str, body: Any, *, kind: str = APPLY, path: str = "run/status", method: str = "PATCH"
    ) -> requests.Response:
        """Send a request about the run as the token's owner."""
        query = {"fieldManager": TRAINER_MANAGER} if method == "PATCH" else {}
        return requests.request(
            method,
            f"{self.kube.configuration.host}/apis/{'/'.join(RUNS)}/namespaces/{self.namespace}"
            f"/trainingruns/{path}",
            json=body,
            params=query,
            headers={"Authorization": f"Bearer {token}", "Content-Type": kind},
            verify=self.kube.configuration.ssl_ca_cert,
            timeout=30,
        )

    def run(self) -> dict[str, Any]:
        """Return the run as it is now."""
        from kubernetes import client

        found: dict[str, Any] = client.CustomObjectsApi(self.kube).get_namespaced_custom_object(
            *RUNS, self.namespace, "trainingruns", "run"
        )
        return found


@pytest.fixture
def stage(kube: client.ApiClient, namespace: str) -> Iterator[Stage]:
    from kubernetes import client

    core, runs = client.CoreV1Api(kube), client.CustomObjectsApi(kube)
    account, binding = trainer_access(namespace)
    core.create_namespaced_service_account(namespace, account)
    client.RbacAuthorizationV1Api(kube).create_namespaced_role_binding(namespace, binding)
    pods = {name: _create_pod(core, namespace, name) for name in ("current", "former")}
    runs.create_namespaced_custom_object(*RUNS, namespace, "trainingruns", sample_run("run", namespace))
    status = {
        "phase": "Running",
        "attempt": 1,
        "metrics": {"mAP50": 0.5},
        "currentPod": {"name": "current", "uid": pods["current"]},
    }
    runs.patch_namespaced_custom_object_status(
        *RUNS,
        namespace,
        "trainingruns",
        "run",
        {"apiVersion": "/".join(RUNS), "kind": "TrainingRun", "status": status},
        field_manager="trainwright-operator",
        _content_type=APPLY,
    )
    stage = Stage(kube, namespace, pods)
    _wait_for_policy(stage)
    yield stage
    for pod in pods:
        core.delete_namespaced_pod(pod, namespace, grace_period_seconds=0)


def _create_pod(core: client.CoreV1Api, namespace: str, name: str) -> str:
    """Create a pod of the trainer's account that no node ever gets; return its uid."""
    container = {"name": "trainer", "image": "registry.example/none"}
    spec = {"serviceAccountName": TRAINER_ACCOUNT, "containers": [container], "schedulerName": "nobody"}
    pod = core.create_namespaced_pod(namespace, {"metadata": {"name": name}, "spec": spec})
    return str(pod.metadata.uid)


def _wait_for_policy(stage: Stage) -> None:
    """The API server learns of a new policy a moment after it was created."""
    token = stage.token(None)
    deadline = time.monotonic() + 30
    while stage.send(token, _report()).status_code != 403:
        assert time.monotonic() < deadline, "the policy is not in force after 30 s"
        time.sleep(0.2)


def _report(**status: Any) -> dict[str, Any]:
    body = {"trainer": REPORT, **status}
    return {"apiVersion": "/".join(RUNS), "kind": "TrainingRun", "status": body}


def _assert_refused(response: requests.Response, sentence: str) -> None:
    assert response.status_code == 403, response.text
    assert sentence in response.json()["message"]


def test_the_current_pod_reports_again_and_again(stage: Stage) -> None:
    token = stage.token("current")
    before = stage.run()["status"]

    assert stage.send(token, _report()).status_code == 200
    later = REPORT | {"heartbeatTime": "2026-11-21T10:00:30Z", "metrics": {"mAP50": 0.61}}
    assert stage.send(token, _report(trainer=later)).status_code == 200

    after = stage.run()["status"]
    assert after.pop("trainer") == later
    assert after == before
    assert stage.send(token, None, method="GET").status_code == 200


@pytest.mark.parametrize("pod", ["former", None], ids=["another pod", "no pod"])
def test_any_other_token_of_the_account_is_refused(stage: Stage, pod: str | None) -> None:
    _assert_refused(stage.send(stage.token(pod), _report()), "Only the current pod of a run may report")
    assert "trainer" not in stage.run()["status"]


def test_nobody_reports_before_the_operator_named_the_pod(stage: Stage) -> None:
    from kubernetes import client

    nothing = {"status": {"currentPod": None}}
    client.CustomObjectsApi(stage.kube).patch_namespaced_custom_object_status(
        *RUNS, stage.namespace, "trainingruns", "run", nothing
    )
    response = stage.send(stage.token("current"), _report())
    _assert_refused(response, "Only the current pod of a run may report")


def test_the_current_pod_reports_about_no_other_run(stage: Stage) -> None:
    from kubernetes import client

    other = sample_run("other", stage.namespace)
    client.CustomObjectsApi(stage.kube).create_namespaced_custom_object(
        *RUNS, stage.namespace, "trainingruns", other
    )
    response = stage.send(stage.token("current"), _report(), path="other/status")
    _assert_refused(response, "Only the current pod of a run may report")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (MERGE, {"status": {"phase": "Succeeded"}}),
        (MERGE, {"status": {"stage": "Publishing"}}),
        (MERGE, {"status": {"trainer": REPORT, "metrics": {"mAP50": 0.99}}}),
        (MERGE, {"status": {"currentPod": {"name": "former"}}}),
        (MERGE, {"status": {"attempt": None}}),
        (JSON, [{"op": "remove", "path": "/status/metrics"}]),
        (JSON, [{"op": "remove", "path": "/status"}]),
        (JSON, [{"op": "replace", "path": "/status", "value": {"trainer": REPORT}}]),
    ],
    ids=["change", "add", "change beside a report", "another pod", "remove", "json remove", "all", "replace"],
)
def test_no_other_field_of_the_status_changes(stage: Stage, kind: str, body: Any) -> None:
    before = stage.run()["status"]
    response = stage.send(stage.token("current"), body, kind=kind)
    _assert_refused(response, "A trainer may change nothing but status.trainer")
    assert stage.run()["status"] == before


def test_a_trainer_owns_no_field_of_the_operators(stage: Stage) -> None:
    """Not even with its present value: an owner of a field can keep the operator from changing it."""
    response = stage.send(stage.token("current"), _report(phase="Running"))
    _assert_refused(response, "A trainer may own nothing but status.trainer")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (MERGE, {"metadata": {"managedFields": [{}]}, "status": {"trainer": REPORT}}),
        (MERGE, {"metadata": {"managedFields": []}, "status": {"trainer": REPORT}}),
        (
            JSON,
            [
                {"op": "replace", "path": "/metadata/managedFields/0/manager", "value": "other"},
                {"op": "add", "path": "/status/trainer", "value": REPORT},
            ],
        ),
    ],
    ids=["forget all owners", "empty list", "rename an owner"],
)
def test_the_operator_stays_the_owner_of_its_fields(stage: Stage, kind: str, body: Any) -> None:
    before = [
        entry for entry in stage.run()["metadata"]["managedFields"] if entry["manager"] != TRAINER_MANAGER
    ]
    stage.send(stage.token("current"), body, kind=kind)
    after = [
        entry for entry in stage.run()["metadata"]["managedFields"] if entry["manager"] != TRAINER_MANAGER
    ]
    assert after == before


def test_metadata_and_spec_never_change_through_the_status(stage: Stage) -> None:
    before = stage.run()
    token = stage.token("current")
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "current", "uid": stage.pods["current"]}
    metadata = {
        "labels": {"a": "b"},
        "annotations": {"a": "b"},
        "finalizers": ["trainwright.dev/never"],
        "ownerReferences": [owner],
    }
    body = {"metadata": metadata, "spec": {"cancel": True}, "status": {"trainer": REPORT}}
    stage.send(token, body, kind=MERGE)
    after = stage.run()
    assert after["spec"] == before["spec"]
    assert not after["metadata"].keys() & metadata.keys()


def test_more_rights_by_mistake_give_a_trainer_nothing_more(stage: Stage) -> None:
    from kubernetes import client

    access = client.RbacAuthorizationV1Api(stage.kube)
    rules = [{"apiGroups": [RUNS[0]], "resources": ["*"], "verbs": ["*"]}]
    access.create_namespaced_role(stage.namespace, {"metadata": {"name": "too-much"}, "rules": rules})
    binding = {
        "metadata": {"name": "too-much"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "too-much"},
        "subjects": [{"kind": "ServiceAccount", "name": TRAINER_ACCOUNT, "namespace": stage.namespace}],
    }
    access.create_namespaced_role_binding(stage.namespace, binding)
    token = stage.token("current")
    sentence = "it may not create, change or delete runs"

    change = {"spec": {"suspend": True}}
    _assert_refused(stage.send(token, change, kind=MERGE, path="run"), sentence)
    _assert_refused(stage.send(token, None, path="run", method="DELETE"), sentence)
    created = stage.send(
        token, sample_run("mine", stage.namespace), kind="application/json", path="", method="POST"
    )
    _assert_refused(created, sentence)


def test_it_is_the_policy_that_refuses(stage: Stage) -> None:
    """The account's rights alone would allow it."""
    answer = stage.send(stage.token("former"), {"status": {"phase": "Succeeded"}}, kind=MERGE)
    assert "ValidatingAdmissionPolicy 'trainwright-trainer-fence'" in answer.json()["message"]


def test_a_trainer_of_another_namespace_has_no_right_here(stage: Stage, kube: client.ApiClient) -> None:
    from kubernetes import client

    review = {
        "spec": {
            "user": f"system:serviceaccount:elsewhere:{TRAINER_ACCOUNT}",
            "resourceAttributes": {
                "group": RUNS[0],
                "resource": "trainingruns",
                "subresource": "status",
                "verb": "patch",
                "namespace": stage.namespace,
            },
        }
    }
    answer = client.AuthorizationV1Api(kube).create_subject_access_review(review)
    assert answer.status.allowed is False
