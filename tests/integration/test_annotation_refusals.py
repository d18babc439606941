"""What can be wrong with a stream and the way to it: each is told with what to do, and mended goes on."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from annotation_broker import control, publish
from annotation_program import FIRST, annotations, images
from small_volumes import filled as filled_up
from small_volumes import read_only, small_volume

from trainwright.contract import ExitCode
from trainwright_devstack.rabbitmq import RabbitMq
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
