"""One operator's life: it watches from its start on, acts while it leads, and stops without haste or loss."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from trainwright_operator.cluster import Cluster, connect
from trainwright_operator.couriers import Couriers
from trainwright_operator.health import Health, serve_health
from trainwright_operator.leadership import Identity, Leadership
from trainwright_operator.login import Login
from trainwright_operator.logs import set_level
from trainwright_operator.metrics import Metrics
from trainwright_operator.notifications import Notifications
from trainwright_operator.profile_statuses import ProfileStatuses
from trainwright_operator.queue import WorkQueue
from trainwright_operator.reconcile import Reconciler
from trainwright_operator.settings import OperatorSettings, read_settings
from trainwright_operator.store import Store
from trainwright_operator.watches import Watches

logger = logging.getLogger(__name__)

SETTLING_SECONDS = 5.0  # for what is being done when the operator is asked to stop
LOOK_SECONDS = 5.0  # between two looks at the settings file; the kubelet takes up to a minute to change it
FRESH_SECONDS = 5.0  # a list this old is good enough to begin with
NEW_OBJECTS = 20_000  # between two searches for cycles among them


@dataclass(frozen=True)
class Start:
    """What an operator is started with."""

    settings: OperatorSettings
    settings_file: Path
    login: Login
    identity: Identity


async def operate(start: Start) -> None:
    """Run the operator until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    _answer_signals(stop)
    _collect_less()
    async with AsyncExitStack() as sessions:
        # Of their own: the Lease does not wait for a burst of requests, and each watch keeps its connection.
        cluster, leased, watched = [
            await sessions.enter_async_context(connect(start.login, limit)) for limit in (32, 32, 0)
        ]
        leadership = Leadership(leased, start.identity, start.settings.lease_seconds)
        await Operator(start, cluster, watched, leadership, stop).run()


def _collect_less() -> None:
    """Search for cyclic garbage seldom: JSON has no cycles, and the search took half the time of a list."""
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, 10, 10)


def _answer_signals(stop: asyncio.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


class Operator:
    """The parts of one operator."""

    def __init__(
        self,
        start: Start,
        cluster: Cluster,
        watched: Cluster,
        leadership: Leadership,
        stop: asyncio.Event,
    ) -> None:
        self._start = start
        self._stop = stop
        self._leadership = leadership
        self._metrics = metrics = Metrics()
        cluster.on_answer = watched.on_answer = metrics.count_request
        cluster.may_write = lambda: leadership.leads
        store = Store()
        self._reconciler = Reconciler(cluster, store, start.settings, metrics=metrics)
        self._profiles = ProfileStatuses(cluster, store, start.settings)
        self._queue = WorkQueue(metrics.measure(self._reconciler.reconcile), start.settings.workers)
        reach = start.settings.notifications
        self._couriers = Couriers(reach.allowed_networks, reach.refused_networks)
        self._notifications = Notifications(self._reconciler, self._couriers.send, self._queue.add)
        namespaces, seconds = start.settings.namespaces, start.settings.relist_seconds
        self._watches = Watches(watched, store, self._queue, namespaces, seconds)
        metrics.observe(store, self._queue, self._watches.ages, lambda: leadership.leads)

    async def run(self) -> None:
        """Watch, and act while leading, until told to stop or until something that must not end has ended."""
        settings = self._start.settings
        health = Health(
            self._watches.ages, self._queue, lambda: self._leadership.leads, settings.relist_seconds
        )
        async with AsyncExitStack() as serving:
            await serving.enter_async_context(serve_health(settings.health_port, health, self._metrics))
            tasks = [
                asyncio.create_task(self._watches.run()),
                asyncio.create_task(self._lead(health)),
                asyncio.create_task(follow_settings(self._start.settings_file, settings)),
            ]
            stopping = asyncio.create_task(self._stop.wait())
            await asyncio.wait([stopping, *tasks], return_when="FIRST_COMPLETED")
            await serving.aclose()  # the port is free for whoever comes next
        await self._end(tasks)

    async def _end(self, tasks: list[asyncio.Task[None]]) -> None:
        failed = [task.exception() for task in tasks if task.done() and not task.cancelled()]
        await self._notifications.settle(SETTLING_SECONDS)
        await self._couriers.end()
        if await self._queue.settle(SETTLING_SECONDS):
            await self._leadership.release()
        else:
            logger.warning("something is still being done: the Lease is not released, and runs out by itself")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for error in failed:
            if error is not None:
                raise error

    async def _lead(self, health: Health) -> None:
        """Act whenever the Lease is ours, once the cluster was seen."""
        await self._watches.refresh()
        health.ready = True
        while True:
            await self._leadership.acquire()
            tasks = [asyncio.create_task(self._leadership.keep()), asyncio.create_task(self._act())]
            try:
                await asyncio.wait(tasks, return_when="FIRST_COMPLETED")
            finally:
                for task in tasks:
                    task.cancel()
                ends = await asyncio.gather(*tasks, return_exceptions=True)
            for end in ends:
                if isinstance(end, Exception):
                    raise end

    async def _act(self) -> None:
        """Reconcile; whoever led before may have written what the watches have not yet told."""
        await self._watches.refresh(FRESH_SECONDS)
        logger.info("reconciling %d runs", self._queue.depth)
        async with asyncio.TaskGroup() as group:
            for part in (self._queue, self._notifications.queue, self._profiles):
                group.create_task(part.run())


async def follow_settings(path: Path, settings: OperatorSettings, seconds: float = LOOK_SECONDS) -> None:
    """Take a new log level over as soon as the file has it; say of anything else that it needs a restart."""
    text = path.read_text()
    while True:
        await asyncio.sleep(seconds)
        try:
            if (now := path.read_text()) == text:
                continue
            text = now
            found = read_settings(path)
        except (OSError, ValidationError, yaml.YAMLError) as error:
            logger.warning("the changed settings can't be read, and are not used: %s", type(error).__name__)
            continue
        if found.log_level != settings.log_level:
            set_level(found.log_level)
            logger.warning("the log level is %s now", found.log_level)
        if found.model_copy(update={"log_level": settings.log_level}) != settings:
            logger.warning("settings have changed that are read once: they hold from the next start on")
        settings = settings.model_copy(update={"log_level": found.log_level})
