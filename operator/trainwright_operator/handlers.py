"""kopf's part: its watches wake the queue, and nothing else.

Only `on.event` handlers are used: any other kind writes annotations or finalizers on the user's objects.
"""

from __future__ import annotations

import time
from typing import Any

import kopf

from trainwright_operator.cluster import CLUSTER_PROFILES, JOBS, PAGE, PODS, PROFILES, RUNS, Kind, Login
from trainwright_operator.names import (
    CLUSTER_PROFILE_PLURAL,
    GROUP,
    PROFILE_PLURAL,
    RUN_LABEL,
    RUN_PLURAL,
    VERSION,
)
from trainwright_operator.queue import WorkQueue
from trainwright_operator.store import Store

IDLE_SECONDS = 0.5  # after an object's last event its worker goes; thousands at once would fill the memory
BINDING_SECONDS = 0.2  # most pods get a node this soon: what is to say of both is one write


class _NoDiffs(kopf.DiffBaseStorage):
    """Compares nothing: event handlers are not told what changed, and kopf would copy each object twice."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        pass


class Watches:
    """Keeps the store as the watches tell, wakes the queue, and knows when it last heard anything."""

    def __init__(self, store: Store, queue: WorkQueue) -> None:
        self._store = store
        self._queue = queue
        self.last_heard = time.monotonic()

    def hear(self) -> None:
        """Note that the API server was heard of."""
        self.last_heard = time.monotonic()

    @property
    def silence(self) -> float:
        """Seconds since the API server was last heard of."""
        return time.monotonic() - self.last_heard

    def observe(self, kind: Kind, event: kopf.RawEvent) -> None:
        """Take one event in; the key of its run is looked at next, unless we know it all already.

        What we wrote ourselves comes back as an event, and the watches begin with what was just listed.
        """
        self.hear()
        item: dict[str, Any] = dict(event["object"])
        if event["type"] != "DELETED" and self._store.knows(kind.kind, item):
            return
        remember = self._store.forget if event["type"] == "DELETED" else self._store.keep
        key = remember(kind.kind, item)
        if key is None:
            return
        if kind is PODS and event["type"] != "DELETED" and _is_about_to_be_bound(item):
            self._queue.add_later(key, BINDING_SECONDS)
        else:
            self._queue.add(key)

    def observe_profile(self, kind: Kind, event: kopf.RawEvent) -> None:
        """Take an event of a profile in; if its spec is new, runs that may wait for it are looked at."""
        self.hear()
        item: dict[str, Any] = {"kind": kind.kind, **event["object"]}
        profiles = self._store.profiles
        key = profiles.forget(item) if event["type"] == "DELETED" else profiles.keep(item)
        if key is not None:
            for waiting in self._store.waiting_for(key):
                self._queue.add(waiting)


def _is_about_to_be_bound(pod: dict[str, Any]) -> bool:
    """Whether the scheduler has not yet said anything of a pod."""
    return not pod["spec"].get("nodeName") and not pod.get("status", {}).get("conditions")


def make_registry(watches: Watches, login: Login) -> kopf.OperatorRegistry:
    """Return the handlers of one operator."""
    registry = kopf.OperatorRegistry()

    # Coroutines, though they wait for nothing: kopf runs plain functions in threads.

    @kopf.on.login(registry=registry)
    def _log_in(**_: Any) -> kopf.ConnectionInfo:
        return login.connection_info()

    @kopf.on.event(GROUP, VERSION, RUN_PLURAL, registry=registry)
    async def _run_changed(event: kopf.RawEvent, **_: Any) -> None:
        watches.observe(RUNS, event)

    @kopf.on.event(GROUP, VERSION, PROFILE_PLURAL, registry=registry)
    async def _profile_changed(event: kopf.RawEvent, **_: Any) -> None:
        watches.observe_profile(PROFILES, event)

    @kopf.on.event(GROUP, VERSION, CLUSTER_PROFILE_PLURAL, registry=registry)
    async def _cluster_profile_changed(event: kopf.RawEvent, **_: Any) -> None:
        watches.observe_profile(CLUSTER_PROFILES, event)

    @kopf.on.event("batch", "v1", "jobs", registry=registry)
    async def _job_changed(event: kopf.RawEvent, **_: Any) -> None:
        watches.observe(JOBS, event)

    @kopf.on.event("", "v1", "pods", registry=registry)
    async def _pod_changed(event: kopf.RawEvent, **_: Any) -> None:
        watches.observe(PODS, event)

    return registry


def make_kopf_settings() -> kopf.OperatorSettings:
    """Return kopf's settings: our children only, no peering, no events of its own."""
    options = kopf.OperatorSettings()
    options.posting.enabled = False
    options.peering.standalone = True
    options.scanning.disabled = True
    options.networking.request_timeout = 30
    options.persistence.diffbase_storage = _NoDiffs()
    options.queueing.idle_timeout = IDLE_SECONDS
    options.queueing.exit_timeout = 0.1  # our handlers wait for nothing
    options.watching.chunk_size = PAGE
    # A handler's own filter works on our side: without these every Pod of the cluster would be sent to us.
    options.watching.label_selectors["", "v1", "pods"] = RUN_LABEL
    options.watching.label_selectors["batch", "v1", "jobs"] = RUN_LABEL
    return options
