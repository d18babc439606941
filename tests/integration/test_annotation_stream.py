"""A real RabbitMQ stream into data trees: caught up with, followed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from threading import Event

import pytest
from annotation_broker import address_of, publish, start_broker
from annotation_stream import bulk, draw, single

from trainwright.errors import ConfigurationError
from trainwright_devstack.annotating import publish_annotations
from trainwright_devstack.annotations import AnnotationMessage
from trainwright_devstack.rabbitmq import RabbitMq
from trainwright_trainer.ingestion.broker import find_end
from trainwright_trainer.ingestion.events import Status
from trainwright_trainer.ingestion.following import Follower, Moment
from trainwright_trainer.ingestion.ingestor import Ingestor

# The library leaves sockets to the collector when a connection is refused or lost.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("collected"),
]

CREATED, EDITED, VALIDATED, DELETED = Status


def test_a_stream_is_caught_up_with_and_from_there_on_followed(broker: RabbitMq, tmp_path: Path) -> None:
    stream = "followed"
    publish(broker, [single(f"frame-{n}", CREATED, n, image=draw(n)) for n in range(50)], stream)
    address = address_of(broker, stream)
    with Ingestor(tmp_path, sync=False) as ingestor:
        assert Follower(address, ingestor, Event()).catch_up(find_end(address)) == 49
        assert Follower(address, ingestor, Event()).catch_up(find_end(address)) == 49  # nothing is new
    assert len(list((tmp_path / "data-seed/images").iterdir())) == 50

    stop, moved = Event(), Event()

    def tell(moment: Moment) -> None:
        if moment.offset == 51:
            moved.set()

    with Ingestor(tmp_path, sync=False) as ingestor:
        follower = Follower(address, ingestor, stop, tell)
        thread = threading.Thread(target=follower.follow)
        thread.start()
        publish(broker, [bulk(["frame-1", "frame-2"], VALIDATED, 60)], stream)
        publish(broker, [bulk(["frame-3"], DELETED, 61)], stream)
        assert moved.wait(30)
        stop.set()
        thread.join(30)
        assert not thread.is_alive()
    assert sorted(p.name for p in (tmp_path / "data/images").iterdir()) == ["frame-1.png", "frame-2.png"]
    assert [p.name for p in (tmp_path / "data_deleted/images").iterdir()] == ["frame-3.png"]


def test_the_command_catches_up_and_says_what_it_did(broker: RabbitMq, tmp_path: Path) -> None:
    stream = "commanded"
    publish(broker, [single("frame-1", CREATED, 1, image=draw(1)), b"\xc1 nonsense"], stream)
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "RABBITMQ_USER").write_text(broker.account.user)
    (secret / "RABBITMQ_PASSWORD").write_text(broker.account.password)
    root = tmp_path / "root"
    root.mkdir()
    environment = {
        **os.environ,
        "RABBITMQ_HOST": broker.host,
        "RABBITMQ_PORT": str(broker.port),
        "RABBITMQ_QUEUE_NAME": stream,
        "AZAION_ROOT_DIR": str(root),
    }

    def annotations(command: str) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-m", "trainwright_trainer", "annotations", command]
        return subprocess.run(
            [*program, "--credentials", str(secret)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        )

    told = annotations("catch-up")
    assert told.stdout == "at offset 1: 1 created, 1 poison; 1 annotations changed\n"
    assert broker.account.password not in told.stderr
    assert "1 encoding: it is not msgpack" in annotations("replay-dead-letters").stdout
    assert (root / "data-seed/images/frame-1.png").is_file()


def test_a_broker_that_is_killed_and_comes_back_loses_nothing(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    broker = start_broker(tmp_path_factory.mktemp("rabbitmq"))
    stop, told = Event(), []

    def tell(moment: Moment) -> None:
        told.append((moment.connected, moment.offset))

    publish(broker, [single("before", CREATED, 1, image=draw(1))])
    with Ingestor(tmp_path, sync=False) as ingestor:
        thread = threading.Thread(target=Follower(address_of(broker), ingestor, stop, tell).follow)
        thread.start()
        try:
            wait_for(lambda: (True, 0) in told)
            time.sleep(6)  # the broker writes down every five seconds which streams it has
            broker.kill()
            wait_for(lambda: (False, 0) in told)
            broker.start()
            publish(broker, [single("after", CREATED, 2, image=draw(2))])
            # The offset that was stored has an offset of its own in the stream.
            wait_for(lambda: (told[-1][1] or 0) >= 1, seconds=90)
        finally:
            stop.set()
            thread.join(60)
            broker.stop()
    assert {path.stem for path in (tmp_path / "data-seed/images").iterdir()} == {"before", "after"}


def wait_for(condition: object, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_who_publishes_makes_no_stream_unless_told_to(broker: RabbitMq) -> None:
    address, message = address_of(broker, "not-made-yet"), AnnotationMessage(b"\xc1 nonsense", {})
    with pytest.raises(ConfigurationError, match="there is no stream 'not-made-yet'"):
        publish_annotations(address, [message])
    told: list[int] = []
    assert publish_annotations(address, [message] * 3, create=True, tell=told.append) == 3
    assert told[-1] == 3
    assert publish_annotations(address, [message] * 2, create=True) == 2  # it is there: that is fine, too
    assert find_end(address) == 4


def test_an_empty_stream_has_no_end_and_is_caught_up_with(broker: RabbitMq, tmp_path: Path) -> None:
    publish(broker, [], "empty")
    address = address_of(broker, "empty")
    with Ingestor(tmp_path, sync=False) as ingestor:
        assert Follower(address, ingestor, Event()).catch_up(find_end(address)) is None
