"""Streams that are not as they were left: made anew, cut short, silent or damaged."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from annotation_broker import address_of, publish
from annotation_program import FIRST, annotations, images
from annotation_stream import bulk, draw, single
from rstream import AMQPMessage, CompressionType, Producer
from rstream.compression import GzipCompressionCodec, StreamCompressionCodecs
from rstream.schema import Deliver

from trainwright.contract import ExitCode
from trainwright_devstack.rabbitmq import RabbitMq
from trainwright_trainer import annotation_commands
from trainwright_trainer.ingestion import broker as ingestion_broker
from trainwright_trainer.ingestion import chunks, continuity, following
from trainwright_trainer.ingestion.broker import StreamReader, find_end
from trainwright_trainer.ingestion.events import Status

# The library leaves sockets to the collector when a connection is refused or lost.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("collected"),
]

CREATED, EDITED, VALIDATED, DELETED = Status


@pytest.fixture(scope="module")
def broker(rabbitmq: RabbitMq) -> RabbitMq:
    publish(rabbitmq, FIRST, "annotations")
    return rabbitmq


def administer(broker: RabbitMq, act: Callable[[Producer], Awaitable[None]]) -> None:
    async def run() -> None:
        account = broker.account
        async with Producer(
            broker.host, broker.port, username=account.user, password=account.password
        ) as producer:
            await act(producer)

    asyncio.run(run())


def delete(broker: RabbitMq, stream: str) -> None:
    administer(broker, lambda producer: producer.delete_stream(stream))


@pytest.mark.parametrize(("now", "command"), [(0, "catch-up"), (5, "follow"), (30, "catch-up")])
def test_a_stream_that_was_made_anew_is_told_of_and_read_again_when_asked_to(
    broker: RabbitMq, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: int, command: str
) -> None:
    monkeypatch.setattr(continuity, "_SILENCE_SECONDS", 1.0)
    stream = f"anew-{now}-{command}"
    publish(broker, FIRST, stream)
    assert annotations(broker, tmp_path, "catch-up", stream=stream).exit_code == 0
    delete(broker, stream)
    later = [single(f"later-{n}", CREATED, n, image=draw(100 + n)) for n in range(now)]
    publish(broker, later, stream)
    refused = annotations(broker, tmp_path, command, stream=stream)
    assert refused.exit_code == ExitCode.DATA, refused.output
    assert "is not the one that was read up to offset 19" in refused.stderr
    assert "annotations rewind" in refused.stderr
    assert len(images(tmp_path)) == len(FIRST)
    assert annotations(broker, tmp_path, "rewind", stream=stream).exit_code == 0
    publish(broker, [bulk(["frame-0"], DELETED, 50)], stream)
    assert annotations(broker, tmp_path, "catch-up", stream=stream).exit_code == 0
    assert len(images(tmp_path)) == len(FIRST) + now
    assert (tmp_path / "data_deleted/images/frame-0.png").exists()


def test_an_offset_beyond_the_end_is_told_of(
    broker: RabbitMq, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(continuity, "_SILENCE_SECONDS", 1.0)
    (tmp_path / "offset.yaml").write_text("offset: 5000\n")
    refused = annotations(broker, tmp_path, "catch-up")
    assert refused.exit_code == ExitCode.DATA
    assert "up to offset 4999: it ends before it" in refused.stderr


def test_a_broker_that_is_silent_for_a_while_is_asked_again(
    broker: RabbitMq, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert annotations(broker, tmp_path, "catch-up").exit_code == 0
    monkeypatch.setattr(continuity, "_SILENCE_SECONDS", 1.0)
    subscribe, credit = StreamReader.subscribe, iter([0])

    async def subscribe_in_silence(self: StreamReader, first: int | None) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(ingestion_broker, "_CREDIT", next(credit, 2))
            await subscribe(self, first)

    monkeypatch.setattr(StreamReader, "subscribe", subscribe_in_silence)
    ended = annotations(broker, tmp_path, "catch-up")
    assert (ended.exit_code, ended.stderr) == (0, "")
    assert "does not deliver what it has at offset 19; trying again" in caplog.text


@pytest.mark.parametrize("times", [1, 100])
def test_what_comes_damaged_is_asked_for_again_and_given_up_in_a_run(
    broker: RabbitMq,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    times: int,
) -> None:
    stream, refusals = f"damaged-{times}", iter([True] * times)
    publish(broker, FIRST[:10], stream)
    assert annotations(broker, tmp_path, "catch-up", stream=stream).exit_code == 0
    publish(broker, FIRST[10:], stream)
    end, check = find_end(address_of(broker, stream)), Deliver.__post_init__

    def damage(self: Deliver) -> None:
        check(self)
        if self.chunk_first_offset >= 10 and next(refusals, False):
            raise ValueError("Invalid checksum")

    monkeypatch.setattr(Deliver, "__post_init__", damage)
    monkeypatch.setattr(annotation_commands, "find_end", lambda _: end)
    monkeypatch.setattr(following, "_MOST_FAILURES", 2)
    ended = annotations(broker, tmp_path, "catch-up", stream=stream)
    assert "has after offset 9 does not come as it should; trying again" in caplog.text
    if times == 1:
        assert (ended.exit_code, len(images(tmp_path))) == (0, len(FIRST))
    else:
        assert ended.exit_code == ExitCode.NETWORK
        assert "has after offset 9 does not come as it should" in ended.stderr


def test_a_run_does_not_wait_for_what_is_never_delivered(
    broker: RabbitMq, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingestion_broker, "_CREDIT", 0)
    monkeypatch.setattr(annotation_commands, "find_end", lambda _: 19)
    monkeypatch.setattr(following, "_MOST_FAILURES", 2)
    monkeypatch.setattr(following, "_STALL_SECONDS", 0.5)
    ended = annotations(broker, tmp_path, "catch-up")
    assert ended.exit_code == ExitCode.NETWORK
    assert "has messages up to 19, and delivers none after offset None" in ended.stderr


def test_a_library_that_changed_makes_no_stream_look_empty(
    broker: RabbitMq, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(chunks.ChunkConsumer, "_on_deliver")
    refused = annotations(broker, tmp_path, "catch-up")
    assert refused.exit_code == ExitCode.INTERNAL
    assert "this version of rstream does not tell their offsets" in refused.stderr


def test_messages_that_the_stream_dropped_before_they_were_read_are_told_of(
    broker: RabbitMq, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stream, limits = "short", {"max-length-bytes": 20_000, "stream-max-segment-size-bytes": 5_000}
    administer(broker, lambda producer: producer.create_stream(stream, limits))
    publish(broker, FIRST[:5], stream, create=False)
    assert annotations(broker, tmp_path, "catch-up", stream=stream).exit_code == 0
    for _ in range(10):
        publish(broker, FIRST, stream, create=False)
    publish(broker, [single("last", CREATED, 70, image=draw(70))], stream, create=False)
    ended = annotations(broker, tmp_path, "catch-up", stream=stream)
    assert ended.exit_code == 0
    assert "dropped by the stream before they were read" in ended.stdout
    assert "no longer has offsets 5 to " in caplog.text
    assert "longer retention" in caplog.text
    assert "last" in images(tmp_path)


def test_a_stream_that_is_deleted_while_it_is_read_ends_it_with_what_to_do(
    broker: RabbitMq,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    publish(broker, FIRST, "doomed")
    paused: list[float] = []
    monkeypatch.setattr(following, "_REFUSED_SECONDS", 0.5)
    monkeypatch.setattr(following, "_IDLE_SECONDS", 0.1)
    tell = following.Follower._describe

    def delete_when_read(self: Any, received: Any) -> None:
        tell(self, received)
        if not received and not paused:
            paused.append(0)
            asyncio.get_running_loop().run_in_executor(None, delete, broker, "doomed")

    monkeypatch.setattr(following.Follower, "_describe", delete_when_read)
    ended = annotations(broker, tmp_path, "follow", stream="doomed")
    assert ended.exit_code == ExitCode.USER_CONFIG
    assert "there is no stream 'doomed'" in ended.stderr
    assert "trying again" in caplog.text
    assert len(images(tmp_path)) == len(FIRST)


class _Reversed(GzipCompressionCodec):
    """A compression that consumers do not know."""

    def compress(self, messages: Any) -> None:
        super().compress(messages)
        self.buffer = self.buffer[::-1]

    def compression_type(self) -> int:
        return CompressionType.Zstd.value


def test_a_batch_that_can_not_be_unpacked_is_kept_and_not_passed_over(
    broker: RabbitMq, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stream, codecs = "packed", StreamCompressionCodecs.available_compress_codecs

    def send(first: int, kind: CompressionType) -> None:
        messages = [AMQPMessage(body=body) for body in FIRST[first : first + 5]]
        administer(broker, lambda producer: producer.send_sub_entry(stream, messages, kind))

    publish(broker, FIRST[:5], stream)
    with monkeypatch.context() as patch:
        patch.setitem(codecs, CompressionType.Zstd, _Reversed())
        for first, kind in (
            (5, CompressionType.Gzip),
            (10, CompressionType.Zstd),
            (15, CompressionType.Gzip),
        ):
            send(first, kind)
    ended = annotations(broker, tmp_path, "catch-up", stream=stream)
    assert ended.exit_code == 0, ended.output
    assert ended.stdout.startswith("at offset 19: 15 created, 1 poison;")
    assert "at offset 10 with 5 messages can't be unpacked" in caplog.text
    assert len(images(tmp_path)) == 15
    (letter,) = (tmp_path / ".trainwright/dead-letters").glob("*.message")
    assert int(letter.stem) == 10
    assert "nothing new" in annotations(broker, tmp_path, "catch-up", stream=stream).stdout
