"""Whatever happens to a run's Job and pods, to the operator and to its writes: the run keeps its promises.

The real reconciler works against a small API server in memory; Hypothesis lets things happen in any order.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections import Counter
from datetime import timedelta
from typing import Any, ClassVar, cast

from builders import RunBuilder, make_failure, make_report, make_success, terminated
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from memory_cluster import KEY, NAMESPACE, RUN, SETTINGS, WATCHED, World, list_all

from trainwright.contract import TERMINATION_MESSAGE_BYTES, Cause, ExitCode, RunReport, Stage
from trainwright_operator.admission import is_suspended
from trainwright_operator.api import TrainingRunStatus
from trainwright_operator.attempts import KEPT, find_condition, place_of
from trainwright_operator.cluster import (
    ApiError,
    Cluster,
)
from trainwright_operator.names import (
    ADJUSTMENTS_ANNOTATION,
    ATTEMPT_LABEL,
    GROUP_LABEL,
    RETRY_REQUEST_ANNOTATION,
    RUN_LABEL,
    ConditionType,
    job_name,
)
from trainwright_operator.reconcile import Reconciler
from trainwright_operator.retries import BUDGET_FIELDS, BUDGETS
from trainwright_operator.store import Store
from trainwright_operator.times import format_time, parse_time

Object = dict[str, Any]

MOST_STATUS_BYTES = 16 * 1024
ENDED = ("Succeeded", "Failed")
NODES = (*(f"node-{letter}" for letter in "abcdef"), "m" * 253, "n" * 253)
MOST_LOST = 2  # nodes at a time: a broken GPU may exclude four others
MANY = 1000


LIMITS: Object = {
    "deadlines": {"queuedSeconds": 3000, "activeSeconds": 2000, "stalledSeconds": 600},
    "budget": {"gpuSeconds": 1500},
}


def has_ended(job: Object) -> bool:
    """Return whether a Job is complete or failed."""
    return bool(find_condition(job, "Complete") or find_condition(job, "Failed"))


MESSAGES = st.sampled_from(["it broke", "x" * 2048, "ї" * 700, '"' * 900])
EXITS = st.sampled_from([*ExitCode, 137, 143, 1, 139])


class RunLife(RuleBasedStateMachine):
    """A run, its Job, its pods, the operator: each rule is one thing that happens."""

    SPEC: ClassVar[Object] = {}  # what all these runs have beside their budgets

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.requests = 0
        self.recorded: dict[str, Object] = {}  # ended attempts, by Job, as they were first written
        self.counts: Counter[str] = Counter()
        self.finished: str | None = None  # Succeeded or Cancelled, once it was written
        self.failed_for: str | None = None  # the retryRequest that was granted when the run failed
        self.stamps: dict[str, tuple[str, str]] = {}
        self.given: dict[str, int] = {}  # what trainers were told in place of the plan's

    @initialize(
        retry=st.sampled_from([{}, {"infrastructure": 1, "outOfMemory": 0, "publishing": 2, "unknown": 0}]),
        long=st.booleans(),
        fenced=st.booleans(),
        limits=st.sampled_from([{}, LIMITS]),
    )
    def begin(self, retry: dict[str, int], long: bool, fenced: bool, limits: Object) -> None:
        self.retry = retry
        self.long = long
        self.image = "i" * 600 if long else "trainer:1"
        body = copy.deepcopy(RunBuilder(RUN, NAMESPACE).spec(retry=retry, **limits, **self.SPEC).build())
        self.world = World(body)
        self.world.fenced = fenced
        self.world.on_job, self.world.on_status = self.check_job, self.check_status
        self.restart()

    def teardown(self) -> None:
        try:
            if hasattr(self, "world"):
                self.see_it_end()
        finally:
            self.loop.close()

    # --- the operator ----------------------------------------------------------------------------------

    @rule()
    def restart(self) -> None:
        """The operator is killed and started again: it knows nothing but what it lists."""
        self.operator = Reconciler(cast(Cluster, self.world), Store(), SETTINGS, clock=lambda: self.world.now)
        self.relist()

    @rule()
    def relist(self) -> None:
        self.loop.run(list_all(self.world, self.operator.store))

    @rule(kind=st.sampled_from(WATCHED), count=st.integers(1, 9))
    def hear(self, kind: str, count: int) -> None:
        """One watch delivers some of what happened; the others lag behind."""
        for event in self.world.events[kind][:count]:
            store = self.operator.store
            (store.forget if event["type"] == "DELETED" else store.keep)(kind, event["object"])
        del self.world.events[kind][:count]

    def hear_all(self) -> None:
        for kind in WATCHED:
            self.hear(kind, len(self.world.events[kind]))

    @rule()
    def reconcile(self) -> None:
        try:
            self.loop.run(self.operator.reconcile(KEY))
        except ApiError:
            return  # the queue repeats it

    @rule()
    def reconcile_to_rest(self) -> None:
        """With all heard a few calls are enough, and then nothing is written any more."""
        self.world.fault = None
        for _ in range(4):
            self.hear_all()
            self.reconcile()
        self.hear_all()
        writes = self.world.writes
        self.reconcile()
        if self.world.fenced and not self.deleting():
            assert self.world.writes == writes, "the same observation gave another status"

    @rule(
        what=st.sampled_from(["ConfigMap", "Job", "status", "deletion"]),
        when=st.sampled_from(["before", "after", "refused"]),
    )
    def lose_a_write(self, what: str, when: str) -> None:
        self.world.fault = (what, when)

    # --- the user and the platform ------------------------------------------------------------------------

    def edit(self, **spec: Any) -> None:
        self.run["spec"] |= spec
        self.run["metadata"]["generation"] += 1
        self.world.store(self.run)

    @property
    def run(self) -> Object:
        return self.world.objects["TrainingRun", RUN]

    @rule(suspend=st.booleans())
    def suspend(self, suspend: bool) -> None:
        self.edit(suspend=suspend)

    @rule(cancel=st.booleans(), sure=st.integers(0, 3))
    def cancel(self, cancel: bool, sure: int) -> None:
        if sure == 0:  # else most lives would end early
            self.edit(cancel=cancel)

    @rule(new=st.booleans())
    def request_a_retry(self, new: bool) -> None:
        self.requests += new
        self.edit(retryRequest=f"again-{self.requests}" if self.requests else "")

    @rule(fenced=st.booleans())
    def change_the_policy(self, fenced: bool) -> None:
        self.world.fenced = fenced

    @rule(seconds=st.sampled_from([1, 30, 600]))
    def wait(self, seconds: int) -> None:
        self.world.now += timedelta(seconds=seconds)

    # --- Jobs and pods ------------------------------------------------------------------------------------

    @property
    def job(self) -> Object | None:
        """The newest Job that has not ended."""
        jobs = [job for job in self.world.all("Job") if not has_ended(job)]
        return jobs[-1] if jobs else None

    @property
    def pod(self) -> Object | None:
        """The newest pod that has not ended, and whose node answers: nobody hears of the others."""
        live = [pod for pod in self.world.all("Pod") if pod["status"]["phase"] not in ENDED]
        reached = [pod for pod in live if self.world.answers(pod)]
        return reached[-1] if reached else None

    def deleting(self) -> bool:
        return any(job["metadata"].get("deletionTimestamp") for job in self.world.all("Job"))

    @precondition(lambda self: self.job is not None)
    @rule()
    def job_makes_its_pod(self) -> None:
        job = self.job
        assert job is not None
        taken = job["metadata"].get("deletionTimestamp") or is_suspended(job)
        if taken or self.world.pods_of(job):
            return
        labels = {RUN_LABEL, ATTEMPT_LABEL, GROUP_LABEL} & job["metadata"]["labels"].keys()
        self.world.store(
            {
                "kind": "Pod",
                "metadata": {
                    "name": f"{job['metadata']['name']}-{self.world.version}",
                    "namespace": NAMESPACE,
                    "labels": {label: job["metadata"]["labels"][label] for label in sorted(labels)},
                    "ownerReferences": [{"uid": job["metadata"]["uid"], "controller": True}],
                },
                "spec": {},
                "status": {"phase": "Pending"},
            }
        )

    @precondition(lambda self: self.pod is not None)
    @rule()
    def pod_starts(self) -> None:
        pod = self.pod
        assert pod is not None
        if pod["status"]["phase"] == "Running":
            return
        out = self.world.silent.keys() | self.world.removed.keys() | self.excluded(pod)
        pod["spec"]["nodeName"] = [name for name in NODES if name not in out][-1 if self.long else 0]
        pod["status"]["phase"] = "Running"
        state = {"running": {"startedAt": format_time(self.world.now)}}
        pod["status"].setdefault("containerStatuses", [{"name": "trainer", "state": state}])
        self.world.store(pod)

    def excluded(self, pod: Object) -> set[str]:
        """The nodes that a pod's Job keeps away from."""
        owner = next((job for job in self.world.all("Job") if pod in self.world.pods_of(job)), None)
        affinity = owner["spec"]["template"]["spec"].get("affinity", {}) if owner else {}
        required = affinity.get("nodeAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution", {})
        return {
            name
            for term in required.get("nodeSelectorTerms", [])
            for field in term["matchFields"]
            for name in field["values"]
        }

    @precondition(lambda self: self.pod is not None)
    @rule(removed=st.booleans())
    def node_is_lost(self, removed: bool) -> None:
        """The node of a pod does not answer: the cluster says so of the pod too, and later deletes it."""
        pod = self.pod
        assert pod is not None
        name = pod["spec"].get("nodeName")
        if name is None or len(self.world.silent | self.world.removed) >= MOST_LOST:
            return
        (self.world.removed if removed else self.world.silent)[name] = self.world.now
        now = format_time(self.world.now)
        for each in self.world.all("Pod"):
            if each["spec"].get("nodeName") == name and each["status"]["phase"] not in ENDED:
                ready = {"type": "Ready", "status": "False", "lastTransitionTime": now}
                each["status"]["conditions"] = [ready]
                self.world.store(each)

    @rule()
    def nodes_come_back(self) -> None:
        """What was to be deleted meanwhile ends now; the other pods go on as if nothing had been."""
        self.world.silent.clear()
        self.world.removed.clear()
        for pod in self.world.all("Pod"):
            if pod["status"].pop("conditions", None) and pod["status"]["phase"] not in ENDED:
                self.world.store(pod)
                if pod["metadata"].get("deletionTimestamp"):
                    pod["status"]["phase"] = "Failed"
                    self.leave(pod)

    @precondition(lambda self: self.pod is not None)
    @rule(stages=st.integers(0, len(Stage)), metrics=st.integers(0, 32))
    def pod_reports(self, stages: int, metrics: int) -> None:
        pod = self.pod
        assert pod is not None
        done = dict.fromkeys(list(Stage)[:stages], 2.0)
        values = {f"metric-{number}-of-the-test-split": 0.123456789 for number in range(metrics)}
        report = make_report(self.number(pod), finished_stages=done, metrics=values)
        progress = report.progress.model_copy(update={"step": stages, "step_time": self.world.now})
        self.report(pod, report.model_copy(update={"progress": progress}))

    def report(self, pod: Object, report: RunReport) -> None:
        """Write a pod's report as the fence lets it: the run's current pod only."""
        text = report.to_json()
        current = self.run.get("status", {}).get("currentPod", {})
        if current.get("uid") == pod["metadata"]["uid"] and len(text) <= TERMINATION_MESSAGE_BYTES:
            self.run["status"]["trainer"] = json.loads(text)
            self.world.store(self.run)

    @staticmethod
    def number(pod: Object) -> int:
        return int(pod["metadata"]["labels"][ATTEMPT_LABEL])

    @precondition(lambda self: self.pod is not None)
    @rule(exit_code=EXITS, told=st.booleans(), live=st.booleans(), message=MESSAGES, killed=st.booleans())
    def pod_fails(self, exit_code: int, told: bool, live: bool, message: str, killed: bool) -> None:
        pod = self.pod
        assert pod is not None
        if exit_code == ExitCode.SUCCESS:
            self.end(pod, 0, self.success_of(pod), live)
            return
        word = make_failure(self.number(pod), Cause.UNKNOWN, exit_code, message) if told else None
        reason = "OOMKilled" if killed and exit_code == 137 else "Error"
        self.end(pod, exit_code, word, live, reason=reason, log=message)

    @precondition(lambda self: self.pod is not None)
    @rule(live=st.booleans())
    def pod_succeeds(self, live: bool) -> None:
        pod = self.pod
        assert pod is not None
        self.end(pod, 0, self.success_of(pod), live)

    def success_of(self, pod: Object) -> RunReport:
        """Return the last word of a pod that did what it was to do."""
        return make_success(self.number(pod))

    def end(
        self,
        pod: Object,
        code: int,
        word: RunReport | None,
        live: bool,
        *,
        reason: str = "Error",
        log: str = "",
    ) -> None:
        if word and live:
            self.report(pod, word)
        last = word.to_json() if word else log[:TERMINATION_MESSAGE_BYTES]
        pod["status"]["phase"] = "Succeeded" if code == 0 else "Failed"
        began = pod["status"].get("containerStatuses", [{"state": {}}])[0]["state"].get("running", {})
        pod["status"]["containerStatuses"] = terminated(code, last, reason)
        times = {"finishedAt": format_time(self.world.now), **began}
        pod["status"]["containerStatuses"][0]["state"]["terminated"] |= times
        pod["status"]["containerStatuses"][0]["imageID"] = self.image
        self.leave(pod)

    @precondition(lambda self: self.pod is not None)
    @rule()
    def pod_is_evicted(self) -> None:
        pod = self.pod
        assert pod is not None
        pod["status"] |= {
            "phase": "Failed",
            "conditions": [{"type": "DisruptionTarget", "status": "True"}],
        }
        self.leave(pod)

    def leave(self, pod: Object) -> None:
        """A pod that ended stays, unless it was being deleted."""
        self.world.store(pod)
        if pod["metadata"].get("deletionTimestamp"):
            self.world.remove(pod)
            self.world.collect()

    @precondition(lambda self: self.world.all("Pod"))
    @rule(data=st.data())
    def pod_vanishes(self, data: st.DataObject) -> None:
        self.world.remove(data.draw(st.sampled_from(self.world.all("Pod"))))
        self.world.collect()

    @precondition(lambda self: self.job is not None)
    @rule()
    def job_ends_with_its_pod(self) -> None:
        job = self.job
        assert job is not None
        for pod in self.world.pods_of(job):
            if pod["status"]["phase"] in ENDED:
                self.end_job(job, "Complete" if pod["status"]["phase"] == "Succeeded" else "Failed")

    @precondition(lambda self: self.job is not None)
    @rule()
    def job_ends_without_a_pod(self) -> None:
        job = self.job
        assert job is not None
        if not self.world.pods_of(job):
            self.end_job(job, "Failed")

    def end_job(self, job: Object, type_: str) -> None:
        now = format_time(self.world.now)
        job["status"] = {"conditions": [{"type": type_, "status": "True", "lastTransitionTime": now}]}
        self.world.store(job)

    @precondition(lambda self: self.world.all("Job"))
    @rule(data=st.data())
    def job_is_deleted(self, data: st.DataObject) -> None:
        """Somebody deletes a Job in the background: its pod goes a grace period later."""
        job = data.draw(st.sampled_from(self.world.all("Job")))
        self.world.remove(job)
        for pod in self.world.pods_of(job):
            pod["metadata"]["deletionTimestamp"] = format_time(self.world.now)
            self.leave(pod) if pod["status"]["phase"] in ENDED else self.world.store(pod)

    @rule()
    def children_of_a_finished_run_vanish(self) -> None:
        if self.phase in ("Succeeded", "Failed", "Cancelled"):
            for item in (*self.world.all("Job"), *self.world.all("Pod")):
                self.world.remove(item)

    @rule()
    def get_going(self) -> None:
        """For a while all is well: the next pod comes to run, and the status says so."""
        self.world.fenced = True
        self.wait(600)
        self.reconcile_to_rest()
        if self.job:
            self.let_go_on(self.job)
            self.job_makes_its_pod()
        if self.pod:
            self.pod_starts()
        self.reconcile_to_rest()

    def let_go_on(self, job: Object) -> None:
        """A Job that waits in a queue is admitted; these are in none."""

    @rule(times=st.integers(1, KEPT + 2), exit_code=EXITS, message=MESSAGES)
    def attempts_go_by(self, times: int, exit_code: int, message: str) -> None:
        """Attempts end the same way again and again, and nothing else happens meanwhile."""
        for _ in range(times):
            self.get_going()
            if self.pod and exit_code:
                self.pod_fails(exit_code, True, True, message, False)
            elif self.pod:
                self.pod_is_evicted()
            if self.job:
                self.job_ends_with_its_pod()

    # --- promises ------------------------------------------------------------------------------------------

    @property
    def phase(self) -> str:
        return str(self.run.get("status", {}).get("phase", ""))

    @property
    def newest(self) -> int:
        return int(self.run.get("status", {}).get("attempt", 0))

    def check_job(self, job: Object) -> None:
        """What must hold when a Job is made."""
        assert self.finished is None, f"an attempt after {self.finished}"
        live = [p for p in self.world.all("Pod") if p["status"]["phase"] not in ENDED]
        assert all(map(self.world.is_lost, live)), "a pod of a former attempt still runs"
        for other in self.world.all("Job"):
            lost = any(map(self.world.is_lost, self.world.pods_of(other)))
            assert lost or has_ended(other), "two Jobs at a time"
            going = other["metadata"].get("deletionTimestamp") or has_ended(other)
            assert going, "the Job of a lost attempt would go on when its node comes back"
        named = self.run.get("status", {}).get("currentPod", {}).get("uid")
        assert named not in {pod["metadata"]["uid"] for pod in live}, "a lost pod may still report"
        self.check_adjustments(job)
        before = self.check_order(int(job["metadata"]["labels"][ATTEMPT_LABEL]), job)
        requested = job["metadata"]["annotations"].get(RETRY_REQUEST_ANNOTATION, "")
        if not before or before["outcome"] != "Failed" or requested != before.get("retryRequest", ""):
            return
        cause = Cause(before["cause"])
        field = BUDGET_FIELDS.get(cause)
        budget = self.retry.get(field, BUDGETS[field]) if field else 0
        spent = sum(self.counts[each] for each in Cause if BUDGET_FIELDS.get(each) == field)
        assert budget < 0 or spent <= budget, f"budget {budget} of {cause} is overdrawn"

    def check_order(self, number: int, job: Object) -> Object:
        """A Job's number is new; return the record of the attempt before it."""
        assert job["metadata"]["name"] == job_name(RUN, number)
        assert number > max((record["number"] for record in self.recorded.values()), default=0)
        return self.recorded.get(job_name(RUN, number - 1), {})

    def check_adjustments(self, job: Object) -> None:
        """What a trainer is told in place of the plan's only ever shrinks."""
        told = json.loads(job["metadata"]["annotations"].get(ADJUSTMENTS_ANNOTATION, "{}"))
        for field in ("batchSize", "workers"):
            now = told.get(field, MANY)
            assert now <= self.given.get(field, MANY)
            self.given[field] = now

    def check_status(self, before: Object, status: Object) -> None:
        """What must hold when a status is written."""
        assert self.run["metadata"].keys().isdisjoint({"finalizers", "annotations"})
        self.check_form(status)
        self.check_conditions(status)
        assert status["attempt"] >= before.get("attempt", 0)
        keys = [(item["number"], place_of(item.get("group"))) for item in status["attempts"]]
        assert keys == sorted(set(keys))
        open_ = [attempt["number"] for attempt in status["attempts"] if "outcome" not in attempt]
        assert open_ in ([], [status["attempt"]])
        for attempt in status["attempts"]:
            if "outcome" in attempt:
                self.check_record(attempt)
        phase, old = status["phase"], before.get("phase")
        assert self.finished in (None, phase)
        if old == "Failed" and phase != "Failed":
            request = self.run["spec"].get("retryRequest", "")
            assert request not in ("", self.failed_for), "Failed was left without a new retryRequest"
        if phase == "Failed":
            self.failed_for = status.get("retryRequest", "")
        if phase in ("Succeeded", "Cancelled"):
            self.finished = phase
        self.check_usage(before.get("usage", {}), status.get("usage", {}))
        assert ("completionTime" in status) == (phase in ("Succeeded", "Failed", "Cancelled"))

    def check_form(self, status: Object) -> None:
        model = TrainingRunStatus.model_validate(status)
        known = model.model_dump(mode="json", by_alias=True, exclude_unset=True)
        assert known.keys() == status.keys()
        size = len(json.dumps(status, ensure_ascii=False, separators=(",", ":")).encode())
        assert size + TERMINATION_MESSAGE_BYTES < MOST_STATUS_BYTES, f"a status of {size} bytes"

    def check_usage(self, before: Object, usage: Object) -> None:
        """Figures only grow, agree with each other, and are never more than the time that went by."""
        grown = {name: usage[name] - value for name, value in before.items() if isinstance(value, int)}
        assert all(seconds >= 0 for seconds in grown.values()), grown
        if usage:
            lost = sum(usage[f"lostTo{why}"] for why in ("Preemption", "Failure", "Suspension"))
            assert usage["useful"] + lost == usage["gpuSeconds"]
            self.check_gpu(usage, lost)
            since = self.world.now - parse_time(self.run["metadata"]["creationTimestamp"])
            assert usage["podSeconds"] + usage["queuedSeconds"] <= since.total_seconds()

    def check_gpu(self, usage: Object, lost: int) -> None:
        """The plan has one GPU, and every pod holds it."""
        assert (usage["podSeconds"], usage["lostPodSeconds"]) == (usage["gpuSeconds"], lost)

    def check_conditions(self, status: Object) -> None:
        stated = {condition["type"]: condition for condition in status["conditions"]}
        assert list(stated) == list(ConditionType)
        kstatus = [
            type_ for type_ in ("Ready", "Reconciling", "Stalled") if stated[type_]["status"] == "True"
        ]
        assert len(kstatus) == 1
        ends = {type_ for type_ in ("Succeeded", "Failed", "Suspended") if stated[type_]["status"] == "True"}
        assert ends == {status["phase"]} & {"Succeeded", "Failed", "Suspended"}
        for type_, condition in stated.items():
            now = (condition["status"], condition["lastTransitionTime"])
            old = self.stamps.get(type_, ("", ""))
            assert (now[0] == old[0]) == (now[1] == old[1]) or (now[0] != old[0])
            if now[0] == old[0]:
                assert now[1] == old[1], f"{type_} did not change, but its time did"
            else:
                assert parse_time(now[1]) == self.world.now.replace(microsecond=0)
            self.stamps[type_] = now

    def check_record(self, attempt: Object) -> None:
        """An attempt that ended once ended so for good."""
        known = self.recorded.setdefault(attempt["job"], attempt)
        assert (known["outcome"], known.get("cause")) == (attempt["outcome"], attempt.get("cause"))
        if known is attempt and attempt["outcome"] == "Failed":
            self.counts[attempt["cause"]] += 1

    def see_it_end(self) -> None:
        """When all goes well from here on, a run gets to an end: nothing waits for ever."""
        self.edit(suspend=False, deadlines={}, budget={})  # both may be changed at any time
        for _ in range(40):
            if self.phase in ("Succeeded", "Cancelled"):
                return
            asked = self.phase == "Failed"
            if asked:
                self.request_a_retry(new=True)
            self.get_going()
            assert not (asked and self.phase == "Failed"), "a new retryRequest gave no attempt"
            while self.pod:
                self.pod_succeeds(live=True)
            if self.job:
                self.job_ends_with_its_pod()
            self.reconcile_to_rest()
        raise AssertionError(f"the run is still {self.phase}")


LIVES = settings(
    # A life that breaks a promise is told as it is: to make it shorter takes minutes.
    phases=[Phase.explicit, Phase.generate],
    max_examples=80,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
RunLife.TestCase.settings = LIVES
TestRunLife = RunLife.TestCase
