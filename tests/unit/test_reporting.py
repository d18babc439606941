"""Reports reach `status.trainer` through a real HTTP server, and never stand in the way of the training."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from trainwright.contract import Progress, RunIdentity, RunReport, Stage
from trainwright.errors import (
    ConfigurationError,
    NetworkError,
    PreemptedError,
    PublishingError,
    SupersededError,
)
from trainwright_trainer.observers import Moment
from trainwright_trainer.reporting import ApiServer, Pace, StatusReporter, TerminationMessage, read_reported

RUN = RunIdentity(name="parts-1", namespace="ml", uid="u")
FILE_ID = "0123456789abcdef"
QUICK = Pace(interval=0.2, retry=0.02, grace=0.3, farewell=5)


# As an API server words them.
FENCED = (
    'trainingruns.trainwright.dev "parts-1" is forbidden: ValidatingAdmissionPolicy'
    " 'trainwright-trainer-fence' with binding 'trainwright-trainer-fence' denied request: Only the"
    " current pod of a run may report about it"
)
NO_RIGHT = (
    'trainingruns.trainwright.dev "parts-1" is forbidden: User "system:serviceaccount:ml:trainwright-trainer"'
    ' cannot patch resource "trainingruns/status" in API group "trainwright.dev" in the namespace "ml"'
)
OFF_SCHEMA = (
    'TrainingRun.trainwright.dev "parts-1" is invalid: status.trainer.metrics.mAP50: Invalid value: "null"'
)


@dataclass
class Server:
    """An API server that answers with `status` and keeps what it was sent."""

    url: str = ""
    status: int = 200
    message: str = ""
    delay: float = 0
    requests: list[dict[str, Any]] = field(default_factory=list)
    run: dict[str, Any] = field(default_factory=dict)

    def wait_for(self, condition: Callable[[list[dict[str, Any]]], bool]) -> None:
        deadline = time.monotonic() + 10
        while not condition(self.requests):
            assert time.monotonic() < deadline, self.requests
            time.sleep(0.005)

    @property
    def reports(self) -> list[dict[str, Any]]:
        return [request["body"]["status"]["trainer"] for request in self.requests]


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_PATCH(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            time.sleep(state.delay)
            state.requests.append({"path": self.path, "headers": dict(self.headers), "body": body})
            self.send_response(state.status)
            self.end_headers()
            self.wfile.write(json.dumps({"kind": "Status", "message": state.message}).encode())

        def do_GET(self) -> None:
            state.requests.append({"path": self.path, "headers": dict(self.headers)})
            self.send_response(state.status)
            self.end_headers()
            self.wfile.write(json.dumps(state.run).encode())

        def log_message(self, *arguments: object) -> None:
            """Stay silent."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def account(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("first-token\n")
    return tmp_path


def report(sequence: int = 1) -> RunReport:
    progress = Progress(percent=sequence, stage=Stage.TRAINING)
    return RunReport.model_validate(
        {
            "attempt": 1,
            "sequence": sequence,
            "heartbeatTime": "2026-11-21T10:00:00Z",
            "progress": progress,
            "finishedStages": {"Dataset": 1.5},
            "metrics": {"mAP50": 0.5},
        }
    )


def reporter(server: Server, account: Path, pace: Pace = QUICK, stop: Event | None = None) -> StatusReporter:
    return StatusReporter(ApiServer(server.url, account), RUN, stop=stop or Event(), pace=pace)


def test_a_report_is_applied_as_status_trainer_and_nothing_else(server: Server, account: Path) -> None:
    with reporter(server, account) as reporting:
        reporting.observe(report(), Moment.STAGE)
    (request,) = server.requests
    assert request["path"] == (
        "/apis/trainwright.dev/v1alpha1/namespaces/ml/trainingruns/parts-1/status?fieldManager=trainwright-trainer"
    )
    assert request["headers"]["Content-Type"] == "application/apply-patch+yaml"
    assert request["headers"]["Authorization"] == "Bearer first-token"
    assert request["body"] == {
        "apiVersion": "trainwright.dev/v1alpha1",
        "kind": "TrainingRun",
        "metadata": {"name": "parts-1"},
        "status": {"trainer": json.loads(report().to_json())},
    }


def test_the_token_is_read_again_for_every_report(server: Server, account: Path) -> None:
    with reporter(server, account) as reporting:
        reporting.observe(report(1), Moment.STAGE)
        server.wait_for(lambda seen: len(seen) == 1)
        (account / "token").write_text("second-token")
        reporting.observe(report(2), Moment.EPOCH)
    assert [request["headers"]["Authorization"] for request in server.requests] == [
        "Bearer first-token",
        "Bearer second-token",
    ]


