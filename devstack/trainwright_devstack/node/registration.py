"""The node as the cluster sees it: a Node object that is Ready, and a Lease that is renewed."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from typing import Any

from trainwright_devstack.api import STRATEGIC_MERGE_PATCH, Api, ApiError
from trainwright_devstack.binaries import KUBERNETES_VERSION, architecture, system
from trainwright_devstack.node.podstatus import ADDRESS, now

Object = dict[str, Any]

PROCESS_NODE_LABEL = "trainwright.dev/process-node"
LEASE_SECONDS = 40
MOST_PODS = 110


def register(api: Api, name: str, port: int) -> None:
    """Create the node if it is not known, and say that it is ready."""
    api.create("/api/v1/nodes", _node(name))
    report_ready(api, name, port)


def report_ready(api: Api, name: str, port: int) -> None:
    """Write the node's status; `port` serves the logs."""
    api.patch(f"/api/v1/nodes/{name}/status", {"status": _status(port)}, STRATEGIC_MERGE_PATCH)


def renew_lease(api: Api, name: str) -> None:
    """Tell that the node lives."""
    leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
    spec = {
        "holderIdentity": name,
        "leaseDurationSeconds": LEASE_SECONDS,
        "renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    try:
        api.patch(f"{leases}/{name}", {"spec": spec})
    except ApiError as error:
        if error.status != 404:
            raise
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}}
        api.create(leases, body | {"spec": spec})


def _node(name: str) -> Object:
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": system(),
        "kubernetes.io/arch": architecture(),
        PROCESS_NODE_LABEL: "true",
    }
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}


def _status(port: int) -> Object:
    resources = {"cpu": str(os.cpu_count() or 1), "memory": str(_memory_bytes()), "pods": str(MOST_PODS)}
    return {
        "capacity": resources,
        "allocatable": resources,
        "addresses": [{"type": "InternalIP", "address": ADDRESS}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        "conditions": [_condition("Ready", holds=True, reason="ProcessNodeReady")]
        + [
            _condition(kind, holds=False, reason="NotMeasured")
            for kind in ("MemoryPressure", "DiskPressure", "PIDPressure")
        ],
        "nodeInfo": {
            "architecture": architecture(),
            "operatingSystem": system(),
            "kernelVersion": platform.release(),
            "osImage": platform.platform(),
            "kubeletVersion": KUBERNETES_VERSION,
            "containerRuntimeVersion": "process://1",
            "machineID": "",
            "systemUUID": "",
            "bootID": "",
            "kubeProxyVersion": "",
        },
    }


def _condition(kind: str, *, holds: bool, reason: str) -> Object:
    moment = now()
    return {
        "type": kind,
        "status": str(holds),
        "reason": reason,
        "lastHeartbeatTime": moment,
        "lastTransitionTime": moment,
    }


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
