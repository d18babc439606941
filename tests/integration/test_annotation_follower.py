"""The follower as its Deployment runs it: a process that is probed, loses its broker, and is asked to end."""

from __future__ import annotations

import asyncio
import http.client
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from annotation_broker import control, publish
from annotation_stream import bulk, draw, single
from rstream import Consumer

from trainwright_devstack.processes import free_port
from trainwright_devstack.rabbitmq import RabbitMq
from trainwright_trainer.ingestion.broker import SUBSCRIBER
from trainwright_trainer.ingestion.events import Status

# The library leaves sockets to the collector when a connection is refused or lost.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("collected"),
]

CREATED, EDITED, VALIDATED, DELETED = Status
STREAM = "followed"


class Probe:
    """Asks the follower how it is."""

    def __init__(self, port: int) -> None:
        self.port = port

    def status(self, path: str) -> int:
        return self._ask(path)[0]

    def metric(self, name: str) -> float | None:
        found = re.search(
            rf"^trainwright_annotations_{re.escape(name)} (\S+)$", self._ask("/metrics")[1], re.M
        )
        return None if found is None else float(found[1])

    def _ask(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except ConnectionRefusedError:
            return 0, ""
        finally:
            connection.close()


@contextmanager
def following(broker: RabbitMq, root: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    environment = {
        **os.environ,
        "RABBITMQ_HOST": broker.host,
        "RABBITMQ_PORT": str(broker.port),
        "RABBITMQ_QUEUE_NAME": STREAM,
        "RABBITMQ_USER": broker.account.user,
        "RABBITMQ_PASSWORD": broker.account.password,
        "AZAION_ROOT_DIR": str(root),
    }
    program = [sys.executable, "-m", "trainwright_trainer", "annotations", "follow"]
    with subprocess.Popen(
        [*program, "--listen", f"127.0.0.1:{port}"], env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def stored_offset(broker: RabbitMq) -> int:
    async def ask() -> int:
        account = broker.account
        async with Consumer(
            broker.host, broker.port, username=account.user, password=account.password
        ) as consumer:
            return await consumer.query_offset(STREAM, SUBSCRIBER)

    return asyncio.run(ask())


def test_a_follower_tells_how_it_is_while_its_broker_comes_and_goes_and_ends_when_asked_to(
    broker: RabbitMq, tmp_path: Path
) -> None:
    publish(broker, [single(f"frame-{n}", CREATED, n, image=draw(n)) for n in range(20)], STREAM)
    probe = Probe(free_port())
    with following(broker, tmp_path, probe.port) as process:
        wait_for(lambda: probe.metric("offset") == 19, "it reads what is there")
        assert probe.status("/readyz") == 200
        assert probe.metric('messages_total{result="created"}') == 20
        wait_for(lambda: probe.metric("lag_seconds") == 0, "it waits for more")
        assert 0 < (probe.metric("last_message_age_seconds") or 0) < 60

        second = subprocess.run(
            [sys.executable, "-m", "trainwright_trainer", "annotations", "replay-dead-letters"],
            env={
                **os.environ,
                "RABBITMQ_HOST": broker.host,
                "RABBITMQ_USER": "any",
                "RABBITMQ_PASSWORD": "any",
                "AZAION_ROOT_DIR": str(tmp_path),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert second.returncode != 0
        assert "in use by another process" in second.stderr

        stopped = time.monotonic()
        control(broker, "stop_app")
        wait_for(lambda: probe.status("/readyz") == 503, "it is not ready without its broker")
        assert probe.status("/healthz") == 200
        assert probe.metric("connected") == 0
        lag = probe.metric("lag_seconds") or 0
        assert 0 < lag < time.monotonic() - stopped + 15
        control(broker, "start_app")
        wait_for(lambda: probe.status("/readyz") == 200, "it connects again")
        publish(broker, [bulk([f"frame-{n}" for n in range(20)], VALIDATED, 50), b"\xc1 nonsense"], STREAM)
        wait_for(lambda: probe.metric("dead_letters") == 1, "it goes on")
        wait_for(lambda: probe.metric("lag_seconds") == 0, "it waits for more again")
        assert len(list((tmp_path / "data/images").iterdir())) == 20

        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=20)
        assert process.returncode == 0, log
    offset = int((tmp_path / "offset.yaml").read_text().removeprefix("offset: "))
    assert stored_offset(broker) == offset
    assert f"stopped at offset {offset}" in log
    assert log.count("trying again") >= 1
    for secret in (broker.account.password, "someone@example.com", "PNG"):
        assert secret not in log
    assert "Traceback" not in log
