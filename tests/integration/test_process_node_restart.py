"""A node that crashed and comes back takes its pods over."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from kubernetes import client

    from trainwright_devstack.controlplane import ControlPlane
    from trainwright_devstack.processnode import ProcessNode


@pytest.fixture
def node(control_plane: ControlPlane, kube: client.ApiClient, tmp_path: Path) -> Iterator[ProcessNode]:
    """A node of this test's own."""
    from kubernetes import client

    from trainwright_devstack.processnode import ProcessNode

    with ProcessNode(tmp_path / "node", control_plane.kubeconfig, name="crashing") as node:
        yield node
    client.CoreV1Api(kube).delete_node("crashing")


def run_pod(kube: client.ApiClient, namespace: str, script: str) -> None:
    from kubernetes import client

    container = {"name": "main", "image": "any", "command": ["sh", "-c", script]}
    spec = {"nodeName": "crashing", "restartPolicy": "Never", "containers": [container]}
    client.CoreV1Api(kube).create_namespaced_pod(namespace, {"metadata": {"name": "work"}, "spec": spec})


def wait_for_state(kube: client.ApiClient, namespace: str, kind: str) -> Any:
    from kubernetes import client

    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        pod = client.CoreV1Api(kube).read_namespaced_pod("work", namespace)
        for status in pod.status.container_statuses or []:
            if state := getattr(status.state, kind):
                return state
        time.sleep(0.1)
    raise AssertionError(f"never {kind}: {pod.status}")


def container_process(node: ProcessNode) -> dict[str, int]:
    import json

    (record,) = node.folder.glob("pods/*/containers/main/0/process.json")
    found: dict[str, int] = json.loads(record.read_text())
    return found


def test_exit_codes_of_the_time_between_are_not_lost(
    node: ProcessNode, kube: client.ApiClient, namespace: str
) -> None:
    run_pod(kube, namespace, "sleep 1; exit 42")
    wait_for_state(kube, namespace, "running")
    node.kill()
    time.sleep(1.2)
    node.start()
    assert wait_for_state(kube, namespace, "terminated").exit_code == 42


def test_a_container_that_runs_on_is_found_and_can_be_ended(
    node: ProcessNode, kube: client.ApiClient, namespace: str
) -> None:
    from kubernetes import client

    run_pod(kube, namespace, "exec sleep 300")
    wait_for_state(kube, namespace, "running")
    process = container_process(node)["pid"]
    node.kill()
    os.kill(process, 0)
    node.start()
    core = client.CoreV1Api(kube)
    core.delete_namespaced_pod("work", namespace, grace_period_seconds=5)
    deadline = time.monotonic() + 10
    while core.list_namespaced_pod(namespace).items:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_an_exit_code_nobody_saw_is_not_made_up(
    node: ProcessNode, kube: client.ApiClient, namespace: str
) -> None:
    run_pod(kube, namespace, "exec sleep 300")
    wait_for_state(kube, namespace, "running")
    process = container_process(node)
    node.kill()
    os.kill(process["guard"], signal.SIGKILL)
    os.kill(process["pid"], signal.SIGKILL)
    node.start()
    end = wait_for_state(kube, namespace, "terminated")
    assert (end.exit_code, end.reason) == (137, "ContainerStatusUnknown")


def test_nothing_goes_on_when_the_owner_of_a_killed_node_stops_it(
    node: ProcessNode, kube: client.ApiClient, namespace: str
) -> None:
    run_pod(kube, namespace, "exec sleep 300")
    wait_for_state(kube, namespace, "running")
    process = container_process(node)["pid"]
    node.kill()
    node.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
