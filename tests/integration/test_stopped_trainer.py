"""SIGTERM in any stage: the trainer ends with a code of its own, and the next attempt goes on there."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from training_program import Program, tiny_plan

from trainwright.contract import Cause, ExitCode, Outcome, RunReport, Stage

STAGES = (Stage.DATASET, Stage.EVALUATION, Stage.EXPORT)  # test_pipeline stops a training
GRACE_SECONDS = 60


@dataclass
class Stopped:
    """An execution that was stopped in these stages, one attempt after the other, and then left alone."""

    seconds: list[float] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    reports: list[RunReport] = field(default_factory=list)
    finished: str = ""


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    program = Program(tmp_path_factory.mktemp("stopped"), tiny_plan())
    found = Stopped()
    for attempt, stage in enumerate(STAGES, start=1):
        process = program.start(attempt, "--grace-seconds", str(GRACE_SECONDS))
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line).get("stage") == stage:
                break
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        process.communicate(timeout=GRACE_SECONDS + 30)
        found.seconds.append(time.monotonic() - began)
        found.codes.append(process.returncode)
        found.reports.append(program.report(attempt))
    code, found.finished = program.run(len(STAGES) + 1)
    found.codes.append(code)
    found.reports.append(program.report(len(STAGES) + 1))
    return found


def test_each_stage_ends_with_the_code_of_a_stop_within_the_grace_period(stopped: Stopped) -> None:
    assert stopped.codes == [ExitCode.PREEMPTED] * len(STAGES) + [ExitCode.SUCCESS]
    assert max(stopped.seconds) < GRACE_SECONDS


def test_the_last_word_says_that_it_was_stopped_and_where(stopped: Stopped) -> None:
    for stage, report in zip(STAGES, stopped.reports, strict=False):
        assert report.outcome is Outcome.FAILED
        assert report.failure is not None
        assert report.failure.cause is Cause.PREEMPTED
        assert report.failure.stage is not None
        order = list(Stage)
        # A signal that comes as a stage ends is heeded where the next one begins.
        assert order.index(report.failure.stage) - order.index(stage) in {0, 1}


def test_what_was_done_is_not_done_again(stopped: Stopped) -> None:
    events = [json.loads(line) for line in stopped.finished.splitlines()]
    assert [event for event in events if event.get("event") == "epoch"] == []
    assert stopped.reports[-1].outcome is Outcome.SUCCEEDED


def test_a_library_that_can_not_be_asked_does_not_outlast_the_grace_period(tmp_path: Path) -> None:
    program = Program(tmp_path, tiny_plan(epochs=50))
    process = program.start(1, "--grace-seconds", "9")
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line).get("stage") == Stage.TRAINING:
            break  # now Ultralytics is imported and builds its model
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    process.communicate(timeout=60)
    assert process.returncode == ExitCode.PREEMPTED
    assert time.monotonic() - began < 9 + 4  # where the API server takes the last report at once, 9
    report = program.report(1)
    assert report.checkpoint is None
    assert report.failure is not None
    assert report.failure.cause is Cause.PREEMPTED
