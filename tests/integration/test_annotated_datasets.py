"""The first part of a run's dataset: its source is brought up to where the annotation stream ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from annotation_broker import STREAM, address_of, publish
from annotation_stream import VALIDATOR, detection, draw, single
from annotation_trees import folder_plan
from rstream import AMQPMessage, CompressionType, Producer

from trainwright.artifacts import Dataset
from trainwright.contract import FolderSource, RunPlan
from trainwright.errors import ConfigurationError, DataError, NetworkError, PreemptedError, StepError
from trainwright_devstack.rabbitmq import RabbitMq
from trainwright_trainer.annotations.manifest import read_header
from trainwright_trainer.ingestion.broker import find_end
from trainwright_trainer.ingestion.events import Status
from trainwright_trainer.pipeline import execute
from trainwright_trainer.places import Places

# The library leaves sockets to the collector when a connection is refused or lost.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("collected"),
]
FRAMES = 20


@pytest.fixture(scope="module")
def broker(rabbitmq: RabbitMq) -> RabbitMq:
    publish(rabbitmq, [frame(number) for number in range(FRAMES)])
    return rabbitmq


@pytest.fixture
def places(broker: RabbitMq, tmp_path: Path) -> Places:
    """An empty source, and the account as a Secret is mounted."""
    secret = tmp_path / "secret"
    for folder in (tmp_path / "source", secret):
        folder.mkdir()
    (secret / "RABBITMQ_USER").write_text(broker.account.user)
    (secret / "RABBITMQ_PASSWORD").write_text(broker.account.password)
    authority = broker.folder.parent / "pki/ca.crt"
    (secret / "ca.crt").write_bytes(
        (authority if authority.exists() else broker.folder / "pki/ca.crt").read_bytes()
    )
    return Places(tmp_path / "work", data=tmp_path / "source", stream_credentials=secret)


def frame(number: int) -> bytes:
    found = [detection(number % 2)]
    name = f"belt{number:03d}_000"
    return single(name, Status.CREATED, number, role=VALIDATOR, image=draw(number), detections=found)


def plan_for(broker: RabbitMq, **stream: Any) -> RunPlan:
    told = {"host": broker.host, "port": broker.tls_port, "stream": STREAM, **stream}
    return folder_plan(annotationStream=told, classes={"inline": ["bolt", "nut"]})


@contextmanager
def consumer(broker: RabbitMq, places: Places, stream: str = STREAM) -> Iterator[subprocess.Popen[bytes]]:
    """A consumer that follows the stream into the source already, as the chart's Deployment does."""
    environment = {
        **os.environ,
        "RABBITMQ_HOST": broker.host,
        "RABBITMQ_PORT": str(broker.port),
        "RABBITMQ_QUEUE_NAME": stream,
        "AZAION_ROOT_DIR": str(places.data),
    }
    program = [sys.executable, "-m", "trainwright_trainer", "annotations", "follow"]
    process = subprocess.Popen([*program, "--credentials", str(places.stream_credentials)], env=environment)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        assert process.wait(30) == 0


@contextmanager
def stopped_consumer(
    broker: RabbitMq, places: Places, stream: str = STREAM, begun: str = "offset.yaml"
) -> Iterator[subprocess.Popen[bytes]]:
    """The same, which does nothing more once it has begun."""
    assert places.data is not None
    with consumer(broker, places, stream) as process:
        wait_for((places.data / begun).is_file)
        process.send_signal(signal.SIGSTOP)
        yield process


@contextmanager
def waiting_run(
    broker: RabbitMq, places: Places, stop: Event | None = None, *, seconds: float = 60
) -> Iterator[list[object]]:
    """A run that can't go on yet, and ends so soon after it can; what it ended with is in the list then."""
    ended: list[object] = []

    def carry_out() -> None:
        try:
            ended.append(execute(plan_for(broker), places, stop=stop).dataset)
        except StepError as error:
            ended.append(error)

    run = Thread(target=carry_out)
    run.start()
    run.join(3)
    assert run.is_alive()
    yield ended
    run.join(seconds)
    assert not run.is_alive()


def test_a_dataset_has_what_the_stream_tells_and_names_the_offset(broker: RabbitMq, places: Places) -> None:
    end = find_end(address_of(broker))
    dataset = execute(plan_for(broker), places).dataset
    assert sum(dataset.report.images.model_dump().values()) == FRAMES
    assert dataset.report.stream_offset == end
    assert read_header(places.workspace / dataset.manifest).stream_offset == end
    header = json.loads((places.workspace / dataset.manifest).read_text().splitlines()[0])
    assert header["streamOffset"] == end


