"""`/healthz` and `/readyz`: whether the operator works, not whether its process exists; and `/metrics`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from trainwright_operator.metrics import Metrics
from trainwright_operator.queue import WorkQueue

MISSED_RELISTS = 3  # a relist may fail; three in a row without a single event are a deaf operator
STUCK_SECONDS = 900.0  # requests have time limits, and are repeated a few times; no reconcile takes this long


@dataclass
class Health:
    """What the operator's health is judged by."""

    ages: Callable[[], dict[str, float]]  # of the watches, by kind
    queue: WorkQueue
    leads: Callable[[], bool]
    relist_seconds: float
    ready: bool = False  # whether it has seen the cluster once

    def problems(self) -> list[str]:
        """Return everything that only a new start can mend."""
        found = []
        for kind, age in self.ages().items():
            if age >= MISSED_RELISTS * self.relist_seconds:
                found.append(f"nothing was heard of {kind} objects for {age:.0f} s")
        if self.queue.longest_work >= STUCK_SECONDS:
            found.append(f"a run has been worked on for {self.queue.longest_work:.0f} s")
        return found

    def describe(self) -> dict[str, Any]:
        """Return what `/healthz` tells."""
        problems = self.problems()
        return {
            "healthy": not problems,
            "problems": problems,
            "leader": self.leads(),
            "watchAgeSeconds": {kind: round(age, 1) for kind, age in self.ages().items()},
            "queueDepth": self.queue.depth,
        }


@asynccontextmanager
async def serve_health(port: int, health: Health, metrics: Metrics) -> AsyncIterator[None]:
    """Answer for as long as the block lasts; 503 is the answer of who is not healthy, or not ready."""

    async def healthz(_: web.Request) -> web.Response:
        told = health.describe()
        return web.json_response(told, status=200 if told["healthy"] else 503)

    async def readyz(_: web.Request) -> web.Response:
        return web.json_response({"ready": health.ready}, status=200 if health.ready else 503)

    async def scrape(_: web.Request) -> web.Response:
        return web.Response(body=metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    application = web.Application()
    application.router.add_get("/healthz", healthz)
    application.router.add_get("/readyz", readyz)
    application.router.add_get("/metrics", scrape)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, None, port).start()
        yield
    finally:
        await runner.cleanup()
