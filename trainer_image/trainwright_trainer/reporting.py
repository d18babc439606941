"""The cluster as an observer: the report goes to `status.trainer` of the run, and as the last word to a file.

Reports never hold training up or fail it: they are sent from a thread, and the newest replaces those not
yet sent. Only the fence before a commit waits for an answer.
"""

from __future__ import annotations

import json
import logging
import os
import time
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from threading import Condition, Event, Lock, Thread
from types import TracebackType
from typing import Any, Self

import requests
from pydantic import ValidationError

from trainwright.contract import CheckpointReport, PublishingReport, RunIdentity, RunReport
from trainwright.errors import (
    ConfigurationError,
    NetworkError,
    PreemptedError,
    PublishingError,
    StepError,
    SupersededError,
)
from trainwright_trainer.checkpoint_store import Reported
from trainwright_trainer.observers import Moment

FIELD_MANAGER = "trainwright-trainer"
API_VERSION = "trainwright.dev/v1alpha1"
_LOG = logging.getLogger(__name__)
_MESSAGE_CHARACTERS = 300
_TIMEOUT = (5, 15)  # seconds to connect, and between two pieces of the answer
_FENCE_POLICY = "trainwright-trainer-fence"  # the chart's admission policy, which its refusals name


class Verdict(Enum):
    """What the API server makes of a report."""

    ACCEPTED = auto()
    NOT_CURRENT = auto()  # the fence: the run's status names another pod, or ours not yet
    NOT_ALLOWED = auto()  # by RBAC, or because somebody else owns the fields: that may be mended meanwhile
    INVALID = auto()  # the schema: the same report will never be accepted
    GONE = auto()  # there is no such run any more
    UNKNOWN = auto()  # no answer, or one that says nothing about the report


_VERDICTS = {
    200: Verdict.ACCEPTED,
    400: Verdict.INVALID,
    403: Verdict.NOT_ALLOWED,
    404: Verdict.GONE,
    409: Verdict.NOT_ALLOWED,
    422: Verdict.INVALID,
}
_FINAL = frozenset({Verdict.INVALID, Verdict.GONE})
_HINTS = {
    Verdict.INVALID: "Install the CRDs of this release, then retry: nothing is trained again.",
    Verdict.NOT_ALLOWED: "Bind the ClusterRole trainwright-trainer to the pod's account, and let nobody else"
    " write status.trainer; then retry: nothing is trained again.",
}


@dataclass(frozen=True)
class Pace:
    """Seconds between reports, and for how long a refusal may mean that our pod is not known yet."""

    interval: float = 30
    retry: float = 2
    grace: float = 60
    farewell: float = 15


class ApiServer:
    """The calls a trainer makes to the API server; the token is read each time, as it is replaced."""

    def __init__(self, url: str, account: Path) -> None:
        self._url = url
        self._account = account

    @classmethod
    def from_environment(cls, account: Path) -> Self:
        """Return the server that every pod finds in its environment."""
        try:
            host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        except KeyError as error:
            raise ConfigurationError(
                f"--service-account is given, but {error.args[0]} is not set",
                hint="Outside a pod leave --service-account out: nothing is reported then.",
            ) from None
        return cls(f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}", account)

    def apply_report(self, run: RunIdentity, report: RunReport) -> requests.Response:
        """Apply `status.trainer` of the run, never by force; raise `OSError` when there is no answer."""
        told = json.loads(report.to_json())
        body = {
            "apiVersion": API_VERSION,
            "kind": "TrainingRun",
            "metadata": {"name": run.name},
            # An empty map where an earlier attempt had entries would become null, which the schema refuses.
            "status": {"trainer": {key: value for key, value in told.items() if value != {}}},
        }
        return self._apply(_status_of(run), body)

    def apply_config_map(self, namespace: str, name: str, data: dict[str, str]) -> requests.Response:
        """Apply a ConfigMap of ours, never by force; raise `OSError` when there is no answer."""
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
        return self._apply(f"api/v1/namespaces/{namespace}/configmaps/{name}", body)

    def read_status(self, run: RunIdentity) -> requests.Response:
        """Read the run with its status; raise `OSError` when there is no answer."""
        return self._call("GET", _status_of(run), headers={"Accept": "application/json"})

    def _apply(self, path: str, body: dict[str, Any]) -> requests.Response:
        return self._call(
            "PATCH",
            path,
            params={"fieldManager": FIELD_MANAGER},
            data=json.dumps(body),
            headers={"Content-Type": "application/apply-patch+yaml"},
        )

    def _call(self, verb: str, path: str, *, headers: dict[str, str], **request: Any) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False  # a proxy of the environment does not lead to the API server
            token = (self._account / "token").read_text().strip()
            return session.request(
                verb,
                f"{self._url}/{path}",
                headers={"Authorization": f"Bearer {token}", **headers},
                verify=str(self._account / "ca.crt"),
                timeout=_TIMEOUT,
                allow_redirects=False,
                **request,
            )


def _status_of(run: RunIdentity) -> str:
    return f"apis/{API_VERSION}/namespaces/{run.namespace}/trainingruns/{run.name}/status"


def read_reported(server: ApiServer, run: RunIdentity, stop: Event, pace: Pace | None = None) -> Reported:
    """Return what earlier attempts reported of checkpoints; nobody but the run's pods can have written it.

    Without an answer a training could only begin at zero: it is waited for, and else the attempt fails.
    """
    pace = pace or Pace()
    deadline = time.monotonic() + pace.grace
    while True:
        try:
            response = server.read_status(run)
            verdict, message = read_answer(response)
        except OSError as error:
            verdict, message = Verdict.UNKNOWN, f"no answer: {type(error).__name__}"
        if verdict is Verdict.ACCEPTED:
            return _reported(response.json())
        if verdict is Verdict.GONE:
            raise SupersededError(f"run {run.name} no longer exists: nothing is trained")
        if time.monotonic() >= deadline:
            raise NetworkError(
                f"the run's status can't be read, which says where training goes on: {message}",
                hint="Look at the API server, and at the rights of the pod's account.",
            )
        if stop.wait(pace.retry):
            raise PreemptedError("stopped on request before anything was begun")


