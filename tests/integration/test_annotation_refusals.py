"""What can be wrong with a stream and the way to it: each is told with what to do, and mended goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from annotation_broker import address_of, control, publish
from annotation_stream import bulk, draw, single
from rstream import AMQPMessage, CompressionType, Producer
from rstream.compression import GzipCompressionCodec, StreamCompressionCodecs
from rstream.schema import Deliver
from small_volumes import filled as filled_up
from small_volumes import read_only, small_volume
from typer.testing import CliRunner, Result

from trainwright.contract import ExitCode
from trainwright_devstack.rabbitmq import RabbitMq
from trainwright_trainer import annotation_commands
from trainwright_trainer.__main__ import app
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
FIRST = [single(f"frame-{n}", CREATED, n, image=draw(n)) for n in range(20)]


@pytest.fixture(scope="module")
def broker(rabbitmq: RabbitMq) -> RabbitMq:
    publish(rabbitmq, FIRST, "annotations")
    return rabbitmq


def annotations(
    broker: RabbitMq, root: Path, *command: str, stream: str = "annotations", **changed: str
) -> Result:
    """Run a command in this process; `changed` variables are not the right ones."""
    variables = {
        "RABBITMQ_HOST": broker.host,
        "RABBITMQ_PORT": str(broker.port),
        "RABBITMQ_QUEUE_NAME": stream,
        "RABBITMQ_USER": broker.account.user,
        "RABBITMQ_PASSWORD": broker.account.password,
        "AZAION_ROOT_DIR": str(root),
        **changed,
    }
    root.mkdir(exist_ok=True)
    return CliRunner().invoke(app, ["annotations", *command], env=variables)


def images(root: Path) -> set[str]:
    return {path.stem for path in root.glob("data*/images/*")}


REFUSALS: dict[str, tuple[dict[str, str], list[str], ExitCode, str, str]] = {
    "a wrong password": (
        {"RABBITMQ_PASSWORD": "not-this-one"},
        [],
        ExitCode.USER_CONFIG,
        "refuses user 'annotations'",
        "Check RABBITMQ_USER and RABBITMQ_PASSWORD",
    ),
    "an unknown user": (
        {"RABBITMQ_USER": "nobody"},
        [],
        ExitCode.USER_CONFIG,
        "refuses user 'nobody'",
        "Check RABBITMQ_USER and RABBITMQ_PASSWORD",
    ),
    "no rights at all": (
        {"RABBITMQ_USER": "stranger", "RABBITMQ_PASSWORD": "not-this-one"},
        [],
        ExitCode.USER_CONFIG,
        "user 'stranger' may not read the stream 'annotations'",
        "rabbitmqctl set_permissions",
    ),
    "no right to read the stream": (
        {"RABBITMQ_USER": "writer", "RABBITMQ_PASSWORD": "not-this-one"},
        [],
        ExitCode.USER_CONFIG,
        "user 'writer' may not read the stream 'annotations'",
        "rabbitmqctl set_permissions",
    ),
    "no such stream": (
        {"RABBITMQ_QUEUE_NAME": "nowhere"},
        [],
        ExitCode.USER_CONFIG,
        "there is no stream 'nowhere'",
        "Check the stream's name",
    ),
    "TLS to the port without": (
        {},
        ["--tls", "--authority", "AUTHORITY"],
        ExitCode.USER_CONFIG,
        "does not speak TLS",
        "Use the port of the TLS listener",
    ),
    "no TLS to the port with it": (
        {"RABBITMQ_PORT": "TLS"},
        [],
        ExitCode.NETWORK,
        "does not answer as a RabbitMQ stream",
        "whether it wants TLS",
    ),
    "another authority": (
        {"RABBITMQ_PORT": "TLS"},
        ["--tls"],
        ExitCode.USER_CONFIG,
        "is not trusted: self-signed certificate in certificate chain",
        "Give the authority that signed it",
    ),
    "another name than the certificate's": (
        {"RABBITMQ_PORT": "TLS", "RABBITMQ_HOST": "127.1"},
        ["--tls", "--authority", "AUTHORITY"],
        ExitCode.USER_CONFIG,
        "Hostname mismatch",
        "the host by the name that is in it",
    ),
    "an authority that is no certificate": (
        {"RABBITMQ_PORT": "TLS"},
        ["--tls", "--authority", "/etc/hostname"],
        ExitCode.USER_CONFIG,
        "the authority's certificate /etc/hostname can't be read",
        "Give a PEM file",
    ),
    "a port where nobody listens": (
        {"RABBITMQ_PORT": "1"},
        [],
        ExitCode.NETWORK,
        "can't be reached",
        "Check host and port",
    ),
    "a host that is not there": (
        {"RABBITMQ_HOST": "no-such-host.test"},
        [],
        ExitCode.NETWORK,
        "can't be reached",
        "Check host and port",
    ),
}


@pytest.fixture(scope="module")
def accounts(broker: RabbitMq) -> None:
    for user in ("stranger", "writer"):
        control(broker, "add_user", user, "not-this-one")
    control(broker, "set_permissions", "writer", "^$", "annotations", "^$")


@pytest.fixture(scope="module")
def filled(broker: RabbitMq, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trees that know the first part of the stream."""
    root = tmp_path_factory.mktemp("trees")
    assert annotations(broker, root, "catch-up").exit_code == 0
    return root


