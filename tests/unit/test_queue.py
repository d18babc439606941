"""The work queue: each key once, never by two workers, later when it failed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from trainwright_operator.queue import Key, WorkQueue

A, B = Key("ml", "a"), Key("ml", "b")


def work(reconcile: Callable[[Key], Awaitable[float | None]], start: Callable[[WorkQueue], None]) -> None:
    """Run a queue of four workers for a short while."""

    async def run() -> None:
        queue = WorkQueue(reconcile, workers=4)
        start(queue)
        task = asyncio.create_task(queue.run())
        await asyncio.sleep(0.15)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())


def test_a_key_added_twice_before_its_turn_is_reconciled_once() -> None:
    seen: Counter[Key] = Counter()

    async def reconcile(key: Key) -> None:
        seen[key] += 1

    def start(queue: WorkQueue) -> None:
        for key in (A, A, B):
            queue.add(key)

    work(reconcile, start)
    assert seen == {A: 1, B: 1}


def test_a_key_added_while_it_is_worked_on_is_reconciled_again_but_never_in_parallel() -> None:
    seen: list[str] = []
    queues: list[WorkQueue] = []

    async def reconcile(key: Key) -> None:
        seen.append("begin")
        if len(seen) == 1:
            queues[0].add(key)
        await asyncio.sleep(0.02)
        seen.append("end")

    def start(queue: WorkQueue) -> None:
        queues.append(queue)
        queue.add(A)

    work(reconcile, start)
    assert seen == ["begin", "end", "begin", "end"]


def test_a_failed_key_is_tried_again_and_others_go_on() -> None:
    seen: Counter[Key] = Counter()

    async def reconcile(key: Key) -> None:
        seen[key] += 1
        if key == A:
            raise RuntimeError("the API server is away")

    async def run() -> None:
        queue = WorkQueue(reconcile, workers=1)
        queue.add(A)
        queue.add(B)
        task = asyncio.create_task(queue.run())
        await asyncio.sleep(0.7)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    assert seen == {A: 2, B: 1}


def test_a_key_comes_back_after_the_time_it_asked_for() -> None:
    seen: list[Key] = []

    async def reconcile(key: Key) -> float | None:
        seen.append(key)
        return 0.02 if len(seen) < 3 else None

    work(reconcile, lambda queue: queue.add(A))
    assert seen == [A, A, A]


def test_an_earlier_time_wins_over_a_later_one() -> None:
    seen: list[Key] = []

    async def reconcile(key: Key) -> None:
        seen.append(key)

    def start(queue: WorkQueue) -> None:
        queue.add_later(A, 60)
        queue.add_later(A, 0.01)

    work(reconcile, start)
    assert seen == [A]


def test_what_is_at_work_is_finished_and_nothing_else_begun_when_it_settles() -> None:
    begun: list[Key] = []
    done: list[Key] = []

    async def reconcile(key: Key) -> None:
        begun.append(key)
        await asyncio.sleep(0.05)
        done.append(key)

    async def run() -> bool:
        queue = WorkQueue(reconcile, workers=1)
        queue.add(A)
        queue.add(B)
        task = asyncio.create_task(queue.run())
        await asyncio.sleep(0.02)
        settled = await queue.settle(5)
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return settled

    assert asyncio.run(run())
    assert begun == done == [A]


def test_a_key_whose_worker_is_cancelled_is_there_for_whoever_works_next() -> None:
    seen: Counter[Key] = Counter()

    async def reconcile(key: Key) -> None:
        seen[key] += 1
        if seen[key] == 1:
            await asyncio.Event().wait()

    async def run() -> None:
        queue = WorkQueue(reconcile, workers=1)
        queue.add(A)
        for _ in range(2):
            task = asyncio.create_task(queue.run())
            await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    assert seen == {A: 2}
