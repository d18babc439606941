"""What the follower of a stream tells of itself, and what it publishes of the trees."""

from __future__ import annotations

import http.client
import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from annotation_stream import draw, received, single

from trainwright_trainer.ingestion.events import Status
from trainwright_trainer.ingestion.following import Moment
from trainwright_trainer.ingestion.ingestor import Ingestor
from trainwright_trainer.ingestion.revision import RevisionPublisher
from trainwright_trainer.ingestion.telemetry import Telemetry, TelemetryServer


def ask(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def moment_of(ingestor: Ingestor, results: Any, **now: Any) -> Moment:
    return Moment(**{"results": results, "offset": ingestor.offset, "connected": True, **now})


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
        now = 61.0
        assert not telemetry.is_alive


class ConfigMaps(HTTPServer):
    """Takes what is applied, and answers as it is told."""

    def __init__(self) -> None:
        self.applied: list[tuple[str, dict[str, Any]]] = []
        self.status = 200
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_PATCH(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.applied.append((self.path, body["data"]))
                self.send_response(server.status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
                """Say nothing."""

        super().__init__(("127.0.0.1", 0), Handler)


def test_the_revision_is_published_when_it_is_another_and_tried_again_after_a_refusal(tmp_path: Path) -> None:
    from trainwright_trainer.reporting import ApiServer

    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text("a-token")
    server, now = ConfigMaps(), 0.0
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        with Ingestor(tmp_path, sync=False) as ingestor:
            api = ApiServer(f"http://127.0.0.1:{server.server_address[1]}", account)
            publisher = RevisionPublisher(api, "ml", "annotations", ingestor, lambda: now)
            results = ingestor.apply([received(4, single("a", Status.CREATED, 1, image=draw(1)))])
            server.status = 403
            publisher.tell(moment_of(ingestor, results))
            publisher.tell(moment_of(ingestor, results))  # not before half a minute is over
            assert len(server.applied) == 1
            server.status, now = 200, 31.0
            publisher.tell(moment_of(ingestor, results))
            now = 62.0
            publisher.tell(moment_of(ingestor, results))  # nothing is new
    finally:
        server.shutdown()
        server.server_close()
    path, data = server.applied[-1]
    assert len(server.applied) == 2
    assert path.startswith("/api/v1/namespaces/ml/configmaps/annotations-revision?")
    assert data == {"offset": "4", "count": "1"}


@pytest.mark.parametrize("missing", ["RABBITMQ_USER", "RABBITMQ_PASSWORD"])
def test_the_command_says_which_credentials_a_secret_lacks(
    missing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from typer.testing import CliRunner

    from trainwright_trainer.__main__ import app

    for name in {"RABBITMQ_USER", "RABBITMQ_PASSWORD"} - {missing}:
        (tmp_path / name).write_text("value")
    ended = CliRunner().invoke(app, ["annotations", "catch-up", "--credentials", str(tmp_path)])
    assert ended.exit_code == 64
    assert f"lack {missing}" in ended.output + capsys.readouterr().err


def test_the_command_says_which_credentials_can_not_be_read(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from trainwright_trainer.__main__ import app

    (tmp_path / "RABBITMQ_USER").write_text("value")
    (tmp_path / "RABBITMQ_PASSWORD").write_bytes(b"\xff\xfe")
    ended = CliRunner().invoke(app, ["annotations", "catch-up", "--credentials", str(tmp_path)])
    assert ended.exit_code == 64
    assert "RABBITMQ_PASSWORD can't be read" in ended.output