def test_a_source_that_somebody_follows_the_stream_into_is_waited_for(
    broker: RabbitMq, places: Places
) -> None:
    assert places.data is not None
    with stopped_consumer(broker, places) as process:
        publish(broker, [frame(FRAMES)])
        end = find_end(address_of(broker))
        with waiting_run(broker, places) as ended:
            process.send_signal(signal.SIGCONT)
    (dataset,) = ended
    assert isinstance(dataset, Dataset)
    assert end is not None
    assert (dataset.report.stream_offset or 0) >= end
    assert (places.data / f"data/images/belt{FRAMES:03d}_000.png").is_file()


def test_a_run_that_waits_for_another_consumer_ends_when_it_is_asked_to(
    broker: RabbitMq, places: Places
) -> None:
    assert places.data is not None
    with stopped_consumer(broker, places):
        publish(broker, [frame(FRAMES + 1)])
        stop = Event()
        with waiting_run(broker, places, stop, seconds=10) as ended:
            stop.set()
    assert [type(error) for error in ended] == [PreemptedError]


def test_a_waiting_run_refuses_a_consumer_of_another_stream_or_other_trees(
    broker: RabbitMq, places: Places
) -> None:
    assert places.data is not None
    publish(broker, [frame(0)], "another")
    with consumer(broker, places, stream="another"):
        wait_for((places.data / "offset.yaml").is_file)
        with pytest.raises(ConfigurationError, match="reads stream 'another' into data, data-seed") as raised:
            execute(plan_for(broker), places)
    assert "dataset.annotationStream" in raised.value.hint


def test_an_offset_that_the_stream_never_had_is_not_believed(broker: RabbitMq, places: Places) -> None:
    assert places.data is not None
    with stopped_consumer(broker, places):
        (places.data / "offset.yaml").write_text("offset: 1000000\n")
        with pytest.raises(DataError, match="are at offset 1000000, and the stream"):
            execute(plan_for(broker), places)


def test_a_stream_that_is_empty_can_not_have_filled_a_source(broker: RabbitMq, places: Places) -> None:
    assert places.data is not None
    publish(broker, [], "empty")
    with stopped_consumer(broker, places, stream="empty", begun=".trainwright/consumer.json"):
        (places.data / "offset.yaml").write_text("offset: 7\n")
        with pytest.raises(DataError, match="are at offset 7, and the stream"):
            execute(plan_for(broker, stream="empty"), places)


def test_a_consumer_that_stands_still_is_not_waited_for_for_ever(
    broker: RabbitMq, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert places.data is not None
    monkeypatch.setattr("trainwright_trainer.ingestion.catching_up._STANDSTILL_SECONDS", 3.0)
    with consumer(broker, places) as process:
        wait_for((places.data / "offset.yaml").is_file)
        process.send_signal(signal.SIGSTOP)
        publish(broker, [frame(FRAMES + 2)])
        with pytest.raises(NetworkError, match="stays at offset") as raised:
            execute(plan_for(broker), places)
    assert "its log" in raised.value.hint


def test_a_new_claim_needs_no_folder_for_the_path(broker: RabbitMq, places: Places) -> None:
    plan = plan_for(broker)
    folder = plan.dataset.source.model_copy(update={"folder": FolderSource(path="belts/new")})
    dataset = plan.dataset.model_copy(update={"source": folder})
    made = execute(plan.model_copy(update={"dataset": dataset}), places).dataset
    assert sum(made.report.images.model_dump().values()) >= FRAMES
    assert places.data is not None
    assert (places.data / "belts/new/data/images").is_dir()


def test_the_end_is_that_of_a_batch_however_many_messages_it_has(broker: RabbitMq) -> None:
    asyncio.run(publish_as_one(broker, "batched", 3000))
    assert find_end(address_of(broker, "batched")) == 2999


async def publish_as_one(broker: RabbitMq, stream: str, messages: int) -> None:
    account = broker.account
    async with Producer(
        broker.host, broker.port, username=account.user, password=account.password
    ) as producer:
        await producer.create_stream(stream)
        batch = [AMQPMessage(body=b"x") for _ in range(messages)]
        await producer.send_sub_entry(stream, batch, CompressionType.Gzip)
        await asyncio.sleep(1)


def test_without_credentials_the_field_to_set_is_named(broker: RabbitMq, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with pytest.raises(ConfigurationError, match="credentials for the annotation stream") as raised:
        execute(plan_for(broker), Places(tmp_path / "work", data=tmp_path / "source"))
    assert "dataset.annotationStream.credentials" in raised.value.hint


def wait_for(condition: Any, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
