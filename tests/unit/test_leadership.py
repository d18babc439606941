"""Who holds the Lease when answers are lost: a real server can't be made to lose them on demand."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trainwright_operator import service
from trainwright_operator.cluster import ApiError, Kind
from trainwright_operator.leadership import Identity, Leadership
from trainwright_operator.queue import Key, WorkQueue
from trainwright_operator.settings import OperatorSettings, TrainerSettings

Object = dict[str, Any]
SECONDS = 0.6


class LeaseServer:
    """One Lease, with versions and conflicts; `loses` writes answers that never arrive."""

    def __init__(self) -> None:
        self.lease: Object | None = None
        self.loses = 0
        self.away = False

    async def get(self, _kind: Kind, _namespace: str, _name: str) -> Object | None:
        self._answer()
        return self.lease and {**self.lease}

    async def create(self, body: Object) -> Object:
        return self._write(body, "1")

    async def replace(self, body: Object) -> Object:
        assert self.lease is not None
        version = self.lease["metadata"]["resourceVersion"]
        if body["metadata"]["resourceVersion"] != version:
            raise ApiError(409, "Conflict", "another version")
        return self._write(body, str(int(version) + 1))

    def _write(self, body: Object, version: str) -> Object:
        self._answer()
        self.lease = body | {"metadata": body["metadata"] | {"resourceVersion": version}}
        if self.loses:
            self.loses -= 1
            raise ApiError(0, "Unreachable", "no answer")
        return self.lease

    def _answer(self) -> None:
        if self.away:
            raise ApiError(0, "Unreachable", "away")


def operator(server: LeaseServer, name: str) -> Leadership:
    return Leadership(server, Identity(name, "system"), SECONDS)  # type: ignore[arg-type]


def test_a_renewal_whose_answer_was_lost_is_still_a_renewal() -> None:
    async def play() -> None:
        server = LeaseServer()
        one = operator(server, "one")
        await one.acquire()
        keeping = asyncio.create_task(one.keep())
        server.loses = 1
        await asyncio.sleep(2 * SECONDS)
        assert one.leads
        keeping.cancel()

    asyncio.run(play())


def test_one_that_can_not_renew_stops_before_another_takes_over() -> None:
    async def play() -> None:
        server = LeaseServer()
        one, two = operator(server, "one"), operator(server, "two")
        await one.acquire()
        taking = asyncio.create_task(two.acquire())
        keeping = asyncio.create_task(one.keep())
        await asyncio.sleep(SECONDS / 2)
        server.away = True
        await keeping
        assert not one.leads
        server.away = False
        assert not two.leads
        await asyncio.wait_for(taking, 2 * SECONDS)
        assert two.leads
        assert server.lease
        assert server.lease["spec"]["leaseTransitions"] == 1

    asyncio.run(play())


def test_a_lease_that_was_released_is_taken_at_the_next_look() -> None:
    async def play() -> None:
        server = LeaseServer()
        one, two = operator(server, "one"), operator(server, "two")
        await one.acquire()
        await one.release()
        assert not one.leads
        await asyncio.wait_for(two.acquire(), SECONDS / 6)

    asyncio.run(play())


@pytest.mark.parametrize("busy", [False, True])
def test_the_lease_is_kept_at_the_end_while_something_is_still_being_done(
    busy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "SETTLING_SECONDS", 0.05)
    settings = OperatorSettings(trainer=TrainerSettings(image="registry.example/trainer:v1"))

    async def play() -> Object:
        server = LeaseServer()
        one = operator(server, "one")
        await one.acquire()
        start = service.Start(settings, Path("settings.yaml"), None, Identity("one", "system"))  # type: ignore[arg-type]
        cluster: Any = SimpleNamespace()
        whole = service.Operator(start, cluster, cluster, one, asyncio.Event())
        whole._queue = queue = WorkQueue(lambda _: asyncio.sleep(30, result=None), 1)
        if busy:
            queue.add(Key("ml", "a"))
        working = asyncio.create_task(queue.run())
        await asyncio.sleep(0.01)
        await whole._end([working])
        assert server.lease
        return server.lease

    assert (asyncio.run(play())["spec"]["holderIdentity"] is None) is not busy


def test_a_successor_of_the_same_name_takes_over_at_once_and_the_former_stops() -> None:
    async def play() -> None:
        server = LeaseServer()
        former, successor = operator(server, "pod"), operator(server, "pod")
        await former.acquire()
        await asyncio.wait_for(successor.acquire(), SECONDS / 6)
        await asyncio.wait_for(former.keep(), SECONDS)
        assert (former.leads, successor.leads) == (False, True)

    asyncio.run(play())
