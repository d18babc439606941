"""How a watch goes on: when it ends, is cut off or falls silent, when too much has happened since."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from trainwright_devstack.processes import free_port
from trainwright_operator import cluster, watch
from trainwright_operator.cluster import PODS, ApiError, Cluster, Listing, connect
from trainwright_operator.login import Login
from trainwright_operator.watch import Scope, Watch

Object = dict[str, Any]

SILENT = aiohttp.ClientTimeout(sock_read=0.2)


def make_item(name: str, version: int) -> Object:
    return {"metadata": {"name": name, "resourceVersion": str(version)}}


def line(type_: str, name: str, version: int) -> bytes:
    return orjson.dumps({"type": type_, "object": make_item(name, version)}) + b"\n"


def gone() -> Object:
    return {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}


@dataclass
class Speech:
    """What the API server answers to one watch."""

    text: bytes = b""
    status: int = 200
    stays: bool = False  # the connection, without another word


@dataclass
class Server:
    """An API server that lists what it has, and answers each watch with the next speech."""

    speeches: list[Speech]  # the last one is repeated
    items: list[Object] = field(default_factory=list)
    version: int = 5
    lists: int = 0
    versions: list[int] = field(default_factory=list)  # that watches were asked from

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            self.lists += 1
            return web.json_response(
                {"metadata": {"resourceVersion": str(self.version)}, "items": self.items}
            )
        self.versions.append(int(request.query["resourceVersion"]))
        speech = self.speeches.pop(0) if len(self.speeches) > 1 else self.speeches[0]
        if speech.status != 200:
            return web.json_response(gone() | {"code": speech.status}, status=speech.status)
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(speech.text)
        if speech.stays:
            await asyncio.Event().wait()
        return response


@dataclass
class Listener:
    """Remembers what it is told."""

    lists: list[list[str]] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)

    async def take(self, _: Scope, pages: AsyncIterator[Listing]) -> int:
        listings = [page async for page in pages]
        self.lists.append([item["metadata"]["name"] for page in listings for item in page.items])
        return listings[0].version

    def hear(self, _: Scope, type_: str, item: Object) -> None:
        self.heard.append(f"{type_} {item['metadata']['name']}")


def test_a_namespace_without_rights_keeps_nobody_waiting_and_counts_as_heard_of() -> None:
    class Refused(Cluster):
        async def pages(self, *_: Any) -> AsyncIterator[Listing]:
            raise ApiError(403, "Forbidden", "the namespace is gone, and so is the right")
            yield

    async def run() -> None:
        async with connect(Login("http://127.0.0.1:1")) as api:
            refused = Refused(api._login, api._session)
            alone = Watch(refused, Scope(PODS, "gone"), Listener(), 300)
            everywhere = Watch(refused, Scope(PODS), Listener(), 300)
            tasks = [asyncio.create_task(each.run()) for each in (alone, everywhere)]
            await asyncio.wait_for(alone.refresh(60), 5)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(everywhere.refresh(60), 0.2)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())


def follow(
    server: Server,
    until: Callable[[Listener], bool],
    relist_seconds: float = 300,
    meanwhile: Callable[[Watch, Listener], Any] | None = None,
) -> Listener:
    """Watch that server until the listener was told enough."""

    async def run() -> Listener:
        application = web.Application()
        application.router.add_get("/api/v1/pods", server.answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        port, listener = free_port(), Listener()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        async with connect(Login(f"http://127.0.0.1:{port}")) as api:
            watched = Watch(api, Scope(PODS), listener, relist_seconds)
            work = asyncio.create_task(watched.run())
            try:
                async with asyncio.timeout(10):
                    if meanwhile is not None:
                        await meanwhile(watched, listener)
                    while not until(listener):
                        await asyncio.sleep(0.01)
            finally:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
                await runner.cleanup()
        return listener

    return asyncio.run(run())


@pytest.fixture(autouse=True)
def _in_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "FIRST_PAUSE", 0.01)


def test_what_happens_after_the_list_is_heard_of() -> None:
    server = Server(
        [Speech(line("ADDED", "b", 6) + line("DELETED", "a", 7), stays=True)], [make_item("a", 3)]
    )
    told = follow(server, lambda listener: len(listener.heard) == 2)
    assert (told.lists, told.heard) == ([["a"]], ["ADDED b", "DELETED a"])
    assert server.versions == [5]


def test_a_watch_that_ended_goes_on_where_it_was_and_lists_nothing() -> None:
    """A bookmark moves it on, too: what is long over need not be told again."""
    ended = Speech(line("ADDED", "a", 6) + line("BOOKMARK", "", 90))
    server = Server([ended, Speech(line("ADDED", "b", 91), stays=True)])
    told = follow(server, lambda listener: "ADDED b" in listener.heard)
    assert told.heard == ["ADDED a", "ADDED b"]
    assert (server.versions, server.lists) == ([5, 90], 1)


def test_an_event_that_was_cut_off_is_told_by_the_next_watch() -> None:
    whole, cut = line("ADDED", "a", 6), line("MODIFIED", "a", 7)[:20]
    server = Server([Speech(whole + cut), Speech(line("MODIFIED", "a", 7), stays=True)])
    told = follow(server, lambda listener: len(listener.heard) == 2)
    assert told.heard == ["ADDED a", "MODIFIED a"]
    assert server.versions == [5, 6]


def test_a_watch_that_falls_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection stands, and nothing comes any more: not even the bookmarks of every minute."""
    monkeypatch.setattr(cluster, "WATCH_TIMEOUT", SILENT)
    dead = Speech(line("ADDED", "a", 6), stays=True)
    server = Server([dead, Speech(line("ADDED", "b", 7), stays=True)])
    told = follow(server, lambda listener: "ADDED b" in listener.heard)
    assert told.heard == ["ADDED a", "ADDED b"]
    assert (server.versions[:2], server.lists) == ([5, 6], 1)