def test_steps_wait_for_the_interval_and_only_the_newest_is_sent(server: Server, account: Path) -> None:
    with reporter(server, account, Pace(interval=0.3, retry=0.02, grace=1)) as reporting:
        start = time.monotonic()
        for sequence in range(1, 50):
            reporting.observe(report(sequence), Moment.STEP)
        server.wait_for(lambda seen: len(seen) == 1)
        assert time.monotonic() - start > 0.2
    assert [sent["sequence"] for sent in server.reports] == [49]


def test_a_slow_server_does_not_hold_the_training_up(server: Server, account: Path) -> None:
    server.delay = 0.5
    with reporter(server, account) as reporting:
        start = time.monotonic()
        for sequence in range(1, 100):
            reporting.observe(report(sequence), Moment.EPOCH)
        assert time.monotonic() - start < 0.4
    assert server.reports[-1]["sequence"] == 99
    assert len(server.reports) < 10


@pytest.mark.parametrize(
    ("refusal", "message"),
    [(403, FENCED), (403, NO_RIGHT), (409, "conflict"), (401, ""), (500, ""), (429, "")],
)
def test_a_report_is_tried_again_until_it_is_accepted(
    server: Server, account: Path, refusal: int, message: str
) -> None:
    server.status, server.message = refusal, message
    with reporter(server, account) as reporting:
        reporting.observe(report(), Moment.STAGE)
        server.wait_for(lambda seen: len(seen) >= 3)
        server.status = 200
    assert server.reports[-1]["sequence"] == 1


@pytest.mark.parametrize("refusal", [400, 422])
def test_a_report_that_can_never_be_accepted_is_given_up_and_the_next_one_is_sent(
    server: Server, account: Path, caplog: pytest.LogCaptureFixture, refusal: int
) -> None:
    server.status, server.message = refusal, OFF_SCHEMA
    with reporter(server, account, Pace(interval=0.05, retry=0.01, grace=60, farewell=5)) as reporting:
        reporting.observe(report(1), Moment.STAGE)
        server.wait_for(lambda seen: len(seen) == 1)
        time.sleep(0.2)
        server.status = 200
        reporting.observe(report(2), Moment.STAGE)
    assert [sent["sequence"] for sent in server.reports] == [1, 2]
    assert caplog.text.count(OFF_SCHEMA) == 1


