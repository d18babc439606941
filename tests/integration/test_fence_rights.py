"""What the roles of the chart allow, and what they must never allow, as the API server sees it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from installation import Kubectl, find_kubectl, install

from trainwright_operator.manifests.access import trainer_access
from trainwright_operator.names import TRAINER_ACCOUNT

if TYPE_CHECKING:
    from kubernetes import client

    from trainwright_devstack.controlplane import ControlPlane

OPERATOR = "system:serviceaccount:trainwright-system:trainwright-operator"
RUNS = "trainwright.dev"
Right = tuple[str, str, str, str]  # verb, API group, resource or resource/subresource, name of the object

ALLOWED = [
    ("list", RUNS, "trainingruns", ""),
    ("watch", RUNS, "trainingruns", ""),
    ("patch", RUNS, "trainingruns/status", ""),
    ("create", "batch", "jobs", ""),
    ("delete", "batch", "jobs", ""),
    ("watch", "", "pods", ""),
    ("create", "", "configmaps", ""),
    ("create", "", "persistentvolumeclaims", ""),
    ("delete", "", "persistentvolumeclaims", ""),
    ("create", "", "serviceaccounts", ""),
    ("create", "rbac.authorization.k8s.io", "rolebindings", ""),
    ("get", "", "secrets", ""),
    ("create", "events.k8s.io", "events", ""),
    ("get", "admissionregistration.k8s.io", "validatingadmissionpolicies", "trainwright-trainer-fence"),
    ("get", "admissionregistration.k8s.io", "validatingadmissionpolicybindings", "trainwright-trainer-fence"),
]
FORBIDDEN = [
    ("list", "", "secrets", ""),
    ("watch", "", "secrets", ""),
    ("create", "", "secrets", ""),
    ("list", "", "persistentvolumeclaims", ""),
    ("list", "", "configmaps", ""),
    ("update", "", "configmaps", ""),
    ("delete", "", "configmaps", ""),
    ("patch", RUNS, "trainingruns", ""),
    ("delete", RUNS, "trainingruns", ""),
    ("create", RUNS, "trainingruns", ""),
    ("update", RUNS, "trainingruns/status", ""),
    ("patch", "batch", "jobs", ""),
    ("create", "", "pods", ""),
    ("delete", "", "pods", ""),
    ("get", "", "pods/log", ""),
    ("create", "", "pods/exec", ""),
    ("create", "", "serviceaccounts/token", ""),
    ("bind", "rbac.authorization.k8s.io", "clusterroles", ""),
    ("escalate", "rbac.authorization.k8s.io", "clusterroles", ""),
    ("delete", "rbac.authorization.k8s.io", "rolebindings", ""),
    ("create", "rbac.authorization.k8s.io", "clusterrolebindings", ""),
    ("delete", "admissionregistration.k8s.io", "validatingadmissionpolicies", "trainwright-trainer-fence"),
    ("get", "admissionregistration.k8s.io", "validatingadmissionpolicies", "another"),
    ("impersonate", "", "users", ""),
    ("patch", "events.k8s.io", "events", ""),
]


@pytest.fixture(scope="module", autouse=True)
def kubectl(control_plane: ControlPlane, assets: Path) -> Kubectl:
    found = find_kubectl(assets, control_plane)
    install(found)
    return found


def _may(kube: client.ApiClient, user: str, right: Right, namespace: str) -> bool:
    from kubernetes import client

    verb, group, path, name = right
    resource, _, subresource = path.partition("/")
    attributes = {
        "verb": verb,
        "group": group,
        "resource": resource,
        "subresource": subresource,
        "name": name,
        "namespace": "" if group.startswith("admission") else namespace,
    }
    review = {"spec": {"user": user, "resourceAttributes": attributes}}
    return bool(client.AuthorizationV1Api(kube).create_subject_access_review(review).status.allowed)


def test_the_operator_may_do_its_work(kube: client.ApiClient) -> None:
    assert [right for right in ALLOWED if not _may(kube, OPERATOR, right, "default")] == []


def test_the_operator_may_do_nothing_else(kube: client.ApiClient) -> None:
    assert [right for right in FORBIDDEN if _may(kube, OPERATOR, right, "default")] == []


@pytest.mark.parametrize("namespaced", [False, True], ids=["everywhere", "in its namespaces only"])
def test_the_operator_gives_trainers_their_access_and_nobody_any_other(
    kubectl: Kubectl, namespace: str, namespaced: bool
) -> None:
    """The API server lets an account give away only what it has: this needs neither bind nor escalate."""
    operator = OPERATOR
    if namespaced:
        operator = f"system:serviceaccount:{namespace}:operator"
        binding = _binding("operator", namespace, "trainwright-operator", "operator")
        kubectl.succeed("create", "-f", "-", manifest=binding)
    account, binding = trainer_access(namespace)
    for manifest in (account, binding):
        kubectl.succeed("create", "-f", "-", "--as", operator, manifest=manifest)
    for role in ("edit", "cluster-admin"):
        more = _binding(role, namespace, role, TRAINER_ACCOUNT)
        refused = kubectl.run("create", "-f", "-", "--as", operator, manifest=more)
        assert "attempting to grant RBAC permissions not currently held" in refused.stderr


def _binding(name: str, namespace: str, role: str, account: str) -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": name, "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
    }


def test_roles_for_people_are_part_of_the_clusters_own(kube: client.ApiClient, namespace: str) -> None:
    from kubernetes import client

    access = client.RbacAuthorizationV1Api(kube)
    for role in ("view", "edit", "admin"):
        binding = {
            "metadata": {"name": role},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "User", "name": f"a-{role}er", "apiGroup": "rbac.authorization.k8s.io"}],
        }
        access.create_namespaced_role_binding(namespace, binding)
    granted = {
        (role, verb, path)
        for role in ("view", "edit", "admin")
        for verb, path in (
            ("get", "trainingruns"),
            ("create", "trainingruns"),
            ("patch", "trainingruns"),
            ("patch", "trainingruns/status"),
        )
        if _may(kube, f"a-{role}er", (verb, RUNS, path, ""), namespace)
    }
    assert granted == {
        ("view", "get", "trainingruns"),
        *((role, verb, "trainingruns") for role in ("edit", "admin") for verb in ("get", "create", "patch")),
    }