@pytest.mark.parametrize(
    "expired",
    [Speech(orjson.dumps({"type": "ERROR", "object": gone()}) + b"\n"), Speech(status=410)],
    ids=["told within the watch", "told as its answer"],
)
def test_when_the_server_no_longer_knows_what_happened_all_is_listed_again(expired: Speech) -> None:
    server = Server([expired, Speech(line("ADDED", "b", 9), stays=True)], [make_item("a", 3)])
    told = follow(server, lambda listener: "ADDED b" in listener.heard)
    assert told.lists == [["a"], ["a"]]


def test_a_watch_that_is_refused_or_answered_by_somebody_else_is_asked_for_again() -> None:
    page = Speech(b"<html>\n")
    server = Server([Speech(status=403), Speech(status=503), page, Speech(line("ADDED", "b", 9), stays=True)])
    told = follow(server, lambda listener: "ADDED b" in listener.heard)
    assert (server.versions, len(told.lists)) == ([5, 5, 5, 5], 1)


def test_a_new_list_now_and_then_covers_what_no_watch_told() -> None:
    server = Server([Speech(stays=True)], [make_item("a", 3)])
    told = follow(server, lambda listener: len(listener.lists) == 3, relist_seconds=0.1)
    assert told.heard == []


def test_a_list_is_read_at_once_for_who_needs_a_fresh_one() -> None:
    server = Server([Speech(stays=True)], [make_item("a", 3)])

    async def ask(watched: Watch, listener: Listener) -> None:
        await watched.refresh(float("inf"))
        await watched.refresh(60)
        assert len(listener.lists) == 1
        while not server.versions:
            await asyncio.sleep(0.01)
        server.items.append(make_item("b", 6))
        await watched.refresh(0)

    assert follow(server, lambda _: True, meanwhile=ask).lists == [["a"], ["a", "b"]]


def test_a_bookmark_is_a_sign_of_life() -> None:
    server = Server([Speech(line("BOOKMARK", "", 9), stays=True)])
    ages: list[float] = []

    async def measure(watched: Watch, listener: Listener) -> None:
        await asyncio.sleep(0.3)
        ages.append(watched.age)
        await watched.refresh(0)  # the next watch is told a bookmark
        while len(server.versions) < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        ages.append(watched.age)

    follow(server, lambda _: True, meanwhile=measure)
    assert ages[0] > 0.2 > ages[1]
