"""What a trainer pod may do in the cluster: report about its run, and nothing else."""

from __future__ import annotations

from typing import Any

from trainwright_operator.names import (
    MANAGED_BY_LABEL,
    OPERATOR_MANAGER,
    TRAINER_ACCOUNT,
    TRAINER_CLUSTER_ROLE,
)

Object = dict[str, Any]


def trainer_access(namespace: str) -> tuple[Object, Object]:
    """Return the account of a namespace's trainers and its binding; the admission policy narrows it."""
    metadata = {
        "name": TRAINER_ACCOUNT,
        "namespace": namespace,
        "labels": {MANAGED_BY_LABEL: OPERATOR_MANAGER},
    }
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata,
        "automountServiceAccountToken": False,
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": TRAINER_CLUSTER_ROLE,
        },
        "subjects": [{"kind": "ServiceAccount", "name": TRAINER_ACCOUNT, "namespace": namespace}],
    }
    return account, binding
