"""A hundred thousand annotations, the follower killed ten times, the broker restarted: the same trees."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from annotation_broker import STREAM, address_of, start_broker

from trainwright_devstack.annotating import publish_annotations
from trainwright_devstack.annotations import AnnotationMessage, generate_annotations
from trainwright_devstack.rabbitmq import RabbitMq
from trainwright_trainer.ingestion.broker import find_end
from trainwright_trainer.ingestion.dead_letters import DeadLetter, DeadLetters
from trainwright_trainer.ingestion.ingestor import FOLDER, OFFSET_FILE

# The library leaves sockets to the collector when a connection is lost.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

MESSAGES, POISON, SEED = 100_000, 0.001, 2026
IMAGE_SIZE, GRAIN = 64, 24  # the follower holds 32 MiB, which are to be a small part of the stream
KILLS, LONGEST_WAIT = 10, 0.3  # seconds from seeing how far it is to the kill: somewhere in a batch
BROKER_ENDS = {3: RabbitMq.kill, 6: RabbitMq.stop}  # while the follower runs that is killed as the n-th
PATIENCE = 120.0
TREES = ("data", "data-seed", "data_deleted")


@dataclass
class Story:
    """What was published, what the follower left that was interrupted, and what the one that was not."""

    poison: Counter[tuple[bytes, str]]
    interrupted: Path
    uninterrupted: Path
    kills: list[int]  # the offset that was done at each


class Consumer:
    """The program, on one root; its log is beside it."""

    def __init__(self, broker: RabbitMq, root: Path) -> None:
        self.root, self.log = root, root.with_suffix(".log")
        root.mkdir()
        secret = root.with_suffix(".secret")
        secret.mkdir()
        (secret / "RABBITMQ_USER").write_text(broker.account.user)
        (secret / "RABBITMQ_PASSWORD").write_text(broker.account.password)
        self._options = ["--no-sync", "--credentials", str(secret)]
        self._environment = {
            **os.environ,
            "RABBITMQ_HOST": broker.host,
            "RABBITMQ_PORT": str(broker.port),
            "RABBITMQ_QUEUE_NAME": STREAM,
            "AZAION_ROOT_DIR": str(root),
        }

    def start(self, command: str) -> subprocess.Popen[bytes]:
        program = [sys.executable, "-m", "trainwright_trainer", "annotations", command, *self._options]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                program, env=self._environment, stdout=log, stderr=log, cwd=self.root.parent
            )

    @property
    def offset(self) -> int:
        """How far it is, as it tells people: -1 before anything is done."""
        try:
            return int(yaml.safe_load((self.root / OFFSET_FILE).read_text())["offset"])
        except FileNotFoundError:
            return -1

    @property
    def connections(self) -> int:
        """How often it began to read."""
        return self.log.read_text().count("reading the stream")

    def wait_until(self, program: subprocess.Popen[bytes], offset: int) -> None:
        self.wait_for(program, lambda: self.offset >= offset)

    def wait_for(self, program: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert program.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < deadline, f"it stays at {self.offset}: {self.log.read_text()[-3000:]}"
            time.sleep(0.02)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder, poison = tmp_path_factory.mktemp("ingestion"), Counter[tuple[bytes, str]]()
    broker = start_broker(folder / "rabbitmq")
    try:
        publish_annotations(address_of(broker), [], create=True)
        with ThreadPoolExecutor(1) as publisher:
            published = publisher.submit(publish, broker, poison)
            consumer = Consumer(broker, folder / "interrupted")
            kills = follow_with_interruptions(consumer, broker, published)
        other = Consumer(broker, folder / "uninterrupted")
        assert other.start("catch-up").wait(PATIENCE) == 0, other.log.read_text()[-3000:]
        yield Story(poison, consumer.root, other.root, kills)
    finally:
        broker.stop()


def publish(broker: RabbitMq, poison: Counter[tuple[bytes, str]]) -> None:
    """Publish the stream, and count the poison that is in it."""

    def counted() -> Iterator[AnnotationMessage]:
        for message in generate_annotations(
            MESSAGES, seed=SEED, image_size=IMAGE_SIZE, grain=GRAIN, poison=POISON
        ):
            if message.poison:
                poison[message.body, message.poison] += 1
            yield message

    publish_annotations(address_of(broker), counted())


def follow_with_interruptions(consumer: Consumer, broker: RabbitMq, published: Future[None]) -> list[int]:
    """Follow to the stream's end; return how far it was at each kill.

    The broker goes away while the follower runs: once without a word, once in order.
    """
    chance, kills, done = random.Random(SEED), [], -1
    for number in range(1, KILLS + 1):
        program = consumer.start("follow")
        consumer.wait_until(program, done + (MESSAGES - done) // (KILLS + 2 - number))
        if number in BROKER_ENDS:
            restart(broker, BROKER_ENDS[number], consumer, program)
        time.sleep(chance.uniform(0, LONGEST_WAIT))
        program.kill()
        program.wait()
        done = consumer.offset
        kills.append(done)
        if number + 1 == min(BROKER_ENDS):
            published.result()
    end = find_end(address_of(broker))
    assert end is not None
    connections = consumer.connections
    program = consumer.start("follow")
    consumer.wait_for(
        program, lambda: consumer.connections > connections
    )  # it may have been at the end before
    consumer.wait_until(program, end)
    program.send_signal(signal.SIGTERM)
    assert program.wait(PATIENCE) == 0, consumer.log.read_text()[-3000:]
    return kills


def restart(
    broker: RabbitMq, end: Callable[[RabbitMq], None], consumer: Consumer, program: subprocess.Popen[bytes]
) -> None:
    """End and start the broker; the follower applies what it has, and connects again."""
    end(broker)
    connections = consumer.connections
    broker.start()
    consumer.wait_for(program, lambda: consumer.connections > connections)


def digests_of(root: Path) -> Mapping[str, bytes]:
    """Return every file of the trees, hidden ones too, by the digest of its content."""
    found = {}
    for tree in TREES:
        for folder in ("images", "labels"):
            for entry in os.scandir(root / tree / folder):
                content = Path(entry.path).read_bytes()
                found[f"{tree}/{folder}/{entry.name}"] = hashlib.blake2b(content, digest_size=16).digest()
    return found


def test_the_kills_are_spread_over_the_stream(story: Story) -> None:
    assert len(story.kills) == KILLS
    assert story.kills == sorted(set(story.kills))
    assert story.kills[0] < MESSAGES // 4
    assert story.kills[-1] > MESSAGES * 3 // 4


def test_the_trees_are_those_of_an_uninterrupted_run(story: Story) -> None:
    interrupted, uninterrupted = digests_of(story.interrupted), digests_of(story.uninterrupted)
    assert len(uninterrupted) > MESSAGES  # an image and a label for each of the two thirds that bring one
    differ = {
        path
        for path in interrupted.keys() | uninterrupted.keys()
        if interrupted.get(path) != uninterrupted.get(path)
    }
    assert not differ, sorted(differ)[:10]


def test_every_poison_message_is_a_dead_letter_with_its_reason(story: Story) -> None:
    assert sum(story.poison.values()) > MESSAGES * POISON / 2
    for root in (story.interrupted, story.uninterrupted):
        found: Counter[tuple[bytes, str]] = Counter()
        for letter in DeadLetters(root / FOLDER / "dead-letters"):
            assert isinstance(letter, DeadLetter)
            assert letter.reason
            found[letter.body.read_bytes(), letter.rule] += 1
        assert found == story.poison