def test_reports_that_never_arrive_fail_nothing_and_end_in_time(
    server: Server, account: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.status, server.message = 403, FENCED
    start = time.monotonic()
    with reporter(server, account, Pace(interval=0.2, retry=0.02, grace=60, farewell=0.3)) as reporting:
        reporting.observe(report(), Moment.END)
    assert time.monotonic() - start < 3
    assert caplog.text.count("was not accepted: 403: trainingruns") == 1
    server.status = 200


def test_a_missing_token_is_no_answer_and_the_log_has_no_token(
    server: Server, account: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (account / "token").rename(account / "away")
    with reporter(server, account) as reporting:
        reporting.observe(report(), Moment.STAGE)
        time.sleep(0.1)
        (account / "away").rename(account / "token")
    assert len(server.requests) == 1
    assert "first-token" not in caplog.text


def test_the_fence_returns_when_the_status_accepted_the_file_id(server: Server, account: Path) -> None:
    with reporter(server, account) as reporting:
        reporting.observe(report(1), Moment.STAGE)
        reporting.fence(FILE_ID)
        assert server.reports[-1]["publishing"] == {"fileId": FILE_ID}
        reporting.observe(report(2), Moment.STAGE)
    assert server.reports[-1] == {**json.loads(report(2).to_json()), "publishing": {"fileId": FILE_ID}}


def test_a_fence_that_stays_refused_means_superseded(server: Server, account: Path) -> None:
    server.status, server.message = 403, FENCED
    reporting = reporter(server, account)
    reporting.observe(report(), Moment.STEP)
    start = time.monotonic()
    with pytest.raises(SupersededError, match="another current pod"):
        reporting.fence(FILE_ID)
    assert time.monotonic() - start >= QUICK.grace


@pytest.mark.parametrize(
    ("refusal", "message", "hint", "final"),
    [
        (403, NO_RIGHT, "ClusterRole trainwright-trainer", False),
        (409, "Apply failed with 1 conflict", "nobody else", False),
        (422, OFF_SCHEMA, "CRDs of this release", True),
        (400, "can't be read", "CRDs of this release", True),
    ],
)
def test_a_fence_refused_for_another_reason_says_which(  # noqa: PLR0917 - fixtures and a table
    server: Server, account: Path, refusal: int, message: str, hint: str, final: bool
) -> None:
    server.status, server.message = refusal, message
    reporting = reporter(server, account)
    reporting.observe(report(), Moment.STEP)
    with pytest.raises(PublishingError) as refused:
        reporting.fence(FILE_ID)
    assert message in str(refused.value)
    assert hint in refused.value.hint
    assert (len(server.requests) == 1) is final


def test_a_run_that_is_gone_is_not_published(server: Server, account: Path) -> None:
    server.status = 404
    reporting = reporter(server, account)
    reporting.observe(report(), Moment.STEP)
    with pytest.raises(SupersededError, match="no longer exists"):
        reporting.fence(FILE_ID)


def test_a_fence_that_was_refused_at_first_may_still_pass(server: Server, account: Path) -> None:
    server.status, server.message = 403, FENCED
    reporting = reporter(server, account, Pace(retry=0.02, grace=10))
    reporting.observe(report(), Moment.STEP)
    passing = Thread(target=reporting.fence, args=(FILE_ID,))
    passing.start()
    server.wait_for(lambda seen: len(seen) >= 2)
    server.status = 200
    passing.join(5)
    assert not passing.is_alive()


def test_the_fence_waits_for_a_server_out_of_reach_until_it_is_told_to_stop(account: Path) -> None:
    stop = Event()
    nowhere = Server(url="http://127.0.0.1:9")
    reporting = reporter(nowhere, account, stop=stop)
    reporting.observe(report(), Moment.STEP)
    raised: list[BaseException] = []

    def try_to_pass() -> None:
        try:
            reporting.fence(FILE_ID)
        except PreemptedError as error:
            raised.append(error)

    waiting = Thread(target=try_to_pass)
    waiting.start()
    waiting.join(QUICK.grace * 2)
    assert waiting.is_alive()
    stop.set()
    waiting.join(5)
    assert len(raised) == 1


def test_the_termination_message_holds_the_last_report_only(tmp_path: Path) -> None:
    message = TerminationMessage(tmp_path / "message")
    message.observe(report(1), Moment.STAGE)
    assert not (tmp_path / "message").exists()
    message.observe(report(2), Moment.END)
    assert RunReport.model_validate_json((tmp_path / "message").read_text()).sequence == 2


def test_the_server_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch, account: Path) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ConfigurationError, match="KUBERNETES_SERVICE_HOST is not set"):
        ApiServer.from_environment(account)


CHECKPOINT = {
    "epoch": 7,
    "time": "2026-11-21T12:00:00Z",
    "saveSeconds": 1.5,
    "digest": "sha256:" + "a" * 64,
    "earlier": ["sha256:" + "b" * 64],
}


def test_a_new_pod_reads_which_checkpoints_were_reported(server: Server, account: Path) -> None:
    server.run = {"status": {"trainer": {"attempt": 1, "fieldOfAnotherRelease": 1, "checkpoint": CHECKPOINT}}}
    reported = read_reported(ApiServer(server.url, account), RUN, Event(), QUICK)
    assert reported.digests == {"sha256:" + "a" * 64, "sha256:" + "b" * 64}
    (request,) = server.requests
    assert request["path"].endswith("/namespaces/ml/trainingruns/parts-1/status")
    assert request["headers"]["Authorization"] == "Bearer first-token"


@pytest.mark.parametrize("run", [{}, {"status": {}}, {"status": {"trainer": {"checkpoint": {"epoch": -1}}}}])
def test_without_a_report_that_can_be_read_no_checkpoint_is_believed(
    server: Server, account: Path, run: dict[str, Any]
) -> None:
    server.run = run
    assert read_reported(ApiServer(server.url, account), RUN, Event(), QUICK).digests == frozenset()


def test_nothing_is_trained_from_zero_because_the_api_server_is_away(server: Server, account: Path) -> None:
    server.status = 503
    with pytest.raises(NetworkError, match="where training goes on"):
        read_reported(ApiServer(server.url, account), RUN, Event(), QUICK)
    assert len(server.requests) > 1
    server.status = 404
    with pytest.raises(SupersededError, match="no longer exists"):
        read_reported(ApiServer(server.url, account), RUN, Event(), QUICK)
