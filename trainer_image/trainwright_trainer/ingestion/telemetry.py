"""What the follower tells of itself: metrics, and whether it works, over HTTP."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Self

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from trainwright_trainer.ingestion.following import Moment
from trainwright_trainer.ingestion.ingestor import Ingestor

_SILENT_SECONDS = 150.0
"""A batch, or an attempt to connect and its pause, takes less: who tells nothing for so long is stuck."""


class Telemetry:
    """Counts what a follower tells; it is ready while it is connected and applies what comes."""

    def __init__(self, ingestor: Ingestor, clock: Callable[[], float] = time.time) -> None:
        self._ingestor, self._clock = ingestor, clock
        self._told: float | None = None
        self._connected = self._waits = False
        self._newest: float | None = None
        self._complete: float | None = None  # the trees hold all that the stream had then
        self.registry = registry = CollectorRegistry()
        self._messages = Counter(
            "trainwright_annotations_messages",
            "Messages by what became of them.",
            ["result"],
            registry=registry,
        )
        self._poison = Counter(
            "trainwright_annotations_poison",
            "Messages kept as dead letters, by rule.",
            ["rule"],
            registry=registry,
        )
        self._changed = Counter(
            "trainwright_annotations_changed", "Annotations whose files changed.", registry=registry
        )
        self._dropped = Counter(
            "trainwright_annotations_dropped",
            "Messages, at most, that the stream no longer had when they were to be read.",
            registry=registry,
        )
        self._offset = Gauge(
            "trainwright_annotations_offset", "Offset up to which all is applied.", registry=registry
        )
        self._lag = Gauge(
            "trainwright_annotations_lag_seconds",
            "How long ago the trees held all that the stream had; 0 while there is nothing more to read.",
            registry=registry,
        )
        self._lag.set_function(self._measure_lag)
        self._age = Gauge(
            "trainwright_annotations_last_message_age_seconds",
            "How long ago the broker had the newest message that is applied.",
            registry=registry,
        )
        self._age.set_function(lambda: self._since(self._newest))
        self._up = Gauge("trainwright_annotations_connected", "1 while connected.", registry=registry)
        letters = Gauge(
            "trainwright_annotations_dead_letters", "Dead letters in the folder.", registry=registry
        )
        letters.set_function(lambda: len(ingestor.dead_letters))

    def tell(self, moment: Moment) -> None:
        """Take note of how things stand."""
        now = self._told = self._clock()
        self._connected = moment.connected
        self._up.set(moment.connected)
        for result, number in moment.results.messages.items():
            self._messages.labels(result).inc(number)
        for rule, number in moment.results.poison.items():
            self._poison.labels(rule).inc(number)
        self._changed.inc(moment.results.changed)
        self._dropped.inc(moment.dropped)
        if moment.offset is not None:
            self._offset.set(moment.offset)
        self._newest = moment.last_message
        self._waits = moment.connected and moment.waiting
        known = [then for then in (self._complete, now if self._waits else self._newest) if then is not None]
        self._complete = max(known, default=None)

    def _measure_lag(self) -> float:
        return 0.0 if self._waits and self.is_alive else self._since(self._complete)

    def _since(self, then: float | None) -> float:
        return math.nan if then is None else max(self._clock() - then, 0.0)

    @property
    def is_alive(self) -> bool:
        """Whether it still goes round, connected or not."""
        return self._told is None or self._clock() - self._told < _SILENT_SECONDS

    @property
    def is_ready(self) -> bool:
        """Whether it is connected, and applies what comes."""
        return self._told is not None and self._connected and self.is_alive


class TelemetryServer:
    """Serves `/metrics`, `/healthz` and `/readyz`; without a host on every address, of both protocols."""

    def __init__(self, telemetry: Telemetry, host: str, port: int) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, kind, body = 200, "text/plain", b""
                if self.path == "/metrics":
                    kind, body = CONTENT_TYPE_LATEST, generate_latest(telemetry.registry)
                elif self.path == "/healthz":
                    status = 200 if telemetry.is_alive else 503
                elif self.path == "/readyz":
                    status = 200 if telemetry.is_ready else 503
                else:
                    status = 404
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - inherited
                """Say nothing of each probe."""

        everywhere = not host and socket.has_dualstack_ipv6()

        class Server(ThreadingHTTPServer):
            address_family = socket.AF_INET6 if everywhere or ":" in host else socket.AF_INET

            def server_bind(self) -> None:
                if everywhere:
                    self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                super().server_bind()

        self._server = Server((host, port), Handler)
        self.port = int(self._server.server_address[1])
        self._thread = Thread(target=self._server.serve_forever, name="telemetry", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
