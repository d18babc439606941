"""What Kueue writes to a Job and to its Workload, in its order; Kueue itself does not run here.

As its sources and documents have it: admission sets the Workload's conditions, then one patch of the Job sets
node labels of the flavor in the pod template and unsuspends. Preemption sets the Workload's conditions, then
suspends the Job, takes the start time from its status, and puts the template back; when the Job has no pod
any more, the Workload waits again.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from stack_cluster import wait
from whole_stack import Team

Object = dict[str, Any]

MANAGER = "kueue-job-controller"
QUEUE = "gpu-a"
WORKLOADS: Object = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "workloads.kueue.x-k8s.io"},
    "spec": {
        "group": "kueue.x-k8s.io",
        "scope": "Namespaced",
        "names": {"kind": "Workload", "plural": "workloads", "singular": "workload"},
        "versions": [
            {
                "name": "v1beta1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                },
            }
        ],
    },
}
NO_QUOTA = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu"


@dataclass(frozen=True)
class Kueue:
    """Plays Kueue in one namespace."""

    team: Team

    def install(self) -> None:
        """Make the kind Workload known, as an installation of Kueue does."""
        self.team.apply(WORKLOADS)
        self.team.cluster.kubectl("wait", "--for=condition=Established", f"crd/{_name_of(WORKLOADS)}")

    def enqueue(self, job: str) -> None:
        """Make the Workload of a suspended Job: there is no quota for it yet."""
        found = self._job(job)
        uid = found["metadata"]["uid"]
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": uid, "controller": True}
        workload = {
            "apiVersion": "kueue.x-k8s.io/v1beta1",
            "kind": "Workload",
            "metadata": {
                "name": f"job-{job}",
                "namespace": self.team.namespace,
                "labels": {"kueue.x-k8s.io/job-uid": uid},
                "ownerReferences": [owner],
            },
            "spec": {"queueName": found["metadata"]["labels"]["kueue.x-k8s.io/queue-name"], "active": True},
        }
        self.team.kubectl("create", "-f", "-", manifest=workload)
        self._tell(job, QuotaReserved=("False", "Pending", NO_QUOTA))

    def admit(self, job: str, flavor: Object) -> None:
        """Give the Job its quota, and let it start on nodes with the flavor's labels."""
        self._tell(
            job,
            QuotaReserved=("True", "QuotaReserved", "Quota reserved in ClusterQueue gpus"),
            Admitted=("True", "Admitted", "The workload is admitted"),
        )
        template = {
            "metadata": {"labels": {"kueue.x-k8s.io/podset": "main"}},
            "spec": {"nodeSelector": flavor},
        }
        self._patch("job", job, {"spec": {"suspend": False, "template": template}})

    def preempt(self, job: str) -> None:
        """Take the quota back for a Job of higher priority."""
        why = "Preempted to accommodate a workload due to prioritization in the ClusterQueue"
        self._tell(job, Evicted=("True", "Preempted", why), Preempted=("True", "InClusterQueue", why))
        stopping = {"kueue.x-k8s.io/stopping": "true"}
        self._patch("job", job, {"metadata": {"annotations": stopping}, "spec": {"suspend": True}})
        if "startTime" in self._job(job)["status"]:
            self._patch("job", job, {"status": {"startTime": None}}, "--subresource=status")
        restored = {
            "metadata": {"annotations": dict.fromkeys(stopping)},
            "spec": {
                "template": {
                    "metadata": {"labels": {"kueue.x-k8s.io/podset": None}},
                    "spec": {"nodeSelector": None},
                }
            },
        }
        self._patch("job", job, restored)

    def requeue(self, job: str) -> None:
        """Let the Workload wait again, once the Job has no pod any more."""
        wait(lambda: not self._job(job)["status"].get("active"), f"Job {job} has no active pod")
        self._tell(
            job,
            QuotaReserved=("False", "Pending", NO_QUOTA),
            Admitted=("False", "NoReservation", "The workload has no reservation"),
            Requeued=("True", "Preempted", "The workload is requeued"),
        )

    def _job(self, job: str) -> Object:
        return self.team.get("job", job)

    def _tell(self, job: str, **conditions: tuple[str, str, str]) -> None:
        """Set conditions of a Job's Workload; those it has and that are not named stay."""
        workload = self.team.get("workload", f"job-{job}")
        known = {item["type"]: item for item in workload.get("status", {}).get("conditions", ())}
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        for type_, (status, reason, message) in conditions.items():
            told = {"type": type_, "status": status, "reason": reason, "message": message}
            known[type_] = told | {"lastTransitionTime": now}
        body = {"status": {"conditions": list(known.values())}}
        self._patch("workload", f"job-{job}", body, "--subresource=status")

    def _patch(self, kind: str, name: str, body: Object, *options: str) -> None:
        words = ("--type", "merge", "--field-manager", MANAGER, *options)
        self.team.kubectl("patch", kind, name, *words, "-p", json.dumps(body))


def _name_of(item: Object) -> str:
    return str(item["metadata"]["name"])


def writers_of(item: Object) -> dict[str, list[str]]:
    """Return when each manager wrote to an object, itself or its status."""
    times: dict[str, list[str]] = {}
    for entry in item["metadata"]["managedFields"]:
        times.setdefault(entry["manager"], []).append(entry["time"])
    return times
