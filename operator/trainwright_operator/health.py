"""`/healthz`: whether the operator hears of the cluster, not whether its process exists; and `/metrics`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from trainwright_operator.handlers import Watches
from trainwright_operator.metrics import Metrics
from trainwright_operator.queue import WorkQueue

MISSED_RELISTS = 3  # a relist may fail; three in a row without a single event are a deaf operator


@asynccontextmanager
async def serve_health(
    port: int, watches: Watches, queue: WorkQueue, metrics: Metrics, relist_seconds: float
) -> AsyncIterator[None]:
    """Answer `/healthz` and `/metrics` for as long as the block lasts.

    `/healthz` answers 503 when nothing was heard for three relists.
    """

    async def healthz(_: web.Request) -> web.Response:
        silence = watches.silence
        healthy = silence < MISSED_RELISTS * relist_seconds
        body = {"healthy": healthy, "secondsSinceLastSign": round(silence, 1), "queueDepth": queue.depth}
        return web.json_response(body, status=200 if healthy else 503)

    async def scrape(_: web.Request) -> web.Response:
        return web.Response(body=metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    application = web.Application()
    application.router.add_get("/healthz", healthz)
    application.router.add_get("/metrics", scrape)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, None, port).start()
        yield
    finally:
        await runner.cleanup()
