"""A stream of RabbitMQ, read from an offset on, message by message."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import rstream.connection
from rstream import ConsumerOffsetSpecification, OffsetType

from trainwright.errors import ConfigurationError, NetworkError, StepError
from trainwright_trainer.ingestion.address import StreamAddress, explain
from trainwright_trainer.ingestion.amqp import read_amqp
from trainwright_trainer.ingestion.chunks import ChunkConsumer
from trainwright_trainer.ingestion.ingestor import Received

SUBSCRIBER = "trainwright"
"""Under this name the broker keeps our offset, for people who look there."""

# A setting of the library that has no other place: it reads 256 bytes at a time, and of one image 300 times.
rstream.connection.CHUNK_SIZE = 256 * 1024
_CREDIT = 2  # chunks that are on their way; each may hold thousands of messages, and memory has to hold it

_BATCH_MESSAGES = 1000
_BATCH_BYTES = 16 * 1024 * 1024
_BUFFERED_BYTES = 2 * _BATCH_BYTES
_ANSWER_SECONDS = 20.0
_STORE_SECONDS = 2.0
_END_SECONDS = 5.0  # in which a message that is there is delivered


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as it came, undecoded; `time` is the broker's, in milliseconds since 1970."""

    offset: int
    time: int
    data: bytes

    def decode(self) -> Received:
        """Return the message; one that is no AMQP is given as it is, and will not be understood."""
        try:
            body, properties = read_amqp(self.data)
        except ValueError:
            body, properties = bytes(self.data), {}
        return Received(self.offset, self.time * 1000, body, properties)


