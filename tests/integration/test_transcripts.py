"""What `kubectl get` and `kubectl describe` show of runs in many states, compared with committed transcripts.

After a change of what is shown `make transcripts` writes them anew: read the difference before committing it.
"""

from __future__ import annotations

import os
import re
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from installation import Kubectl, find_kubectl
from operator_process import OperatorProcess
from run_bench import Bench
from run_states import STATES, gpu_nodes

if TYPE_CHECKING:
    from kubernetes import client

    from trainwright_devstack.controlplane import ControlPlane

TRANSCRIPTS = Path(__file__).resolve().parents[1] / "testdata/transcripts"
NAME = "parts-41"
SETTLED_SECONDS = 0.7  # nothing has changed for so long: the Events of a transition come after its status

EVENTS = "\nEvents:\n"
VOLATILE = (
    (r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "<time>"),
    (r"\b20\d\d-\d\d-\d\d-[0-9a-f]{8}\b", "<version>"),
    (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "<uid>"),
    (r"sha256:[0-9a-f]{64}", "sha256:<digest>"),
    (r"(Resource Version: +)\d+", r"\1<version>"),
    (r"(parts-41-\d+(?:-[a-z]+)?)-[a-z0-9]{5}\b", r"\1-<pod>"),
    (r"test-[0-9a-f]{8}", "ml"),
    # What ends here took a moment: only what a test says to have taken its time is told in full.
    (r"((?:Seconds|Useful|Lost To [A-Z]\w+): +)(?!60$|120$)\d+(\.\d+)?$", r"\1<some>"),
)
"""What differs from one time to the next, and what is shown in its place."""
OPERATOR_SETTINGS = {"retryBackoffSeconds": 4}  # long enough to be seen waiting


@pytest.fixture(scope="module")
def kubectl_here(assets: Path, control_plane: ControlPlane) -> Kubectl:
    return find_kubectl(assets, control_plane)


@pytest.mark.parametrize("state", STATES)
def test_a_run_tells_what_it_is_doing_and_why(
    state: str, operator: OperatorProcess, kube: client.ApiClient, namespace: str, kubectl_here: Kubectl
) -> None:
    assert operator.log.exists()
    bench = Bench(kube, namespace)
    with gpu_nodes(bench):
        STATES[state](bench, NAME)
        shown = _settle(kubectl_here, namespace)
    path = TRANSCRIPTS / f"{state}.txt"
    if os.environ.get("WRITE_TRANSCRIPTS"):
        path.write_text(shown)
    committed = path.read_text()
    # An event comes after its status, or not at all: they are shown for people, and not compared.
    assert shown.partition(EVENTS)[0] == committed.partition(EVENTS)[0], "see `make transcripts`"
    assert (EVENTS in shown) == (EVENTS in committed)


def test_every_transcript_is_of_a_state_there_is() -> None:
    assert {path.stem for path in TRANSCRIPTS.glob("*.txt")} == set(STATES)


def _settle(kubectl: Kubectl, namespace: str) -> str:
    """Return what is shown once it does not change any more."""
    shown, since = _show(kubectl, namespace), time.monotonic()
    while time.monotonic() - since < SETTLED_SECONDS:
        time.sleep(0.1)
        if (now := _show(kubectl, namespace)) != shown:
            shown, since = now, time.monotonic()
    return shown


def _show(kubectl: Kubectl, namespace: str) -> str:
    parts = []
    for command in ("get trun", "get trun -o wide", f"describe trun {NAME}"):
        printed = kubectl.succeed(*command.split(), "--namespace", namespace)
        printed = _hide_ages(printed) if command.startswith("get") else _hide_event_ages(printed)
        parts.append(f"$ kubectl {command}\n{printed}")
    text = "\n".join(parts)
    for pattern, shown in VOLATILE:
        text = re.sub(pattern, shown, text, flags=re.MULTILINE)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def _hide_ages(table: str) -> str:
    """Set columns by what is in them, but for the age: one of 9 s and one of 10 s are shown alike."""
    header, *rows = table.splitlines()
    starts = [match.start() for match in re.finditer(r"(?<!\S)\S", header)]
    cells = [
        [line[start:end].strip() for start, end in pairwise([*starts, None])] for line in (header, *rows)
    ]
    age = cells[0].index("AGE")
    gpu_seconds = cells[0].index("GPU-SECONDS") if "GPU-SECONDS" in cells[0] else None
    for row in cells[1:]:
        row[age] = "<age>"
        if gpu_seconds and row[gpu_seconds] not in ("", "0", "60", "120"):
            row[gpu_seconds] = "<some>"
    widths = [max(map(len, column)) + 3 for column in zip(*cells, strict=True)]
    lines = ("".join(map(str.ljust, row, widths)) for row in cells)
    return "\n".join(lines) + "\n"


def _hide_event_ages(text: str) -> str:
    """Put events into the order of their texts: those of one second are shown in any."""
    text, _, events = text.partition("\nEvents:\n")
    if not events:
        return text
    heading, _, *lines = (re.split(r" {2,}", line.strip(), maxsplit=4) for line in events.splitlines())
    told = sorted(f"  {type_}  {reason}  {message}" for type_, reason, _, _, message in lines)
    return "\n".join([text, "Events:", f"  {heading[0]}  {heading[1]}  {heading[4]}", *told]) + "\n"