@pytest.mark.parametrize("what", REFUSALS)
@pytest.mark.usefixtures("accounts")
def test_a_way_that_is_wrong_is_told_with_what_to_do_and_loses_nothing(
    broker: RabbitMq, filled: Path, what: str
) -> None:
    changed, options, code, sentence, hint = REFUSALS[what]
    known = {"TLS": str(broker.tls_port), "AUTHORITY": str(broker.folder / "pki" / "ca.crt")}
    ended = annotations(
        broker,
        filled,
        "catch-up",
        *(known.get(option, option) for option in options),
        **{name: known.get(value, value) for name, value in changed.items()},
    )
    assert (ended.exit_code, ended.stdout) == (code, "")
    error, _, told = ended.stderr.partition("hint: ")
    assert sentence in error
    assert hint in told
    assert "not-this-one" not in ended.output
    assert "Traceback" not in ended.output
    assert len(images(filled)) == len(FIRST)


def advertise(broker: RabbitMq, host: str) -> None:
    for setting in ("advertised_host", "advertised_tls_host"):
        control(broker, "eval", f'application:set_env(rabbitmq_stream, {setting}, <<"{host}">>).')


@pytest.mark.parametrize(
    ("tls", "host", "sentence"),
    [
        (False, "no-such-host.test", "can't be reached"),
        (True, "127.1", "Hostname mismatch"),  # reached, by a name that is not in the certificate
    ],
)
def test_an_address_that_the_broker_advertises_and_nobody_can_use_is_named(
    broker: RabbitMq, tmp_path: Path, tls: bool, host: str, sentence: str
) -> None:
    port = broker.tls_port if tls else broker.port
    options = ["--tls", "--authority", str(broker.folder / "pki" / "ca.crt")] if tls else []
    advertise(broker, host)
    try:
        ended = annotations(broker, tmp_path, "catch-up", *options, RABBITMQ_PORT=str(port))
    finally:
        advertise(broker, broker.host)
    error, _, told = ended.stderr.partition("hint: ")
    assert ended.exit_code != 0
    assert sentence in error
    assert f"The broker says that the stream is at {host}:{port}, so it is read there" in told


@pytest.mark.parametrize("what", ["no right to read the stream", "a port where nobody listens"])
@pytest.mark.usefixtures("accounts")
def test_the_next_start_with_what_was_wrong_mended_goes_on(
    broker: RabbitMq, tmp_path: Path, what: str
) -> None:
    assert annotations(broker, tmp_path, "catch-up", **REFUSALS[what][0]).exit_code != 0
    assert annotations(broker, tmp_path, "catch-up").exit_code == 0
    assert len(images(tmp_path)) == len(FIRST)


def test_tls_with_the_right_authority_is_read(broker: RabbitMq, tmp_path: Path) -> None:
    authority = str(broker.folder / "pki" / "ca.crt")
    options = ["--tls", "--authority", authority]
    ended = annotations(broker, tmp_path, "catch-up", *options, RABBITMQ_PORT=str(broker.tls_port))
    assert ended.exit_code == 0, ended.output
    assert len(images(tmp_path)) == len(FIRST)


def test_a_broker_that_is_not_there_is_waited_for_and_said_each_time(
    broker: RabbitMq, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`follow` is a Deployment's: it may start before its broker."""

    def attempts() -> list[str]:
        return [record.message for record in caplog.records if "trying again" in record.message]

    def stop_after_two() -> None:
        deadline = time.monotonic() + 60
        while len(attempts()) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)

    stopping = threading.Thread(target=stop_after_two)
    stopping.start()
    ended = annotations(broker, tmp_path, "follow", RABBITMQ_PORT="1")
    stopping.join()
    assert ended.exit_code == 0
    told = attempts()
    assert len(told) >= 2
    assert all("can't be reached" in line and "Check host and port" in line for line in told)


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
    broker: RabbitMq, filled: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(continuity, "_SILENCE_SECONDS", 1.0)
    subscribe, credit = StreamReader.subscribe, iter([0])

    async def subscribe_in_silence(self: StreamReader, first: int | None) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(ingestion_broker, "_CREDIT", next(credit, 2))
            await subscribe(self, first)

    monkeypatch.setattr(StreamReader, "subscribe", subscribe_in_silence)
    ended = annotations(broker, filled, "catch-up")
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


def test_a_full_disk_and_a_read_only_volume_end_it_and_the_next_start_goes_on(
    broker: RabbitMq, tmp_path: Path
) -> None:
    with small_volume(tmp_path / "volume", 2048) as volume:
        with filled_up(volume, leaving=40 * 4096):
            full = annotations(broker, volume, "catch-up")
        with read_only(volume):
            refused = annotations(broker, volume, "catch-up")
        mended = annotations(broker, volume, "catch-up")
        assert len(images(volume)) == len(FIRST)
    for ended, sentence, hint in (
        (full, "No space left on device", "Make room on the volume"),
        (refused, "Read-only file system", "Mount the volume of the data trees writable"),
    ):
        assert (ended.exit_code, ended.stdout) == (ExitCode.STORAGE, "")
        assert sentence in ended.stderr
        assert hint in ended.stderr
        assert "Nothing is lost" in ended.stderr
    assert mended.exit_code == 0, mended.output


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
