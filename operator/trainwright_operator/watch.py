"""Follows the objects of one kind: lists them, hears of each change since, and lists them again in time."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from trainwright_operator.cluster import ApiError, Cluster, Kind, Listing

Object = dict[str, Any]

logger = logging.getLogger(__name__)

GONE = 410  # what happened since is not known any more: only a new list tells what is
FORBIDDEN = 403
BOOKMARK = "BOOKMARK"
FIRST_PAUSE = 0.2  # seconds, after a request that failed; doubled with each
LONGEST_PAUSE = 5.0
REFUSED_SECONDS = 30.0  # before we ask again for what we have no right to
STEADY_SECONDS = 5.0  # a watch that lasted this long did not fail, however it ended


@dataclass(frozen=True)
class Scope:
    """Which objects are followed."""

    kind: Kind
    namespace: str | None = None
    selector: str = ""


class Listener(Protocol):
    """Who is told of all objects of a scope, and then of each change."""

    async def take(self, scope: Scope, pages: AsyncIterator[Listing]) -> int:
        """Put a list in place of all that was told before; return its version."""

    def hear(self, scope: Scope, type_: str, item: Object) -> None:
        """Take in that an object was added, modified or deleted."""


class Watch:
    """One scope, followed for ever.

    A list and the changes from its very version on are a whole: nothing is missed, and what was deleted while
    the list was read is told of afterwards. A new list now and then covers what nobody can know of.
    """

    def __init__(self, cluster: Cluster, scope: Scope, listener: Listener, relist_seconds: float) -> None:
        self.scope = scope
        self._cluster = cluster
        self._listener = listener
        self._relist_seconds = relist_seconds
        self._pause = FIRST_PAUSE
        self._heard = time.monotonic()
        self._listed = asyncio.Event()
        self._list_time = float("-inf")
        self._until: asyncio.Timeout | None = None

    @property
    def age(self) -> float:
        """Seconds since the API server last said anything of this scope, if only that nothing happened."""
        return time.monotonic() - self._heard

    async def run(self) -> NoReturn:
        """List and follow until cancelled."""
        while True:
            try:
                await self._follow(await self._list())
            except ApiError as error:
                if error.status == FORBIDDEN and self.scope.namespace is not None:
                    self._do_without(error)
                    await asyncio.sleep(REFUSED_SECONDS)
                else:
                    await self._rest(error)

    def _do_without(self, error: ApiError) -> None:
        """Let the other namespaces go on: rights end with a namespace, and no new start brings them back."""
        logger.warning(
            "%s of namespace %s are refused: %s", self.scope.kind.plural, self.scope.namespace, error
        )
        self._heard = self._list_time = time.monotonic()
        self._listed.set()

    async def _list(self) -> int:
        """Have all objects told anew; return the version of the list."""
        begun = time.monotonic()
        scope = self.scope
        pages = self._cluster.pages(scope.kind, scope.namespace, scope.selector)
        version = await self._listener.take(scope, pages)
        self._heard, self._list_time = time.monotonic(), begun
        self._listed.set()
        return version

    async def refresh(self, seconds: float) -> None:
        """Return as soon as there is a list that is no older than this; one is read at once, if need be."""
        if time.monotonic() - self._list_time > seconds:
            self._listed.clear()
            if self._until is not None and not self._until.expired():
                self._until.reschedule(asyncio.get_running_loop().time())
        await self._listed.wait()

    async def _follow(self, version: int) -> None:
        """Take in each change since a version, until another list is due, or the only way to go on."""
        with suppress(TimeoutError):
            try:
                async with asyncio.timeout(self._relist_seconds) as self._until:
                    while True:
                        version = await self._stream(version)
            finally:
                self._until = None

    async def _stream(self, version: int) -> int:
        """Take in the changes of one watch; return the version to go on from when it has ended."""
        begun, error = time.monotonic(), None
        try:
            async with aclosing(self._events(version)) as events:
                async for event in events:
                    self._heard, item = time.monotonic(), event["object"]
                    version = int(item["metadata"]["resourceVersion"])
                    if event["type"] != BOOKMARK:
                        self._listener.hear(self.scope, event["type"], item)
        except ApiError as raised:
            if raised.status == GONE:
                raise
            error = raised
        finally:
            if time.monotonic() - begun >= STEADY_SECONDS:
                self._pause = FIRST_PAUSE
        await self._rest(error)
        return version

    def _events(self, version: int) -> AsyncGenerator[Object, None]:
        scope = self.scope
        return self._cluster.watch(scope.kind, version, scope.namespace, scope.selector)

    async def _rest(self, error: ApiError | None) -> None:
        """Wait before the next request, longer each time: all operators of a cluster ask when it is back."""
        if error is not None:
            level = logging.INFO if error.status == GONE else logging.WARNING
            logger.log(level, "%s are not heard of; trying again: %s", self.scope.kind.plural, error)
        await asyncio.sleep(self._pause * random.uniform(0.5, 1.5))  # noqa: S311  (not a secret)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
