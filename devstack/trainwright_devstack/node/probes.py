"""Probes of one container: how often it answered, and what follows from that."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]


@dataclass
class Probe:
    """One probe of one start of a container; `passing` is what the thresholds make of its answers."""

    settings: Object
    ports: dict[str, int]
    passing: bool
    _next: float = 0.0
    _successes: int = 0
    _failures: int = 0

    def start(self) -> None:
        """Begin the initial delay."""
        self._next = time.monotonic() + self.settings.get("initialDelaySeconds", 0)

    def check(self) -> None:
        """Ask if it is time to."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self.settings.get("periodSeconds", 10)
        if self._answers():
            self._successes, self._failures = self._successes + 1, 0
        else:
            self._successes, self._failures = 0, self._failures + 1
        if self._successes >= self.settings.get("successThreshold", 1):
            self.passing = True
        elif self._failures >= self.settings.get("failureThreshold", 3):
            self.passing = False

    @property
    def failed(self) -> bool:
        """Whether the failure threshold is reached."""
        return bool(self._failures >= self.settings.get("failureThreshold", 3))

    def _answers(self) -> bool:
        timeout: float = self.settings.get("timeoutSeconds", 1)
        try:
            if "httpGet" in self.settings:
                return 200 <= self._http_status(self.settings["httpGet"], timeout) < 400
            port = self._port(self.settings["tcpSocket"]["port"])
            with socket.create_connection(("127.0.0.1", port), timeout):
                return True
        except (OSError, http.client.HTTPException):
            return False

    def _http_status(self, request: Object, timeout: float) -> int:
        port = self._port(request["port"])
        connection: http.client.HTTPConnection
        if request.get("scheme") == "HTTPS":
            # As the kubelet: a probe asks whether somebody answers, not who.
            context = ssl._create_unverified_context()  # noqa: S323
            connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=timeout, context=context)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        headers = {header["name"]: header["value"] for header in request.get("httpHeaders", [])}
        try:
            connection.request("GET", request.get("path") or "/", headers=headers)
            return connection.getresponse().status
        finally:
            connection.close()

    def _port(self, port: int | str) -> int:
        return port if isinstance(port, int) else self.ports[port]


class Probes:
    """The three probes of one start of a container."""

    def __init__(self, container: Object) -> None:
        ports = {port["name"]: port["containerPort"] for port in container.get("ports", []) if "name" in port}

        def probe(name: str, *, passing: bool) -> Probe | None:
            settings = container.get(name)
            return Probe(settings, ports, passing) if settings else None

        self._startup = probe("startupProbe", passing=False)
        self._liveness = probe("livenessProbe", passing=True)
        self._readiness = probe("readinessProbe", passing=False)
        self._delayed = False
        if self._startup:
            self._startup.start()

    @property
    def started(self) -> bool:
        """Whether the startup probe, if there is one, has passed."""
        return self._startup is None or self._startup.passing

    @property
    def ready(self) -> bool:
        """Whether the container is ready, as far as probes tell."""
        return self.started and (self._readiness is None or self._readiness.passing)

    @property
    def dead(self) -> str:
        """Which probe says that the container must be started again; empty if none does."""
        if self._startup and not self._startup.passing and self._startup.failed:
            return "startupProbe"
        return "livenessProbe" if self._liveness and not self._liveness.passing else ""

    def check(self) -> None:
        """Ask whatever is due."""
        if self._startup and not self._startup.passing:
            self._startup.check()
            return
        later = [probe for probe in (self._liveness, self._readiness) if probe]
        if not self._delayed:
            self._delayed = True
            for probe in later:
                probe.start()
        for probe in later:
            probe.check()
