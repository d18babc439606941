"""A queue of keys to reconcile: each key once, never by two workers at a time, later when it failed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from trainwright_operator.logs import about

logger = logging.getLogger(__name__)

FIRST_BACKOFF = 0.5
LONGEST_BACKOFF = 60.0


class Key(NamedTuple):
    """Which object is to be reconciled."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


Reconcile = Callable[[Key], Awaitable[float | None]]
"""Brings one object to where it should be; returns the seconds after which to look again, if any."""


class WorkQueue:
    """Wakes `reconcile` for each key that was added, with at most `workers` at work.

    A key added while it is being worked on is worked on once more afterwards. A reconcile that raises is
    repeated after a pause that doubles up to a minute; one that succeeds forgets the pause.
    """

    def __init__(self, reconcile: Reconcile, workers: int) -> None:
        self._reconcile = reconcile
        self._workers = workers
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._waiting: set[Key] = set()
        self._working: dict[Key, float] = {}  # since when
        self._again: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._backoffs: dict[Key, float] = {}
        self._open = asyncio.Event()
        self._open.set()

    def add(self, key: Key) -> None:
        """Have the key reconciled as soon as a worker is free."""
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)

    def add_later(self, key: Key, seconds: float) -> None:
        """Have the key reconciled in some seconds; an earlier time wins over a later one."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + seconds:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self._fire, key)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work())

    @property
    def depth(self) -> int:
        """Keys that wait for a worker."""
        return len(self._waiting)

    @property
    def longest_work(self) -> float:
        """Seconds the slowest of the keys at work has taken so far; one that takes minutes is stuck."""
        return time.monotonic() - min(self._working.values()) if self._working else 0.0

    async def settle(self, seconds: float) -> bool:
        """Begin with no other key, and return whether those at work were done in time."""
        self._open.clear()
        deadline = time.monotonic() + seconds
        while self._working and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        return not self._working

    def _fire(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)

    async def _work(self) -> None:
        while True:
            await self._open.wait()
            key = await self._ready.get()
            if not self._open.is_set():
                self._ready.put_nowait(key)
                continue
            self._waiting.discard(key)
            self._working[key] = time.monotonic()
            try:
                with about(*key):
                    pause = await self._look_at(key)
            except asyncio.CancelledError:
                del self._working[key]
                self._again.discard(key)
                self.add(key)  # whoever works next begins with it anew
                raise
            del self._working[key]
            if key in self._again:
                self._again.discard(key)
                self.add(key)
            elif pause is not None:
                self.add_later(key, pause)

    async def _look_at(self, key: Key) -> float | None:
        try:
            pause = await self._reconcile(key)
            self._backoffs.pop(key, None)
        except Exception as error:
            pause = self._backoffs.get(key, FIRST_BACKOFF)
            self._backoffs[key] = min(2 * pause, LONGEST_BACKOFF)
            logger.warning("%s: %s; again in %.1f s", key, error, pause, exc_info=logger.isEnabledFor(10))
        return pause
