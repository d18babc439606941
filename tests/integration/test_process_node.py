"""Jobs and pods on a process node behave as on any other."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from kubernetes import client


Object = dict[str, Any]

pytestmark = pytest.mark.usefixtures("process_node")


class Cluster:
    """Creates and reads objects of one namespace as plain JSON."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        from kubernetes import client

        self.api, self.namespace = api, namespace
        self.core, self.batch = client.CoreV1Api(api), client.BatchV1Api(api)

    def pod(self, name: str, script: str = "", **spec: Any) -> None:
        """Create a pod of one container that runs a shell script."""
        container = {"name": "main", "image": "any", "command": ["sh", "-c", script]}
        container |= spec.pop("container", {})
        body = {
            "metadata": {"name": name},
            "spec": {"restartPolicy": "Never", "containers": [container], **spec},
        }
        self.core.create_namespaced_pod(self.namespace, body)

    def read(self, name: str) -> Object:
        found: Object = self.api.sanitize_for_serialization(
            self.core.read_namespaced_pod(name, self.namespace)
        )
        return found

    def status(self, name: str) -> Object:
        """Return the status of the pod's first container."""
        statuses: list[Object] = self.read(name)["status"].get("containerStatuses") or [{"state": {}}]
        return statuses[0]

    def ended(self, name: str) -> Object:
        """Wait for the pod's end and return how its first container terminated."""
        wait_for(lambda: self.read(name)["status"]["phase"] in {"Succeeded", "Failed"})
        state: Object = self.status(name)["state"]["terminated"]
        return state


@pytest.fixture
def cluster(kube: client.ApiClient, namespace: str) -> Cluster:
    return Cluster(kube, namespace)


def wait_for(holds: Callable[[], Any], seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)
    return value


def job(script: str) -> Object:
    container = {"name": "main", "image": "any", "command": ["sh", "-c", script]}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    return {"metadata": {"name": "work"}, "spec": {"backoffLimit": 0, "template": template}}


def job_condition(cluster: Cluster) -> str:
    conditions = cluster.batch.read_namespaced_job("work", cluster.namespace).status.conditions or []
    return next((each.type for each in conditions if each.type in {"Complete", "Failed"}), "")


def test_a_job_completes(cluster: Cluster) -> None:
    cluster.batch.create_namespaced_job(cluster.namespace, job("exit 0"))
    assert wait_for(lambda: job_condition(cluster)) == "Complete"


def test_a_job_fails_with_its_exit_code(cluster: Cluster) -> None:
    cluster.batch.create_namespaced_job(cluster.namespace, job("exit 65"))
    assert wait_for(lambda: job_condition(cluster)) == "Failed"
    (pod,) = cluster.core.list_namespaced_pod(cluster.namespace).items
    assert pod.status.container_statuses[0].state.terminated.exit_code == 65
