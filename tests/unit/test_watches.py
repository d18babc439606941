"""What the watches tell wakes the queue, and what we know already does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import pytest
from builders import RunBuilder, make_job, make_pod

from trainwright_operator.cluster import JOBS, PODS, PROFILES, RUNS, Cluster, Kind, Listing
from trainwright_operator.queue import Key, WorkQueue
from trainwright_operator.store import Store
from trainwright_operator.watch import Scope
from trainwright_operator.watches import Watches

Object = dict[str, Any]
NOBODY = cast(Cluster, None)  # nothing is asked for


async def rest(_: Key) -> float | None:
    return None


def depth_after(*events: tuple[Kind, str, Object], known: Object | None = None) -> int:
    """Return how many keys wait at once after these events; `known` is a run that we wrote ourselves."""

    async def observe() -> int:
        store, queue = Store(), WorkQueue(rest, 1)
        if known:
            store.keep("TrainingRun", known)
        watches = Watches(NOBODY, store, queue)
        for kind, type_, item in events:
            watches.hear(Scope(kind), type_, item)
        return queue.depth

    return asyncio.run(observe())


def versioned(item: Object, version: int) -> Object:
    return item | {"metadata": item["metadata"] | {"resourceVersion": str(version)}}


def test_our_own_write_wakes_nobody_and_anybody_else_s_does() -> None:
    run = RunBuilder().build()
    assert depth_after((RUNS, "MODIFIED", versioned(run, 8)), known=versioned(run, 8)) == 0
    assert depth_after((RUNS, "MODIFIED", versioned(run, 9)), known=versioned(run, 8)) == 1
    assert depth_after((RUNS, "DELETED", versioned(run, 8)), known=versioned(run, 8)) == 1


def test_a_job_wakes_its_run() -> None:
    assert depth_after((JOBS, "ADDED", make_job(1))) == 1


@pytest.mark.parametrize(
    ("spec", "status", "depth"),
    [
        ({}, {"phase": "Pending"}, 0),
        ({"nodeName": "node"}, {"phase": "Pending"}, 0),
        ({"nodeName": "node"}, {"phase": "Running"}, 1),
        ({"nodeName": "node"}, {"phase": "Failed"}, 1),
    ],
)
def test_a_pod_is_looked_at_at_once_when_it_runs_or_has_ended(
    spec: Object, status: Object, depth: int
) -> None:
    pod = make_pod(1) | {"spec": spec, "status": status}
    assert depth_after((PODS, "ADDED", pod)) == depth


def test_a_pod_that_starts_is_looked_at_a_moment_later() -> None:
    async def observe() -> Key:
        seen: asyncio.Future[Key] = asyncio.get_running_loop().create_future()

        async def reconcile(key: Key) -> float | None:
            seen.set_result(key)
            return None

        queue = WorkQueue(reconcile, 1)
        pod = make_pod(1) | {"spec": {}, "status": {"phase": "Pending"}}
        Watches(NOBODY, Store(), queue).hear(Scope(PODS), "ADDED", pod)
        work = asyncio.create_task(queue.run())
        try:
            return await asyncio.wait_for(seen, 5)
        finally:
            work.cancel()

    assert asyncio.run(observe()) == Key("ml", "parts-1")


def keys_after_a_list_of(kind: Kind, *items: Object, known: Sequence[Object] = ()) -> int:
    """Return how many keys wait after such a list, where these objects were known."""

    async def pages() -> AsyncIterator[Listing]:
        yield Listing(list(items), 20)

    async def take() -> int:
        store, queue = Store(), WorkQueue(rest, 1)
        for item in known:
            store.keep(item["kind"], item)
        await Watches(NOBODY, store, queue).take(Scope(kind), pages())
        return queue.depth

    return asyncio.run(take())


def test_a_list_of_runs_wakes_all_and_one_of_children_whom_it_says_anything_new() -> None:
    run, job = versioned(RunBuilder().build(), 8), versioned(make_job(1), 9)
    assert keys_after_a_list_of(RUNS, run, known=[run]) == 1
    assert keys_after_a_list_of(JOBS, job, known=[run, job]) == 0
    assert keys_after_a_list_of(JOBS, versioned(job, 10), known=[run, job]) == 1
    assert keys_after_a_list_of(JOBS, known=[run, job]) == 1, "it is gone"


def test_a_list_of_profiles_wakes_the_runs_that_may_wait_for_one() -> None:
    run = versioned(RunBuilder().build(), 8)
    profile = {"metadata": {"name": "team", "namespace": "ml", "uid": "1", "generation": 1}, "spec": {}}
    assert keys_after_a_list_of(PROFILES, profile, known=[run]) == 1
    assert keys_after_a_list_of(PROFILES, known=[run]) == 0
