"""What every child carries: labels to find it by, and the run as its only controller."""

from __future__ import annotations

from typing import Any

from trainwright_operator.names import (
    API_VERSION,
    MANAGED_BY_LABEL,
    OPERATOR_MANAGER,
    PLAN_DIGEST_ANNOTATION,
    RUN_KIND,
    RUN_LABEL,
)

Object = dict[str, Any]


def child_labels(run: Object) -> dict[str, str]:
    """Return the labels of every child of a run."""
    return {RUN_LABEL: run["metadata"]["name"], MANAGED_BY_LABEL: OPERATOR_MANAGER}


def child_metadata(run: Object, name: str, plan_digest: str) -> Object:
    """Return the metadata of a child: deleting the run deletes it, and nothing blocks the run's deletion."""
    metadata = run["metadata"]
    return {
        "name": name,
        "namespace": metadata["namespace"],
        "labels": child_labels(run),
        "annotations": {PLAN_DIGEST_ANNOTATION: plan_digest},
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": RUN_KIND,
                "name": metadata["name"],
                "uid": metadata["uid"],
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ],
    }
