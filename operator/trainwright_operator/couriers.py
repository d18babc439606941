"""Processes that send notifications: started when there is something to send, ended when there is not."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

Object = dict[str, Any]

MESSENGER = ("-I", "-m", "trainwright_operator.messenger")
MOST = 2  # processes; each takes some 60 MiB while it lives
IDLE_SECONDS = 20.0
ANSWER_SECONDS = 60.0
ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
"""What a messenger gets of our environment: no address of the API server, no proxy that would hide a peer."""
SILENT = "the notification's process ended, or did not answer in time"


class Courier:
    """One process at most, which is given one letter at a time."""

    def __init__(self, policy: Object) -> None:
        self._policy = policy
        self._process: asyncio.subprocess.Process | None = None
        self._idle: asyncio.TimerHandle | None = None

    async def send(self, letter: Object) -> str:
        """Send a letter; return what went wrong, or nothing."""
        if self._idle:
            self._idle.cancel()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                letters, answers = await self._start()
                letters.write(json.dumps(letter).encode() + b"\n")
                await letters.drain()
                answer = json.loads(await answers.readline())
        except (TimeoutError, OSError, ValueError):
            self.kill()
            return SILENT
        except asyncio.CancelledError:
            self.kill()
            raise
        self._idle = asyncio.get_running_loop().call_later(IDLE_SECONDS, self.kill)
        return str(answer["problem"])

    def kill(self) -> asyncio.subprocess.Process | None:
        """End the process, whatever it does; returns it."""
        if self._idle:
            self._idle.cancel()
        process, self._process = self._process, None
        if process and process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
        return process

    async def end(self) -> None:
        """End the process, and return when it is gone."""
        if process := self.kill():
            await process.communicate()

    async def _start(self) -> tuple[asyncio.StreamWriter, asyncio.StreamReader]:
        """Return where the process reads and where it writes."""
        if self._process is None or self._process.returncode is not None:
            pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
            # Nothing that it writes beside its answers is for us: libraries would name the address.
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *MESSENGER,
                stdin=pipe,
                stdout=pipe,
                stderr=nothing,
                cwd="/",
                env={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
            )
            _writer(self._process).write(json.dumps(self._policy).encode() + b"\n")
        if self._process.stdout is None:
            raise BrokenPipeError
        return _writer(self._process), self._process.stdout


def _writer(process: asyncio.subprocess.Process) -> asyncio.StreamWriter:
    if process.stdin is None:
        raise BrokenPipeError
    return process.stdin


class Couriers:
    """A few couriers, of which each letter gets the next that is free."""

    def __init__(self, allowed: Sequence[object], refused: Sequence[object]) -> None:
        policy = {"allowed": [str(network) for network in allowed], "refused": [str(n) for n in refused]}
        self._all = [Courier(policy) for _ in range(MOST)]
        self._free: asyncio.LifoQueue[Courier] = asyncio.LifoQueue()
        for courier in self._all:
            self._free.put_nowait(courier)

    async def send(self, letter: Object) -> str:
        """Send a letter; return what went wrong, or nothing."""
        async with self._next() as courier:
            return await courier.send(letter)

    async def end(self) -> None:
        """End all processes."""
        for courier in self._all:
            await courier.end()

    @asynccontextmanager
    async def _next(self) -> AsyncIterator[Courier]:
        courier = await self._free.get()
        try:
            yield courier
        finally:
            self._free.put_nowait(courier)
