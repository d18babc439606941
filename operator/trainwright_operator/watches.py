"""What the watches tell: it is kept in the store and wakes the queue, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from trainwright_operator.cluster import (
    CLUSTER_PROFILES,
    JOBS,
    PODS,
    PROFILES,
    RUNS,
    Cluster,
    Kind,
    Listing,
)
from trainwright_operator.names import RUN_LABEL
from trainwright_operator.packed import Packed
from trainwright_operator.queue import WorkQueue
from trainwright_operator.store import Store
from trainwright_operator.watch import Scope, Watch

Object = dict[str, Any]

STARTING_SECONDS = 0.6  # most pods get a node, and that begins with them, this soon: it is one write
# Selected by the API server: without these every Pod of the cluster would be sent to us.
SELECTORS = {JOBS: RUN_LABEL, PODS: RUN_LABEL}
WATCHED = (PROFILES, CLUSTER_PROFILES, RUNS, JOBS, PODS)


class Watches:
    """All watches of one operator, and what is made of what they tell."""

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        queue: WorkQueue,
        namespaces: Sequence[str] = (),
        relist_seconds: float = 300,
    ) -> None:
        self._store = store
        self._queue = queue
        self._watches = [
            Watch(cluster, scope, self, relist_seconds)
            for kind in WATCHED
            for scope in _scopes(kind, namespaces)
        ]

    def ages(self) -> dict[str, float]:
        """Return the seconds since anything was heard of each kind, where it was longest ago."""
        ages: dict[str, float] = {}
        for watch in self._watches:
            kind = watch.scope.kind.kind
            ages[kind] = max(watch.age, ages.get(kind, 0.0))
        return ages

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            for watch in self._watches:
                group.create_task(watch.run())

    async def refresh(self, seconds: float = float("inf")) -> None:
        """Return when all that there is was listed, and not longer ago than this; `run` does the work."""
        await asyncio.gather(*(watch.refresh(seconds) for watch in self._watches))

    async def take(self, scope: Scope, pages: AsyncIterator[Listing]) -> int:
        """Keep a list in place of what was known; wake who is concerned by what is new, and at times all."""
        kind, versions = scope.kind, []
        profiles: list[Object] = []
        packed: list[Packed] = []
        async for page in pages:
            versions.append(page.version)
            items = (_typed(kind, item) for item in page.items)
            if kind in (PROFILES, CLUSTER_PROFILES):
                profiles += items
            else:
                packed += [self._store.pack(kind.kind, item) for item in items]
        if kind in (PROFILES, CLUSTER_PROFILES):
            for profile in self._store.profiles.replace(kind.kind, profiles, scope.namespace):
                for waiting in self._store.waiting_for(profile):
                    self._queue.add(waiting)
            return min(versions)
        changed = self._store.replace(kind.kind, packed, min(versions), scope.namespace)
        for key in changed.union(self._store.keys() if kind is RUNS else ()):
            self._queue.add(key)
        return min(versions)

    def hear(self, scope: Scope, type_: str, item: Object) -> None:
        """Take one event in; the key of its run is looked at next, unless we know it all already.

        What we wrote ourselves comes back as an event.
        """
        if scope.kind in (PROFILES, CLUSTER_PROFILES):
            self._hear_of_profile(scope.kind, type_, item)
        elif type_ == "DELETED" or not self._store.knows(scope.kind.kind, item):
            self._hear_of_run(scope.kind, type_, item)

    def _hear_of_run(self, kind: Kind, type_: str, item: Object) -> None:
        remember = self._store.forget if type_ == "DELETED" else self._store.keep
        key = remember(kind.kind, item)
        if key is None:
            return
        if kind is PODS and type_ != "DELETED" and _is_starting(item):
            self._queue.add_later(key, STARTING_SECONDS)
        else:
            self._queue.add(key)

    def _hear_of_profile(self, kind: Kind, type_: str, item: Object) -> None:
        """Take an event of a profile in; if its spec is new, runs that may wait for it are looked at."""
        profiles = self._store.profiles
        key = profiles.forget(item) if type_ == "DELETED" else profiles.keep(item)
        if key is not None:
            for waiting in self._store.waiting_for(key):
                self._queue.add(waiting)


def _scopes(kind: Kind, namespaces: Sequence[str]) -> list[Scope]:
    where = namespaces if kind.namespaced else ()
    return [Scope(kind, namespace, SELECTORS.get(kind, "")) for namespace in where or (None,)]


def _typed(kind: Kind, item: Object) -> Object:
    """Return a member of a list with the kind it does not name."""
    return {"apiVersion": kind.api_version, "kind": kind.kind} | item


def _is_starting(pod: Object) -> bool:
    """Whether no container of a pod has run yet: scheduler and kubelet have more to say of it, and soon."""
    return bool(pod.get("status", {}).get("phase", "Pending") == "Pending")
