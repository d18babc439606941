"""An API server in memory, for tests of what the operator does whatever happens to its objects."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any, cast

from trainwright_operator.cluster import (
    JOBS,
    PODS,
    RUNS,
    AlreadyExistsError,
    ApiError,
    Cluster,
    Kind,
    Listing,
)
from trainwright_operator.packed import controller_uid
from trainwright_operator.queue import Key, WorkQueue
from trainwright_operator.settings import OperatorSettings, TrainerSettings
from trainwright_operator.store import Store
from trainwright_operator.times import format_time
from trainwright_operator.watch import Scope
from trainwright_operator.watches import Watches

Object = dict[str, Any]

RUN, NAMESPACE = "parts-1", "ml"
KEY = Key(NAMESPACE, RUN)
SETTINGS = OperatorSettings(trainer=TrainerSettings(image="registry.example/trainer:test"))
WATCHED = ("TrainingRun", "Job", "Pod")
NODE_LOST_SECONDS = 60


class World:
    """An API server in memory: versions, uids, a watch for each kind, and writes that can fail."""

    def __init__(self, run: Object) -> None:
        self.now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        self.version = 0
        self.objects: dict[tuple[str, str], Object] = {}
        self.events: dict[str, list[Object]] = {kind: [] for kind in WATCHED}
        self.writes = 0
        self.fault: tuple[str, str] | None = (
            None  # which kind of write fails, and when: refused, before or after its work
        )
        self.fenced = True
        self.on_job: Callable[[Object], None] = lambda _: None
        self.on_status: Callable[[Object, Object], None] = lambda *_: None
        self.silent: dict[str, datetime] = {}  # nodes that do not answer, and since when
        self.removed: dict[str, datetime] = {}  # nodes that are no longer in the cluster
        self.store(run)

    # What tests do to it.

    def store(self, item: Object) -> None:
        self.version += 1
        item["metadata"] |= {"resourceVersion": str(self.version)}
        item["metadata"].setdefault("uid", f"uid-{self.version}")
        item["metadata"].setdefault("creationTimestamp", format_time(self.now))
        self.objects[item["kind"], item["metadata"]["name"]] = item
        self._tell("MODIFIED", item)

    def remove(self, item: Object) -> None:
        self.version += 1
        item["metadata"] |= {"resourceVersion": str(self.version)}
        del self.objects[item["kind"], item["metadata"]["name"]]
        self._tell("DELETED", item)

    def all(self, kind: str) -> list[Object]:
        return [item for (kind_, _), item in self.objects.items() if kind_ == kind]

    def pods_of(self, job: Object) -> list[Object]:
        return [pod for pod in self.all("Pod") if controller_uid(pod) == job["metadata"]["uid"]]

    def collect(self) -> None:
        """Do what the garbage collector does: a Job deleted in the foreground goes when its pods are gone."""
        for job in self.all("Job"):
            if job["metadata"].get("deletionTimestamp") and not self.pods_of(job):
                self.remove(job)

    def node(self, name: str) -> Object | None:
        if name in self.removed:
            return None
        since = format_time(self.silent.get(name, self.now))
        ready = {"type": "Ready", "status": "Unknown" if name in self.silent else "True"}
        taint = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": since}
        return {
            "metadata": {"name": name, "creationTimestamp": since},
            "spec": {"taints": [taint] if name in self.silent else []},
            "status": {"conditions": [ready | {"lastTransitionTime": since}]},
        }

    def answers(self, pod: Object) -> bool:
        return pod["spec"].get("nodeName") not in self.silent.keys() | self.removed.keys()

    def is_lost(self, pod: Object) -> bool:
        """Whether a pod's node has not answered for so long that the next attempt may start."""
        name = pod["spec"].get("nodeName")
        since = self.silent.get(name) or self.removed.get(name)
        return since is not None and (self.now - since).total_seconds() >= NODE_LOST_SECONDS

    def _tell(self, type_: str, item: Object) -> None:
        if item["kind"] in self.events:
            self.events[item["kind"]].append({"type": type_, "object": copy.deepcopy(item)})

    # What the operator asks of it.

    async def get(self, kind: Kind, _: str | None, name: str) -> Object | None:
        if kind.kind.startswith("ValidatingAdmissionPolicy"):
            return {} if self.fenced else None
        if kind.kind == "Node":
            return self.node(name)
        return copy.deepcopy(self.objects.get((kind.kind, name)))

    async def list(self, kind: Kind, _: str | None = None, selector: str = "") -> Listing:
        wanted = dict(part.partition("=")[::2] for part in selector.split(",") if part)
        items = []
        for item in self.all(kind.kind):
            labels = item["metadata"].get("labels", {})
            if all(key in labels and value in ("", labels[key]) for key, value in wanted.items()):
                items.append(copy.deepcopy(item))
        return Listing(items, self.version)

    async def pages(self, kind: Kind, _: str | None = None, selector: str = "") -> AsyncIterator[Listing]:
        yield await self.list(kind, None, selector)

    async def create(self, body: Object) -> Object:
        if body["kind"] == "Event":
            return body

        def work() -> Object:
            if (body["kind"], body["metadata"]["name"]) in self.objects:
                raise AlreadyExistsError(409, "AlreadyExists", body["metadata"]["name"])
            if body["kind"] == "Job":
                self.on_job(body)
            self.store(copy.deepcopy(body))
            return copy.deepcopy(self.objects[body["kind"], body["metadata"]["name"]])

        return self._write(body["kind"], work)

    async def delete(self, kind: Kind, _: str, name: str, uid: str) -> None:
        def work() -> None:
            item = self.objects.get((kind.kind, name))
            if item is None or item["metadata"]["uid"] != uid:
                return
            item["metadata"]["deletionTimestamp"] = format_time(self.now)
            self.store(item)
            for pod in self.pods_of(item):
                pod["metadata"]["deletionTimestamp"] = format_time(self.now)
                self.store(pod)
            self.collect()

        self._write("deletion", work)

    async def apply_status(self, run: Object, status: Object) -> Object:
        def work() -> Object:
            there = self.objects["TrainingRun", run["metadata"]["name"]]
            assert there["metadata"]["uid"] == run["metadata"]["uid"]
            before = there.get("status", {})
            self.on_status({k: v for k, v in before.items() if k != "trainer"}, status)
            trainer = {"trainer": before["trainer"]} if "trainer" in before else {}
            there["status"] = {**copy.deepcopy(status), **trainer}
            self.store(there)
            return copy.deepcopy(there)

        return self._write("status", work)

    def _write(self, what: str, work: Callable[[], Any]) -> Any:
        self.writes += 1
        when = self.fault[1] if self.fault and self.fault[0] == what else ""
        self.fault = None if when else self.fault
        if when == "refused":
            raise ApiError(403, "Forbidden", "exceeded quota")
        if when == "before":
            raise ApiError(0, "Unreachable", "connection refused")
        answer = work()
        if when == "after":
            raise ApiError(0, "Unreachable", "connection lost")
        return answer


async def list_all(world: World, store: Store) -> None:
    """Have the store know all that there is, as a new list would."""

    async def rest(_: Key) -> None:
        pass

    watches = Watches(cast(Cluster, world), store, WorkQueue(rest, 1))
    for kind in (RUNS, JOBS, PODS):
        await watches.take(Scope(kind), world.pages(kind))