class StreamReader:
    """One connection to a stream; what goes wrong with it is raised by `next_batch`."""

    def __init__(self, address: StreamAddress) -> None:
        self._address = address
        self._buffer: list[Delivery] = []
        self._buffered = 0
        self._arrived, self._room = asyncio.Event(), asyncio.Event()
        self._closed = False
        self._first: int | None = None
        self._stored: int | None = None
        self._stored_at = time.monotonic()

    async def __aenter__(self) -> Self:
        address = self._address
        self._consumer = ChunkConsumer(
            address.host,
            address.port,
            username=address.user,
            password=address.password,
            ssl_context=_trust(address),
            connection_name="trainwright-annotations",
            on_close_handler=self._on_close,
        )
        try:
            try:
                exists = await self._exists()
            except (
                ConnectionResetError
            ):  # a refusal, and its reason was lost on the way: asked again it is told
                exists = await self._exists()
        except BaseException as error:
            await self._close()
            if (known := explain(error, address)) is None:
                raise
            raise known from error
        if not exists:
            await self._close()
            raise ConfigurationError(
                f"there is no {address}",
                hint="Check the stream's name: the platform creates it, not those who read it.",
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def _exists(self) -> bool:
        return await asyncio.wait_for(self._consumer.stream_exists(self._address.stream), _ANSWER_SECONDS)

    async def subscribe(self, first: int | None) -> None:
        """Read from this offset on, or from the first message that the stream still has."""
        start = ConsumerOffsetSpecification(OffsetType.FIRST, None)
        if first is not None:
            start = ConsumerOffsetSpecification(OffsetType.OFFSET, first)
        self._first = self._stored = first
        await self._subscribe(start)

    async def next_batch(self, seconds: float) -> list[Delivery]:
        """Return what came, at the latest after so many seconds; raise `NetworkError` when it is the end."""
        if not self._buffer and not self._closed:
            self._arrived.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), seconds)
        if not self._buffer and self._closed:
            raise NetworkError(
                f"the connection to {self._address} ended", hint="It is made again; nothing is lost."
            )
        if not self._buffer and await self._consumer.hang_up():
            newest = self._consumer.newest
            raise NetworkError(
                f"what the {self._address} has after offset {self._first if newest is None else newest}"
                " does not come as it should",
                hint="It is asked for again. If that lasts it is damaged on the broker's disk: see its log.",
            )
        batch, size = [], 0
        for delivery in self._buffer[:_BATCH_MESSAGES]:
            batch.append(delivery)
            size += len(delivery.data)
            if size > _BATCH_BYTES:
                break
        del self._buffer[: len(batch)]
        self._buffered -= size
        self._room.set()
        return batch

    async def store_offset(self, offset: int | None, *, last: bool = False) -> None:
        """Tell the broker what is applied, from time to time; if it does not hear of it nothing is lost."""
        # Each time takes room in the stream: never the same twice.
        due = last or time.monotonic() - self._stored_at > _STORE_SECONDS
        if offset is None or offset == self._stored or not due:
            return
        self._stored, self._stored_at = offset, time.monotonic()
        with suppress(Exception):
            await asyncio.wait_for(
                self._consumer.store_offset(self._address.stream, SUBSCRIBER, offset), _ANSWER_SECONDS
            )

    async def _subscribe(self, start: ConsumerOffsetSpecification) -> None:
        try:
            await asyncio.wait_for(
                self._consumer.subscribe(
                    self._address.stream,
                    self._receive,
                    offset_specification=start,
                    initial_credit=_CREDIT,
                ),
                _ANSWER_SECONDS,
            )
        except Exception as error:
            if (known := explain(error, self._address)) is None:
                raise
            if isinstance(error, OSError) and (advertised := await self._find_advertised()):
                known.hint = (
                    f"The broker says that the stream is at {advertised}, so it is read there: set its"
                    " stream.advertised_host and stream.advertised_port (for TLS also those of"
                    f" stream.advertised_tls_) to what can be reached from here. {known.hint}"
                )
            raise known from error

    async def _find_advertised(self) -> str:
        """Return where the library connects to for the messages, if that is not where it was sent to."""
        with suppress(Exception):
            client = await self._consumer.default_client
            leader, replicas = await asyncio.wait_for(
                client.query_leader_and_replicas(self._address.stream), _ANSWER_SECONDS
            )
            told = {f"{broker.host}:{broker.port}" for broker in replicas or [leader]}
            return ", ".join(sorted(told - {f"{self._address.host}:{self._address.port}"}))
        return ""

    def _receive(self, data: Any, context: Any) -> Coroutine[Any, Any, None] | None:
        # Never raises: the library would log it, and go on with the next message.
        self._buffer.append(Delivery(context.offset, context.timestamp, data))
        self._buffered += len(data)
        self._arrived.set()
        return None if self._buffered < _BUFFERED_BYTES else self._wait_for_room()

    async def _wait_for_room(self) -> None:
        while self._buffered >= _BUFFERED_BYTES and not self._closed:
            self._room.clear()
            await self._room.wait()

    async def _on_close(self, _information: Any) -> None:
        self._end()

    def _end(self) -> None:
        self._closed = True
        self._arrived.set()
        self._room.set()

    async def _close(self) -> None:
        self._end()
        with suppress(Exception):  # it may be closed by the other side at the same time
            await asyncio.wait_for(self._consumer.close(), _ANSWER_SECONDS)


def find_end(address: StreamAddress) -> int | None:
    """Return the offset of a message that is now one of the stream's last; None, if it has none at all."""
    return asyncio.run(ask_for_end(address))


async def ask_for_end(address: StreamAddress) -> int | None:
    """Do what `find_end` does, while something else goes on."""
    async with StreamReader(address) as reader:
        await reader._subscribe(ConsumerOffsetSpecification(OffsetType.LAST, None))
        if await reader.next_batch(_END_SECONDS):
            newest = reader._consumer.newest
            if newest is None:  # an end that is not known would pass for a stream that is empty
                raise StepError(
                    f"the {address} has messages, and this version of rstream does not tell their offsets",
                    hint="Install the version of rstream that Trainwright asks for.",
                )
            return newest
    # Silence may also mean that the broker is slow: a stream is only empty if it has no first message either.
    async with StreamReader(address) as reader:
        await reader.subscribe(None)
        if not await reader.next_batch(_END_SECONDS):
            return None
    raise NetworkError(
        f"the {address} has messages, and does not deliver its last ones",
        hint="See whether the broker is overloaded, or the network to it.",
    )


def _trust(address: StreamAddress) -> ssl.SSLContext | None:
    if not address.tls:
        return None
    try:
        return ssl.create_default_context(cafile=address.authority)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"the authority's certificate {address.authority} can't be read: {error}",
            hint="Give a PEM file with the certificate that the broker's was signed by.",
        ) from error
