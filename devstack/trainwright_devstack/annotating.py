"""Publishes annotations on a RabbitMQ stream, as the platform does: confirmed, and in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator

from rstream import AMQPMessage, ConfirmationStatus, Producer
from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_fixed

from trainwright.errors import NetworkError
from trainwright_devstack.annotations import AnnotationMessage
from trainwright_trainer.ingestion.address import StreamAddress, explain

_BATCH_MESSAGES = 200
_BATCH_BYTES = 512 * 1024  # a batch is a frame, and the broker takes 1 MiB
_UNCONFIRMED = 10 * _BATCH_MESSAGES
_ANSWER_SECONDS = 60.0


def publish_annotations(
    address: StreamAddress,
    messages: Iterable[AnnotationMessage],
    *,
    create: bool = False,
    tell: Callable[[int], None] = lambda _: None,
) -> int:
    """Publish messages and return how many; all of them are confirmed by then.

    The stream has to be there: the platform makes it, and with `create` we do. `tell` is told of how many are
    confirmed. A lost connection is a `NetworkError`: what was not confirmed may or may not be in the stream.
    """
    try:
        return asyncio.run(_Publisher(address, tell).publish(messages, create=create))
    except Exception as error:
        if (known := explain(error, address)) is None:
            raise
        raise known from error


class _Publisher:
    def __init__(self, address: StreamAddress, tell: Callable[[int], None]) -> None:
        self._address, self._tell = address, tell
        self._changed = asyncio.Condition()
        self._sent = self._confirmed = 0
        self._problem = ""

    async def publish(self, messages: Iterable[AnnotationMessage], *, create: bool) -> int:
        address = self._address
        async with Producer(
            address.host,
            address.port,
            username=address.user,
            password=address.password,
            connection_name="trainwright-annotate",
            on_close_handler=self._on_close,
        ) as producer:
            if create:
                await self._create(producer)
            for batch in _batches(messages):
                await asyncio.wait_for(
                    producer.send_batch(address.stream, batch, on_publish_confirm=self._on_confirm),
                    _ANSWER_SECONDS,
                )
                self._sent += len(batch)
                await self._wait(_UNCONFIRMED)
            await self._wait(0)
        return self._confirmed

    async def _create(self, producer: Producer) -> None:
        """Make the stream; a broker that has just been started answers, but is not ready for it yet."""
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(explain(error, self._address), NetworkError)),
            stop=stop_after_delay(_ANSWER_SECONDS),
            wait=wait_fixed(1),
            reraise=True,
        ):
            with attempt:
                await producer.create_stream(self._address.stream, exists_ok=True)

    async def _wait(self, unconfirmed: int) -> None:
        """Wait until at most so many are not confirmed."""
        async with self._changed:
            await asyncio.wait_for(
                self._changed.wait_for(lambda: self._problem or self._sent - self._confirmed <= unconfirmed),
                _ANSWER_SECONDS,
            )
        if self._problem:
            raise NetworkError(
                f"the {self._address} took {self._confirmed} messages and no more: {self._problem}",
                hint="Publish again when the broker is well: messages that come twice change nothing.",
            )

    async def _on_confirm(self, status: ConfirmationStatus) -> None:
        async with self._changed:
            if status.is_confirmed:
                self._confirmed += 1
            else:
                self._problem = f"it refused one with code {status.response_code}"
            self._changed.notify_all()
        if self._confirmed % _BATCH_MESSAGES == 0 or self._confirmed == self._sent:
            self._tell(self._confirmed)

    async def _on_close(self, _information: object) -> None:
        async with self._changed:
            self._problem = "the connection ended"
            self._changed.notify_all()


def _batches(messages: Iterable[AnnotationMessage]) -> Iterator[list[AMQPMessage]]:
    batch: list[AMQPMessage] = []
    size = 0
    for message in messages:
        if batch and (len(batch) == _BATCH_MESSAGES or size + len(message.body) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(AMQPMessage(body=message.body, application_properties=dict(message.properties)))
        size += len(message.body)
    if batch:
        yield batch
