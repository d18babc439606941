"""What the watches tell wakes the queue, and what we know already does not."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from builders import RunBuilder, make_job, make_pod

from trainwright_operator.cluster import JOBS, PODS, RUNS, Cluster, Kind
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
        ({"nodeName": "node"}, {"phase": "Pending"}, 1),
        ({}, {"conditions": [{"type": "PodScheduled", "status": "False"}]}, 1),
    ],
)
def test_a_pod_is_looked_at_once_the_scheduler_has_spoken(spec: Object, status: Object, depth: int) -> None:
    pod = make_pod(1) | {"spec": spec, "status": status}
    assert depth_after((PODS, "ADDED", pod)) == depth


def test_a_pod_the_scheduler_says_nothing_of_is_looked_at_a_moment_later() -> None:
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
