"""A namespace in which runs are made without a node: tests tell how their pods fare."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from installation import sample_run

from trainwright.contract import RunReport

if TYPE_CHECKING:
    from kubernetes import client

Object = dict[str, Any]
RUNS = ("trainwright.dev", "v1alpha1")
UNSCHEDULED = {"gpus": 0, "schedulerName": "nobody"}


@dataclass(frozen=True)
class Bench:
    """A namespace in which runs are made, watched and ended."""

    kube: client.ApiClient
    namespace: str

    @property
    def core(self) -> client.CoreV1Api:
        from kubernetes import client

        return client.CoreV1Api(self.kube)

    @property
    def batch(self) -> client.BatchV1Api:
        from kubernetes import client

        return client.BatchV1Api(self.kube)

    @property
    def runs(self) -> client.CustomObjectsApi:
        from kubernetes import client

        return client.CustomObjectsApi(self.kube)

    def create(self, name: str = "run", **spec: Any) -> None:
        """Create a run whose pods no scheduler takes."""
        body = sample_run(name, self.namespace, **{"compute": UNSCHEDULED, **spec})
        self.runs.create_namespaced_custom_object(*RUNS, self.namespace, "trainingruns", body)

    def patch(self, name: str = "run", **spec: Any) -> None:
        """Change fields of a run's spec."""
        self.runs.patch_namespaced_custom_object(
            *RUNS,
            self.namespace,
            "trainingruns",
            name,
            {"spec": spec},
            _content_type="application/merge-patch+json",
        )

    def get(self, name: str = "run") -> Object:
        """Return the run."""
        found: Object = self.runs.get_namespaced_custom_object(*RUNS, self.namespace, "trainingruns", name)
        return found

    def wait(self, reached: Callable[[Object], bool], name: str = "run", seconds: float = 20) -> Object:
        """Return the run's status as soon as it is as wanted."""
        deadline = time.monotonic() + seconds
        while True:
            status: Object = self.get(name).get("status", {})
            if status and reached(status):
                return status
            assert time.monotonic() < deadline, status
            time.sleep(0.05)

    def wait_for_phase(self, phase: str, name: str = "run") -> Object:
        """Return the status once the run is in a phase."""
        return self.wait(lambda status: status.get("phase") == phase, name)

    def wait_for_pod(self, attempt: int, name: str = "run") -> str:
        """Return the name of the attempt's pod once the run names it as the one that may report."""
        job = f"{name}-{attempt}"
        status = self.wait(
            lambda status: status.get("currentPod", {}).get("name", "").startswith(f"{job}-"), name
        )
        pod: str = status["currentPod"]["name"]
        return pod

    def end_pod(
        self, pod: str, exit_code: int, report: RunReport | None = None, reason: str = "Error"
    ) -> None:
        """Tell the API server, as a kubelet would, that a pod ended."""
        terminated = {
            "exitCode": exit_code,
            "reason": "Completed" if exit_code == 0 else reason,
            "message": report.to_json() if report else "",
            "startedAt": "2026-01-02T03:04:05Z",
            "finishedAt": "2026-01-02T03:05:05Z",
        }
        status = {
            "phase": "Succeeded" if exit_code == 0 else "Failed",
            "containerStatuses": [
                {
                    "name": "trainer",
                    "image": "trainer:test",
                    "imageID": "",
                    "ready": False,
                    "restartCount": 0,
                    "state": {"terminated": terminated},
                }
            ],
        }
        self.core.patch_namespaced_pod_status(pod, self.namespace, {"status": status})


def children_of(bench: Bench) -> list[str]:
    """Return what there is of a run but events; a claim stays until its protection saw no pod use it."""
    config_maps = bench.core.list_namespaced_config_map(bench.namespace).items
    jobs = bench.batch.list_namespaced_job(bench.namespace).items
    pods = bench.core.list_namespaced_pod(bench.namespace).items
    claims = bench.core.list_namespaced_persistent_volume_claim(bench.namespace).items
    items = [*config_maps, *jobs, *pods, *claims]
    return [item.metadata.name for item in items if item.metadata.name.startswith("run")]
