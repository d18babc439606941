"""The same promises for a run whose stages are apart, and whose training a queue admits and takes back."""

from __future__ import annotations

from typing import Any, ClassVar

from builders import make_success
from hypothesis import settings
from hypothesis.stateful import precondition, rule
from memory_cluster import RUN
from test_state_machine import LIVES, RunLife

from trainwright.contract import Outcome, RunReport, StageGroup
from trainwright_operator.admission import is_suspended
from trainwright_operator.attempts import find_condition
from trainwright_operator.names import GROUP_LABEL, job_name
from trainwright_operator.times import format_time

Object = dict[str, Any]

GROUPS = list(StageGroup)


class QueuedLife(RunLife):
    """What a queue and three Jobs for an attempt add to a run's life."""

    SPEC: ClassVar[Object] = {"compute": {"stages": "Apart"}, "queue": {"name": "gpu-a"}}

    def let_go_on(self, job: Object) -> None:
        if is_suspended(job):
            self.tell(job, suspend=False)

    @precondition(lambda self: is_suspended(self.job))
    @rule()
    def queue_admits(self) -> None:
        assert self.job is not None
        self.tell(self.job, suspend=False)

    @precondition(lambda self: self.job is not None and GROUP_LABEL in self.job["metadata"]["labels"])
    @rule()
    def queue_takes_back(self) -> None:
        """Only the Job that trains is in the queue; its pod is deleted, and ends a grace period later."""
        job = self.job
        assert job is not None
        if job["metadata"]["labels"][GROUP_LABEL] != StageGroup.TRAINING or is_suspended(job):
            return
        self.tell(job, suspend=True)
        for pod in self.world.pods_of(job):
            pod["metadata"]["deletionTimestamp"] = format_time(self.world.now)
            self.world.store(pod) if pod["status"]["phase"] == "Running" else self.world.remove(pod)

    def tell(self, job: Object, *, suspend: bool) -> None:
        """Do what Kueue does, and then the Job controller."""
        job["spec"]["suspend"] = suspend
        told = {
            "type": "Suspended",
            "status": str(suspend),
            "lastTransitionTime": format_time(self.world.now),
        }
        job["status"] = {"conditions": [told]}
        self.world.store(job)

    def success_of(self, pod: Object) -> RunReport:
        group = self.group_of(pod)
        last = group is StageGroup.DELIVERY
        outcome = Outcome.SUCCEEDED if last else Outcome.GROUP_DONE
        return make_success(self.number(pod)).model_copy(update={"group": group, "outcome": outcome})

    def report(self, pod: Object, report: RunReport) -> None:
        super().report(pod, report.model_copy(update={"group": self.group_of(pod)}))

    @staticmethod
    def group_of(item: Object) -> StageGroup:
        return StageGroup(item["metadata"]["labels"][GROUP_LABEL])

    def check_order(self, number: int, job: Object) -> Object:
        """A group comes after those before it, or repeats one that did not succeed, under a new number."""
        group = self.group_of(job)
        assert job["metadata"]["name"] == job_name(RUN, number, group)
        assert bool(job["spec"].get("suspend")) == (group is StageGroup.TRAINING)
        done = {self.group_of(item) for item in self.world.all("Job") if find_condition(item, "Complete")}
        done |= {record["group"] for record in self.recorded.values() if record["outcome"] == "Succeeded"}
        told = self.run.get("status", {}).get("trainer", {})  # a pod's word counts where its Job is gone
        done |= {told.get("group")} if told.get("outcome") == Outcome.GROUP_DONE else set()
        assert done >= set(GROUPS[: GROUPS.index(group)]), "a group was skipped"
        newest = max((record["number"] for record in self.recorded.values()), default=0)
        assert number > newest or (number == newest and job["metadata"]["name"] not in self.recorded)
        former = [record for record in self.recorded.values() if record["number"] == number - 1]
        last: Object = max(former, key=lambda record: GROUPS.index(record["group"]), default={})
        return {} if number == newest else last

    def check_gpu(self, usage: Object, lost: int) -> None:
        """Pods that do not train hold no GPU."""
        assert usage["gpuSeconds"] <= usage["podSeconds"]
        assert lost <= usage["lostPodSeconds"]


QueuedLife.TestCase.settings = settings(LIVES, max_examples=40)
TestQueuedLife = QueuedLife.TestCase