def _reported(run: dict[str, Any]) -> Reported:
    found = ((run.get("status") or {}).get("trainer") or {}).get("checkpoint")
    if found is None:
        return Reported()
    try:
        return Reported(CheckpointReport.model_validate(found))
    except ValidationError:
        _LOG.warning("the run's status holds a checkpoint of another release: it is not gone on from")
        return Reported()


class StatusReporter:
    """Sends reports in the background; use it as a context manager, which sends the last one at its end."""

    def __init__(self, server: ApiServer, run: RunIdentity, *, stop: Event, pace: Pace | None = None) -> None:
        self._server = server
        self._run = run
        self._stop = stop
        self._pace = pace or Pace()
        self._changed = Condition()
        self._newest: RunReport | None = None
        self._done_sequence = -1
        self._urgent = False
        self._closing = False
        self._publishing: PublishingReport | None = None
        self._sending = Lock()
        self._complained = False
        self._thread = Thread(target=self._work, name="status-reporter", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(self._pace.farewell)

    def close(self, timeout: float) -> None:
        """Send the last report; wait for that no longer than `timeout` seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)

    def observe(self, report: RunReport, moment: Moment) -> None:
        """Take the report over; everything but a mere step is sent at once."""
        with self._changed:
            self._newest = report
            if moment is not Moment.STEP:
                self._urgent = True
                self._changed.notify()

    def fence(self, file_id: str) -> None:
        """Claim the right to commit: return once the run's status accepted the file id from this pod.

        Raise `SupersededError` if another pod has it, `PublishingError` if the report is refused for another
        reason; wait as long as the API server does not answer.
        """
        if self._newest is None:
            raise SupersededError("nothing was reported yet: the right to publish can't be claimed")
        self._publishing = PublishingReport(file_id=file_id)
        refused_since: float | None = None
        while True:
            verdict, message = self._send(self._newest)
            if verdict is Verdict.ACCEPTED:
                return
            if verdict is Verdict.UNKNOWN:
                refused_since = None
            elif refused_since is None:
                refused_since = time.monotonic()
            waited = 0.0 if refused_since is None else time.monotonic() - refused_since
            if verdict in _FINAL or waited >= self._pace.grace:
                raise self._explain(verdict, message)
            if self._stop.wait(self._pace.retry):
                raise PreemptedError("stopped on request while waiting to publish")

    def _explain(self, verdict: Verdict, message: str) -> StepError:
        """Return why the right to commit is refused."""
        if verdict is Verdict.GONE:
            return SupersededError(f"run {self._run.name} no longer exists: nothing is published")
        if verdict is Verdict.NOT_CURRENT:
            return SupersededError(
                f"run {self._run.name} has another current pod: this one publishes nothing",
                hint="The current pod goes on; nothing has to be done.",
            )
        return PublishingError(
            f"the API server refuses the report that claims the right to publish: {message}",
            hint=_HINTS[verdict],
        )

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._urgent or self._closing, timeout=self._pace.interval)
                report, closing = self._newest, self._closing
                self._urgent = False
            if report is not None and report.sequence > self._done_sequence:
                self._deliver(report)
            if closing and (self._newest is report or report is None):
                return

    def _deliver(self, report: RunReport) -> None:
        """Send a report; while our pod is unknown or the server out of reach, try again with the newest.

        A report that can never be accepted is given up: the next one has its own chance.
        """
        deadline = time.monotonic() + self._pace.grace
        while time.monotonic() < deadline:
            verdict, _ = self._send(report)
            if verdict is Verdict.ACCEPTED:
                return
            if verdict in _FINAL:
                self._done_sequence = max(self._done_sequence, report.sequence)
                return
            with self._changed:
                self._changed.wait(self._pace.retry)
                report = self._newest or report

    def _send(self, report: RunReport) -> tuple[Verdict, str]:
        """Send, and return what the API server says; failures are logged when they begin."""
        with self._sending:
            if self._publishing is not None:
                report = report.model_copy(update={"publishing": self._publishing})
            try:
                verdict, message = read_answer(self._server.apply_report(self._run, report))
            except OSError as error:
                verdict, message = Verdict.UNKNOWN, f"no answer: {type(error).__name__}"
            if verdict is Verdict.ACCEPTED:
                self._done_sequence = report.sequence
            elif not self._complained:
                _LOG.warning("the report was not accepted: %s", message)
            self._complained = verdict is not Verdict.ACCEPTED
            return verdict, message


def read_answer(response: requests.Response) -> tuple[Verdict, str]:
    """Return what an answer means, and its status with the API server's own words, bounded."""
    try:
        message = str(response.json()["message"])
    except (ValueError, TypeError, KeyError):
        message = response.text
    if response.status_code in {403, 422} and _FENCE_POLICY in message:
        verdict = Verdict.NOT_CURRENT
    else:
        verdict = _VERDICTS.get(response.status_code, Verdict.UNKNOWN)
    return verdict, f"{response.status_code}: {message[:_MESSAGE_CHARACTERS]}"


class TerminationMessage:
    """Writes the last report to the file that the kubelet reads when the container ends."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def observe(self, report: RunReport, moment: Moment) -> None:
        """Write the file at the end."""
        if moment is Moment.END:
            self._path.write_text(report.to_json(), encoding="utf-8")
