"""One operator's life: it watches from its start on, acts while it leads, and stops without haste or loss."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import kopf
import yaml
from pydantic import ValidationError

from trainwright_operator.cluster import ApiError, Cluster, Login, connect
from trainwright_operator.couriers import Couriers
from trainwright_operator.handlers import Watches, make_kopf_settings, make_registry
from trainwright_operator.health import Health, serve_health
from trainwright_operator.leadership import Identity, Leadership
from trainwright_operator.logs import set_level
from trainwright_operator.metrics import Metrics
from trainwright_operator.notifications import Notifications
from trainwright_operator.profile_statuses import ProfileStatuses
from trainwright_operator.queue import WorkQueue
from trainwright_operator.reconcile import Reconciler
from trainwright_operator.settings import OperatorSettings, read_settings
from trainwright_operator.store import Store

logger = logging.getLogger(__name__)

SETTLING_SECONDS = 5.0  # for what is being done when the operator is asked to stop
LOOK_SECONDS = 5.0  # between two looks at the settings file; the kubelet takes up to a minute to change it
FRESH_SECONDS = 5.0  # a list this old is good enough to begin with


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
    async with connect(start.login) as cluster, connect(start.login) as lease_cluster:
        seconds = start.settings.lease_seconds
        leadership = Leadership(lease_cluster, start.identity, seconds)
        await Operator(start, cluster, leadership, stop).run()


def _answer_signals(stop: asyncio.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


class Operator:
    """The parts of one operator."""

    def __init__(self, start: Start, cluster: Cluster, leadership: Leadership, stop: asyncio.Event) -> None:
        self._start = start
        self._stop = stop
        self._leadership = leadership
        self._metrics = metrics = Metrics()
        cluster.on_answer = metrics.count_request
        cluster.may_write = lambda: leadership.leads
        store = Store()
        self._reconciler = Reconciler(cluster, store, start.settings, metrics=metrics)
        self._profiles = ProfileStatuses(cluster, store, start.settings)
        self._queue = WorkQueue(metrics.measure(self._reconciler.reconcile), start.settings.workers)
        reach = start.settings.notifications
        self._couriers = Couriers(reach.allowed_networks, reach.refused_networks)
        self._notifications = Notifications(self._reconciler, self._couriers.send, self._queue.add)
        self._watches = Watches(store, self._queue)
        self._listed = float("-inf")
        metrics.observe(store, self._queue, lambda: self._watches.silence, lambda: leadership.leads)

    async def run(self) -> None:
        """Watch, and act while leading, until told to stop or until something that must not end has ended."""
        settings = self._start.settings
        health = Health(self._watches, self._queue, lambda: self._leadership.leads, settings.relist_seconds)
        async with AsyncExitStack() as serving:
            await serving.enter_async_context(serve_health(settings.health_port, health, self._metrics))
            await self._relist()
            health.ready = True
            tasks = [
                asyncio.create_task(self._lead()),
                asyncio.create_task(self._relist_for_ever()),
                asyncio.create_task(follow_settings(self._start.settings_file, settings)),
                asyncio.create_task(self._watch()),
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

    async def _lead(self) -> None:
        """Reconcile whenever the Lease is ours."""
        while True:
            await self._leadership.acquire()
            if time.monotonic() - self._listed > FRESH_SECONDS:
                await self._relist()
            logger.info("reconciling %d runs", self._queue.depth)
            tasks = [
                asyncio.create_task(self._leadership.keep()),
                asyncio.create_task(self._queue.run()),
                asyncio.create_task(self._notifications.queue.run()),
                asyncio.create_task(self._profiles.run()),
            ]
            try:
                await asyncio.wait(tasks, return_when="FIRST_COMPLETED")
            finally:
                for task in tasks:
                    task.cancel()
                ends = await asyncio.gather(*tasks, return_exceptions=True)
            for end in ends:
                if isinstance(end, Exception):
                    raise end

    async def _watch(self) -> None:
        """Keep the store as the watches tell.

        kopf would answer the signals itself, and in its own way, so they are ours again when it has begun. In
        its end it ends every task that began after it: nothing of ours may begin later and be needed then.
        """
        namespaces = self._start.settings.namespaces
        tasks = await kopf.spawn_tasks(
            registry=make_registry(self._watches, self._start.login),
            settings=make_kopf_settings(),
            clusterwide=not namespaces,
            namespaces=namespaces,
        )
        _answer_signals(self._stop)
        await kopf.run_tasks(tasks, ignored=frozenset(asyncio.all_tasks()))

    async def _relist(self) -> None:
        keys = await self._reconciler.relist()
        self._listed = time.monotonic()
        self._watches.hear()
        for key in keys:
            self._queue.add(key)

    async def _relist_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._start.settings.relist_seconds)
            try:
                await self._relist()
            except ApiError as error:
                logger.warning("relist failed: %s", error)


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
