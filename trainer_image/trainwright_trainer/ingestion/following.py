"""Reads the stream into the trees: for ever, or up to where it ends now."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event

from trainwright.errors import ConfigurationError, NetworkError, PreemptedError
from trainwright_trainer.ingestion.address import StreamAddress
from trainwright_trainer.ingestion.broker import StreamReader, ask_for_end
from trainwright_trainer.ingestion.continuity import Continuity
from trainwright_trainer.ingestion.ingestor import Ingestor, Received, Results

Telling = Callable[["Moment"], None]

_LOG = logging.getLogger(__name__)
_IDLE_SECONDS = 1.0
_SILENCE_SECONDS = 300.0  # after which a connection is made anew: one that died may look like a quiet one
_STALL_SECONDS = 20.0  # of one that is known to have more, and of whom it is delivered at once
_LONGEST_PAUSE = 30.0
_MOST_FAILURES = 8  # in a row, of one that is waited for: two minutes and more
_REFUSED_SECONDS = 120.0  # then it is no broker that comes back: the next process reads its settings anew


@dataclass
class Moment:
    """How things stand: told after every batch, and when nothing comes.

    `last_message` is when the broker had the newest message that is applied, in seconds since 1970. While
    `waiting` there is nothing more to read. `dropped` counts what the stream no longer had.
    """

    results: Results = field(default_factory=Results)
    offset: int | None = None
    connected: bool = False
    last_message: float | None = None
    waiting: bool = False
    dropped: int = 0


class Follower:
    """Applies what comes, and makes lost connections again; `stop` ends it after the batch at hand."""

    def __init__(
        self, address: StreamAddress, ingestor: Ingestor, stop: Event, tell: Telling = lambda _: None
    ) -> None:
        self._address, self._ingestor, self._stop, self._tell = address, ingestor, stop, tell
        self._moment = Moment()
        self._was_connected = False
        self._failures = 0  # in a row, without a message between them

    def follow(self) -> None:
        """Read on until `stop` is set."""
        asyncio.run(self._read(end=None))

    def catch_up(self, end: int | None) -> int | None:
        """Read up to an offset, and return what is applied; raise `PreemptedError` on `stop`.

        A broker that stays away for minutes is a `NetworkError`.
        """
        done = self._ingestor.reached
        if end is None and done is not None:
            raise Continuity(self._address, done).broken("it is empty")
        if end is not None:
            asyncio.run(self._read(end))
            if self._stop.is_set():
                raise PreemptedError("asked to stop while the annotation stream was read")
        return self._ingestor.offset

    async def _read(self, end: int | None) -> None:
        refused = None
        self._ingestor.announce(self._address.stream)
        while not self._stop.is_set():
            try:
                async with StreamReader(self._address) as reader:
                    done = self._ingestor.reached
                    await reader.subscribe(None if done is None else done.offset)
                    _LOG.info("reading the %s after offset %s", self._address, self._ingestor.offset)
                    self._moment.connected, self._was_connected = True, True
                    refused = None
                    if await self._apply_batches(reader, end, Continuity(self._address, done)):
                        return
            except (NetworkError, ConfigurationError) as error:
                if isinstance(error, ConfigurationError):
                    # A broker that comes back knows neither streams nor users at first.
                    refused = refused or time.monotonic()
                    if not self._was_connected or time.monotonic() - refused > _REFUSED_SECONDS:
                        raise
                self._failures += 1
                if end is not None and self._failures == _MOST_FAILURES:
                    raise
                pause = min(2.0 ** min(self._failures, 6), _LONGEST_PAUSE) * random.uniform(0.5, 1)  # noqa: S311
                _LOG.warning("%s; trying again in %.0f s. %s", error, pause, error.hint)
                self._moment.connected = self._moment.waiting = False
                self._tell(self._moment)
                await asyncio.to_thread(self._stop.wait, pause)

    async def _apply_batches(self, reader: StreamReader, end: int | None, continuity: Continuity) -> bool:
        """Apply what comes until that is all; return False where the connection has to be made anew."""
        begun = heard = time.monotonic()
        while not self._stop.is_set():
            wait = 0.0 if self._ingestor.has_more else _IDLE_SECONDS
            deliveries = [] if self._ingestor.is_busy else await reader.next_batch(wait)
            received = [delivery.decode() for delivery in deliveries]
            batch = continuity.check(received)
            self._moment.dropped += continuity.take_dropped()
            if continuity.is_overdue:
                found = await ask_for_end(self._address)
                raise continuity.judge(end if found is None else found)  # silence is no empty stream
            if batch or self._ingestor.has_more:
                self._moment.results = await asyncio.to_thread(self._ingestor.apply, batch)
                heard = time.monotonic()
            if batch or time.monotonic() - begun > _LONGEST_PAUSE:
                self._failures = 0
            self._describe(received)
            offset = self._ingestor.offset
            await reader.store_offset(offset)
            if end is not None and offset is not None and offset >= end and continuity.is_certain:
                break
            if self._is_too_silent(time.monotonic() - heard, end):
                return False
        await reader.store_offset(self._ingestor.offset, last=True)
        return True

    def _is_too_silent(self, seconds: float, end: int | None) -> bool:
        """Return whether to connect anew; raise `NetworkError` where more is known to be there."""
        if end is not None and seconds > _STALL_SECONDS:
            raise NetworkError(
                f"the {self._address} has messages up to {end}, and delivers none after offset"
                f" {self._ingestor.offset}",
                hint="See whether the broker is overloaded, or the network to it.",
            )
        return seconds > _SILENCE_SECONDS

    def _describe(self, received: list[Received]) -> None:
        moment = self._moment
        moment.offset, moment.waiting = self._ingestor.offset, not received and not self._ingestor.has_more
        if received:
            moment.last_message = received[-1].time / 1_000_000
        self._tell(moment)
        moment.results, moment.dropped = Results(), 0
