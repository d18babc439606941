"""Tells people what becomes of their runs, beside the reconciles and never in their way.

What is to be told is in the status; what was told is kept here until the run's next status says so. Between a
notice that was sent and that status lies the only moment in which a crash has it sent again.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from trainwright_operator.cluster import SECRETS, ApiError
from trainwright_operator.names import Reason, Use
from trainwright_operator.notices import (
    FAILED,
    SENT,
    Delivery,
    Target,
    compose,
    identify,
    pending,
    targets_of,
)
from trainwright_operator.queue import Key, WorkQueue
from trainwright_operator.reconcile import Reconciler
from trainwright_operator.references import Reference, find_problems
from trainwright_operator.times import parse_time

Object = dict[str, Any]
Send = Callable[[Object], Awaitable[str]]

logger = logging.getLogger(__name__)

WORKERS = 4
LONGEST_PAUSE = 600.0
TRIES_BEFORE_EVENT = 3
WRITING_SECONDS = 1.0  # for the statuses that say what was sent last, when the operator stops


@dataclass
class _Tries:
    count: int = 0
    due: float = 0.0


class Notifications:
    """Sends what runs have pending, again after a pause that doubles, until it is too old."""

    def __init__(self, reconciler: Reconciler, send: Send, done: Callable[[Key], None]) -> None:
        self._cluster, self._store = reconciler.cluster, reconciler.store
        self._events, self._bases = reconciler.events, reconciler.bases
        self._outbox, self._metrics = reconciler.outbox, reconciler.metrics
        self._settings, self._defaults = reconciler.settings.notifications, reconciler.settings.defaults
        self._send = send
        self._done = done
        self._tries: dict[Key, dict[Delivery, _Tries]] = {}
        self.queue = WorkQueue(self._deliver, WORKERS)
        self._outbox.wake = self.queue.add

    async def settle(self, seconds: float) -> None:
        """Begin with no other notice; return when the runs' statuses say what was sent, or time is over."""
        await self.queue.settle(seconds)
        deadline = time.monotonic() + WRITING_SECONDS
        while not self._outbox.empty and time.monotonic() < deadline:
            await asyncio.sleep(0.02)

    async def _deliver(self, key: Key) -> float | None:
        """Send a run's notices that are due; returns when the next one is."""
        run = self._store.run(key)
        if run is None:
            self._tries.pop(key, None)
            return None
        waits = []
        for notice, target in pending(run.get("status") or {}, targets_of({**self._defaults, **run["spec"]})):
            delivery = Delivery(identify(notice), target.digest)
            if delivery in self._outbox.outcomes(run):
                continue
            tries = self._tries.setdefault(key, {}).setdefault(delivery, _Tries())
            if tries.due <= time.monotonic():
                await self._try(run, notice, target, tries)
            if delivery not in self._outbox.outcomes(run):
                waits.append(tries.due - time.monotonic())
        if not waits:
            self._tries.pop(key, None)
        if self._outbox.outcomes(run):
            self._done(key)
        return max(0.0, min(waits)) if waits else None

    async def _try(self, run: Object, notice: Object, target: Target, tries: _Tries) -> None:
        """Send one notice; what went wrong never has the address in it."""
        delivery = Delivery(identify(notice), target.digest)
        problem = await self._post(run, notice, target)
        if not problem:
            self._outbox.settle(run, delivery, SENT)
            self._metrics.count_notification(SENT)
            return
        tries.count += 1
        pause = min(self._settings.retry_seconds * 2 ** (tries.count - 1), LONGEST_PAUSE)
        tries.due = time.monotonic() + pause
        what = f"{notice['phase']} for key {target.key!r} of Secret {target.secret!r}: {problem}"
        logger.warning("not notified of %s", what)
        age = (datetime.now(UTC) - parse_time(notice["time"])).total_seconds()
        if age + pause > self._settings.give_up_seconds:
            self._outbox.settle(run, delivery, FAILED)
            self._metrics.count_notification(FAILED)
            await self._events.tell(run, "Warning", Reason.NOTIFICATION_FAILED, f"given up: {what}")
            return
        self._metrics.count_notification("Retried")
        if tries.count == TRIES_BEFORE_EVENT:
            await self._events.tell(run, "Warning", Reason.NOTIFICATION_DELAYED, f"tried again: {what}")

    async def _post(self, run: Object, notice: Object, target: Target) -> str:
        namespace = run["metadata"]["namespace"]
        try:
            basis = await self._bases.find(run)
            secret = await self._cluster.get(SECRETS, namespace, target.secret)
        except ApiError as error:
            return (
                f"the Secret, or what the run's profile allows, can't be read: {error.status} {error.reason}"
            )
        if basis.problems:  # a profile that is not there allows nothing
            return f"what the run's profile allows is not known: {basis.problems[0]}"
        reference = Reference("spec.notify", "Secret", target.secret, Use.NOTIFY, (target.key,))
        problems = find_problems([reference], {reference.identity: secret}, namespace)
        if secret is None or problems:
            return problems[0]
        try:
            url = base64.b64decode(secret["data"][target.key], validate=True).decode()
        except ValueError:
            return "the Secret's text is not UTF-8"
        hosts = basis.snapshot.bounds.endpoints
        return await self._send({"url": url, "hosts": hosts, **compose(run, notice)})
