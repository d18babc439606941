"""A real RabbitMQ for tests, and who publishes to it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from rstream import AMQPMessage, Producer, exceptions
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from trainwright_devstack.certificates import Authority
from trainwright_devstack.rabbitmq import RabbitMq, find_rabbitmq
from trainwright_trainer.ingestion.address import StreamAddress

STREAM = "azaion-annotations"


def start_broker(folder: Path) -> RabbitMq:
    """Start a broker, or skip: in CI a missing one is a failure."""
    if find_rabbitmq() is None:
        message = "needs RabbitMQ (Debian: rabbitmq-server)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    broker = RabbitMq(folder, Authority(folder / "pki").create())
    broker.start()
    return broker


def address_of(broker: RabbitMq, stream: str = STREAM) -> StreamAddress:
    return StreamAddress(broker.host, broker.port, stream, broker.account.user, broker.account.password)


def publish(broker: RabbitMq, messages: Iterable[bytes], stream: str = STREAM, size: int = 200) -> None:
    """Make the stream if there is none, and publish to it."""
    asyncio.run(_publish(broker, list(messages), stream, size))


@retry(
    retry=retry_if_exception_type((exceptions.ServerError, OSError, TimeoutError)),
    stop=stop_after_delay(60),
    wait=wait_fixed(1),
    reraise=True,
)
async def _begin(producer: Producer, stream: str) -> None:
    """Make the stream; a broker that has just been started answers, but is not ready for it yet."""
    await producer.create_stream(stream, exists_ok=True)


async def _publish(broker: RabbitMq, messages: Sequence[bytes], stream: str, size: int) -> None:
    account = broker.account
    async with Producer(
        broker.host, broker.port, username=account.user, password=account.password
    ) as producer:
        await _begin(producer, stream)
        for start in range(0, len(messages), size):
            batch = [AMQPMessage(body=body) for body in messages[start : start + size]]
            await producer.send_batch(stream, batch)
