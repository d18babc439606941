"""What a pod's end tells: exit code, signals of the cluster, and the trainer's last report. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from trainwright.contract import FailureReport, Outcome, RunReport, StageGroup
from trainwright_operator.names import TRAINER_CONTAINER

Object = dict[str, Any]

LOG_TAIL_CHARACTERS = 1500
IMAGE_CHARACTERS = 512
LOST_CONTAINER = "ContainerStatusUnknown"  # the kubelet can't find it any more, and its message is its own


@dataclass(frozen=True)
class Ending:
    """How far a pod got; all fields are empty while nothing is known."""

    pod: str = ""
    node: str = ""
    image: str = ""
    exit_code: int | None = None
    container_reason: str = ""  # why the container ended, in the kubelet's word
    waiting_reason: str = ""  # why it did not even start
    pod_reason: str = ""
    disruption: str = ""  # the reason of DisruptionTarget
    message: str = ""
    log_tail: str = ""
    report: RunReport | None = None

    @property
    def failure(self) -> FailureReport | None:
        """What the trainer says of its failure."""
        return self.report.failure if self.report else None

    @property
    def finished(self) -> bool:
        """Whether the trainer says that it did everything asked of it."""
        return self.report is not None and self.report.outcome not in (None, Outcome.FAILED)

    @property
    def resumed_from_epoch(self) -> int | None:
        """The epoch the pod began at, if it did not begin at zero."""
        return self.report.resumed_from_epoch if self.report else None


def read_ending(pod: Object | None, live: RunReport | None, attempt: int) -> Ending:
    """Return what is known of an attempt's pod: its last word if it had one, else its newest live report."""
    if pod is None:
        return Ending(report=live)
    status = pod.get("status", {})
    container, state = _container_status(status), trainer_state(status)
    terminated = state.get("terminated") or {}
    text = "" if terminated.get("reason") == LOST_CONTAINER else terminated.get("message", "")
    word = parse_report(text)
    disruption = find_disruption(status)
    return Ending(
        pod=pod["metadata"]["name"],
        node=pod["spec"].get("nodeName", ""),
        image=(container.get("imageID") or container.get("image", ""))[:IMAGE_CHARACTERS],
        exit_code=terminated.get("exitCode"),
        container_reason=terminated.get("reason", ""),
        waiting_reason=(state.get("waiting") or {}).get("reason", ""),
        pod_reason=status.get("reason", ""),
        disruption=disruption.get("reason") or ("Unknown" if disruption else ""),
        message=status.get("message") or disruption.get("message") or _in_words(disruption, terminated),
        log_tail="" if word else text[-LOG_TAIL_CHARACTERS:],
        # The word of another attempt, in whatever way it came here, says nothing about this one.
        report=word if word and word.attempt == attempt else live,
    )


def _in_words(disruption: Object, terminated: Object) -> str:
    """Return what the cluster says of an end in one word, as a sentence."""
    if disruption:
        return f"the cluster took the pod away: {disruption.get('reason') or 'it says not why'}"
    reason: str = terminated.get("reason", "")
    words = {
        "Error": "",
        "OOMKilled": "OOMKilled: the container used more memory than its limit, or than the node had left",
    }
    return words.get(reason, reason)


def read_container(pod: Object) -> tuple[str, str, RunReport | None]:
    """Return when a pod's container began and ended, as far as its node says so, and its last word."""
    state = _container_status(pod.get("status", {})).get("state", {})
    ended = state.get("terminated") or {}
    began = ended or state.get("running") or {}
    times = began.get("startedAt") or "", ended.get("finishedAt") or ""
    return *times, parse_report(ended.get("message") or "")


def read_live(status: Object, attempt: int, group: StageGroup | None = None) -> RunReport | None:
    """Return what the pod of an attempt reported in the run's status; what can't be read is no report.

    The API server checks it by the schema it has, which may be another version's: that must not keep the
    operator from anything, least of all from stopping the pod.
    """
    live = status.get("trainer") or {}
    if live.get("attempt") != attempt or live.get("group") != group:
        return None
    try:
        return RunReport.model_validate(live)
    except ValidationError:
        return None


def parse_report(text: str) -> RunReport | None:
    """Return the report in a termination message; one that ends in the log's tail holds none."""
    if not text.startswith("{"):
        return None
    try:
        return RunReport.model_validate_json(text)
    except ValidationError:
        return None


def describe_waiting(pod: Object) -> str:
    """Return why a pod does not run yet, or nothing if there is no reason to tell."""
    status = pod.get("status", {})
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"not scheduled: {condition.get('message') or condition.get('reason', '')}"
    waiting = trainer_state(status).get("waiting")
    if waiting and waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
        return f"{waiting['reason']}: {waiting.get('message', '')}"
    return ""


def trainer_state(status: Object) -> Object:
    """Return the state of a pod's trainer: waiting, running or terminated; nothing before there is one."""
    state: Object = _container_status(status).get("state", {})
    return state


def _container_status(status: Object) -> Object:
    for candidate in status.get("containerStatuses", ()):
        if candidate["name"] == TRAINER_CONTAINER:
            found: Object = candidate
            return found
    return {}


def find_disruption(status: Object, reason: str = "") -> Object:
    """Return the condition that says why the cluster took a pod away (for this reason), if it did."""
    for condition in status.get("conditions", ()):
        taken = condition["type"] == "DisruptionTarget" and condition["status"] == "True"
        if taken and reason in ("", condition.get("reason")):
            found: Object = condition
            return found
    return {}
