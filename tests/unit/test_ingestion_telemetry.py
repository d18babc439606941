"""What the follower of a stream tells of itself, and what it publishes of the trees."""

from __future__ import annotations

import http.client
import json
import math
import socket
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from annotation_stream import draw, received, single
from typer.testing import CliRunner

from trainwright_trainer.__main__ import app
from trainwright_trainer.ingestion.events import Status
from trainwright_trainer.ingestion.following import Moment
from trainwright_trainer.ingestion.ingestor import Ingestor
from trainwright_trainer.ingestion.revision import RevisionPublisher
from trainwright_trainer.ingestion.telemetry import Telemetry, TelemetryServer
from trainwright_trainer.reporting import ApiServer


def loopbacks() -> list[str]:
    """The loopback addresses of this machine: it may have no IPv6."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return ["127.0.0.1"]
    return ["127.0.0.1", "::1"]


def ask(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def moment_of(ingestor: Ingestor, results: Any, **now: Any) -> Moment:
    return Moment(**{"results": results, "offset": ingestor.offset, "connected": True, **now})


@pytest.mark.parametrize("host", [*loopbacks(), ""])
def test_it_is_served_where_it_is_told_to(tmp_path: Path, host: str) -> None:
    with Ingestor(tmp_path, sync=False) as ingestor:
        telemetry = Telemetry(ingestor)
        with TelemetryServer(telemetry, host, 0) as server:
            for each in [host] if host else loopbacks():
                assert ask(server.port, "/healthz", each)[0] == 200


def test_metrics_tell_what_became_of_messages_and_how_far_behind_it_is(tmp_path: Path) -> None:
    now = 1_000_000.0
    with Ingestor(tmp_path, sync=False) as ingestor:
        telemetry = Telemetry(ingestor, lambda: now)
        results = ingestor.apply(
            [received(0, single("a", Status.CREATED, 1, image=draw(1))), received(1, b"\xc1 nonsense")]
        )
        with TelemetryServer(telemetry, "127.0.0.1", 0) as server:
            assert ask(server.port, "/readyz")[0] == 503  # nothing is told yet
            telemetry.tell(moment_of(ingestor, results, last_message=now - 90))
            status, text = ask(server.port, "/metrics")
            assert ask(server.port, "/readyz")[0] == 200
            assert ask(server.port, "/nowhere")[0] == 404
    assert status == 200
    for line in (
        'trainwright_annotations_messages_total{result="created"} 1.0',
        'trainwright_annotations_poison_total{rule="encoding"} 1.0',
        "trainwright_annotations_dead_letters 1.0",
        "trainwright_annotations_changed_total 1.0",
        "trainwright_annotations_offset 1.0",
        "trainwright_annotations_lag_seconds 90.0",
    ):
        assert line in text


def test_who_waits_is_not_behind_and_who_is_stuck_is_not_well(tmp_path: Path) -> None:
    now = 0.0
    with Ingestor(tmp_path, sync=False) as ingestor:
        telemetry = Telemetry(ingestor, lambda: now)
        telemetry.tell(moment_of(ingestor, ingestor.apply([]), last_message=-500.0, waiting=True))
        assert telemetry.registry.get_sample_value("trainwright_annotations_lag_seconds") == 0
        assert telemetry.is_ready
        telemetry.tell(moment_of(ingestor, ingestor.apply([]), connected=False))
        assert not telemetry.is_ready
        assert telemetry.is_alive
        now = 151.0
        assert not telemetry.is_alive


def test_the_lag_is_how_long_ago_the_trees_held_all_whatever_happens_meanwhile(tmp_path: Path) -> None:
    now = 1000.0

    def lag() -> float | None:
        return telemetry.registry.get_sample_value("trainwright_annotations_lag_seconds")

    def age() -> float | None:
        return telemetry.registry.get_sample_value("trainwright_annotations_last_message_age_seconds")

    with Ingestor(tmp_path, sync=False) as ingestor:
        telemetry = Telemetry(ingestor, lambda: now)
        assert math.isnan(lag() or 0)  # nothing is known yet

        def tell(**moment: Any) -> None:
            telemetry.tell(moment_of(ingestor, ingestor.apply([]), **moment))

        tell(last_message=100.0)
        assert (lag(), age()) == (900, 900)  # it reads what is fifteen minutes old
        tell(last_message=400.0)
        assert lag() == 600
        tell(last_message=400.0, waiting=True)
        assert (lag(), age()) == (0, 600)  # a quiet stream
        now = 1030.0
        tell(last_message=400.0, connected=False)
        assert (lag(), age()) == (30, 630)  # it was complete until the connection was lost
        now = 1060.0
        assert lag() == 60  # also while nobody tells anything
        tell(last_message=1045.0)
        assert (lag(), age()) == (15, 15)
        tell(last_message=1059.0, waiting=True)
        now = 1300.0
        assert lag() == 240  # it told nothing since: it is stuck


class ConfigMaps(HTTPServer):
    """Takes what is applied, and answers as it is told."""

    def __init__(self) -> None:
        self.applied: list[tuple[str, dict[str, Any]]] = []
        self.status = 200
        self.hang = Event()
        self.hang.set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_PATCH(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.hang.wait(10)
                server.applied.append((self.path, body["data"]))
                self.send_response(server.status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
                """Say nothing."""

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def config_maps() -> Iterator[ConfigMaps]:
    server = ConfigMaps()
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.hang.set()
    server.shutdown()
    server.server_close()


def publisher_to(url: str, folder: Path, ingestor: Ingestor, clock: Callable[[], float]) -> RevisionPublisher:
    account = folder / "account"
    account.mkdir()
    (account / "token").write_text("a-token")
    return RevisionPublisher(ApiServer(url, account), "ml", "annotations", ingestor, clock)


def test_the_revision_is_published_when_it_is_another_and_tried_again_after_a_refusal(
    tmp_path: Path, config_maps: ConfigMaps, caplog: pytest.LogCaptureFixture
) -> None:
    now = 0.0
    with Ingestor(tmp_path, sync=False) as ingestor:
        publisher = publisher_to(config_maps.url, tmp_path, ingestor, lambda: now)
        results = ingestor.apply([received(4, single("a", Status.CREATED, 1, image=draw(1)))])
        for status in (403, 409, 500):
            config_maps.status = status
            publisher.tell(moment_of(ingestor, results))
            wait_for(lambda status=status: f"can't be written: status {status}" in caplog.text)
            publisher.tell(moment_of(ingestor, results))  # not before half a minute is over
            now += 31
        assert len(config_maps.applied) == 3
        config_maps.status = 200
        publisher.tell(moment_of(ingestor, results))
        wait_for(lambda: len(config_maps.applied) == 4)
        now += 31
        publisher.tell(moment_of(ingestor, results))  # nothing is new
        publisher.finish()
        assert len(config_maps.applied) == 4
        ingestor.apply([received(5, single("b", Status.CREATED, 1, image=draw(2)))])
        publisher.finish()  # the last word does not wait for its time
    path, data = config_maps.applied[-1]
    assert path.startswith("/api/v1/namespaces/ml/configmaps/annotations-revision?")
    assert data == {"offset": "5", "count": "2"}
    assert config_maps.applied[3][1] == {"offset": "4", "count": "1"}


@pytest.mark.parametrize("what", ["hangs", "is gone"])
def test_a_server_that_does_not_answer_holds_nothing_up(
    tmp_path: Path, config_maps: ConfigMaps, what: str
) -> None:
    config_maps.hang.clear()
    url = config_maps.url if what == "hangs" else "http://127.0.0.1:1"
    with Ingestor(tmp_path, sync=False) as ingestor:
        publisher = publisher_to(url, tmp_path, ingestor, lambda: 0.0)
        results = ingestor.apply([received(4, single("a", Status.CREATED, 1, image=draw(1)))])
        begun = time.monotonic()
        publisher.tell(moment_of(ingestor, results))
        publisher.tell(moment_of(ingestor, results))
        publisher.finish(0.2)
        assert time.monotonic() - begun < 10  # an answer is waited for for 15 seconds


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@pytest.mark.parametrize("listen", ["8081x", "127.0.0.1:", "no-such-host.test:8081", "127.0.0.1:TAKEN"])
def test_a_place_to_listen_at_that_is_none_is_told_of(
    tmp_path: Path, config_maps: ConfigMaps, listen: str
) -> None:
    variables = {
        "RABBITMQ_HOST": "127.0.0.1",
        "RABBITMQ_USER": "user",
        "RABBITMQ_PASSWORD": "password",
        "AZAION_ROOT_DIR": str(tmp_path),
    }
    listen = listen.replace("TAKEN", str(config_maps.server_address[1]))
    ended = CliRunner().invoke(app, ["annotations", "follow", "--listen", listen], env=variables)
    assert ended.exit_code == 64
    assert f"can't listen at {listen}" in ended.stderr
    assert "HOST:PORT" in ended.stderr


@pytest.mark.parametrize("missing", ["RABBITMQ_USER", "RABBITMQ_PASSWORD"])
def test_the_command_says_which_credentials_a_secret_lacks(
    missing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in {"RABBITMQ_USER", "RABBITMQ_PASSWORD"} - {missing}:
        (tmp_path / name).write_text("value")
    ended = CliRunner().invoke(app, ["annotations", "catch-up", "--credentials", str(tmp_path)])
    assert ended.exit_code == 64
    assert f"lack {missing}" in ended.output + capsys.readouterr().err


def test_the_command_says_which_credentials_can_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "RABBITMQ_USER").write_text("value")
    (tmp_path / "RABBITMQ_PASSWORD").write_bytes(b"\xff\xfe")
    ended = CliRunner().invoke(app, ["annotations", "catch-up", "--credentials", str(tmp_path)])
    assert ended.exit_code == 64
    assert "RABBITMQ_PASSWORD can't be read" in ended.output
