"""`/healthz`: whether the operator hears of the cluster, not whether its process exists."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from trainwright_operator.handlers import Watches
from trainwright_operator.queue import WorkQueue

MISSED_RELISTS = 3  # a relist may fail; three in a row without a single event are a deaf operator


@asynccontextmanager
async def serve_health(
    port: int, watches: Watches, queue: WorkQueue, relist_seconds: float
) -> AsyncIterator[None]:
    """Answer `/healthz` for as long as the block lasts; 503 when nothing was heard for three relists."""

    async def healthz(_: web.Request) -> web.Response:
        silence = time.monotonic() - watches.last_heard
        healthy = silence < MISSED_RELISTS * relist_seconds
        body = {"healthy": healthy, "secondsSinceLastSign": round(silence, 1), "queueDepth": queue.depth}
        return web.json_response(body, status=200 if healthy else 503)

    application = web.Application()
    application.router.add_get("/healthz", healthz)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, None, port).start()
        yield
    finally:
        await runner.cleanup()
