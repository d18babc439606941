"""A real RabbitMQ for tests, and who publishes to it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

from prerequisites import require

from trainwright_devstack.annotating import publish_annotations
from trainwright_devstack.annotations import AnnotationMessage
from trainwright_devstack.certificates import Authority
from trainwright_devstack.rabbitmq import RabbitMq, find_rabbitmq
from trainwright_trainer.ingestion.address import StreamAddress

STREAM = "azaion-annotations"


def start_broker(folder: Path, host: str = "127.0.0.1") -> RabbitMq:
    """Start a broker, or skip: in CI a missing one is a failure."""
    require(find_rabbitmq(), "needs RabbitMQ (Debian: rabbitmq-server)")
    broker = RabbitMq(folder, Authority(folder / "pki").create(), host)
    broker.start()
    return broker


def address_of(broker: RabbitMq, stream: str = STREAM) -> StreamAddress:
    return StreamAddress(broker.host, broker.port, stream, broker.account.user, broker.account.password)


def publish(broker: RabbitMq, bodies: Iterable[bytes], stream: str = STREAM, *, create: bool = True) -> None:
    """Make the stream if there is none, and publish to it."""
    publish_annotations(
        address_of(broker, stream), (AnnotationMessage(body, {}) for body in bodies), create=create
    )


def control(broker: RabbitMq, *arguments: str) -> None:
    """Tell the broker something by `rabbitmqctl`."""
    programs = find_rabbitmq()
    assert programs is not None
    subprocess.run(
        [str(programs / "rabbitmqctl"), *arguments], env=broker.environment, check=True, capture_output=True
    )
