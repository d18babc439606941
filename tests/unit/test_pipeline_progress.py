"""The report grows as the execution does, and never claims too much."""

from __future__ import annotations

import io
import json
import logging
from datetime import UTC, datetime
from threading import Event

import pytest
from annotation_trees import plan_of
from rich.console import Console

from trainwright.contract import Cause, CheckpointReport, ExitCode, Outcome, RunReport, Stage
from trainwright.errors import (
    CudaOutOfMemoryError,
    DataError,
    HostOutOfMemoryError,
    PreemptedError,
    SharedMemoryError,
    StepError,
    StorageError,
)
from trainwright_trainer.failures import LogTail, describe_failure, to_step_error
from trainwright_trainer.files import digest_bytes
from trainwright_trainer.observers import LogObserver, Moment, Observers, TerminalObserver
from trainwright_trainer.progress import RunProgress

SAMPLE = {"source": {"sample": {}}}


class Recorder:
    """Keeps every report it is told of."""

    def __init__(self) -> None:
        self.seen: list[tuple[RunReport, Moment]] = []

    def observe(self, report: RunReport, moment: Moment) -> None:
        self.seen.append((report, moment))


def walk(progress: RunProgress, stages: tuple[Stage, ...]) -> None:
    for stage in stages:
        progress.begin(stage)
        progress.advance(0.5)
        if stage is Stage.TRAINING:
            progress.finish_epoch(1, 2, {"mAP50": 0.25})
            progress.finish_epoch(2, 2, {"mAP50": 0.5})
        progress.finish(stage, 1.25)
    progress.end(Outcome.SUCCEEDED)


@pytest.mark.parametrize("dry_run", [False, True])
def test_percent_only_grows_and_is_a_hundred_at_the_end_only(dry_run: bool) -> None:
    plan, recorder = plan_of(SAMPLE, dryRun=dry_run), Recorder()
    walk(RunProgress(plan, recorder, attempt=1, stop=Event()), plan.stages)
    percents = [report.progress.percent for report, _ in recorder.seen]
    assert percents == sorted(percents)
    assert percents.count(100) == 1
    assert percents[-1] == 100
    sequences = [report.sequence for report, _ in recorder.seen]
    assert sequences == sorted(set(sequences))
    assert recorder.seen[-1][0].finished_stages == dict.fromkeys(plan.stages, 1.2)


def test_an_epoch_has_metrics_and_an_estimate() -> None:
    plan, recorder = plan_of(SAMPLE), Recorder()
    walk(RunProgress(plan, recorder, attempt=1, stop=Event()), plan.stages)
    epochs = [report for report, moment in recorder.seen if moment is Moment.EPOCH]
    assert [(report.progress.epoch, report.metrics["mAP50"]) for report in epochs] == [(1, 0.25), (2, 0.5)]
    assert epochs[-1].progress.estimated_remaining_seconds == 0


def test_a_batch_tells_where_the_training_is_and_when_it_may_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("trainwright_trainer.progress.time.monotonic", lambda: now)
    progress = RunProgress(plan_of(SAMPLE), Recorder(), attempt=2, stop=Event())
    progress.begin(Stage.TRAINING)
    progress.resume_from(2)

    def estimate(seconds: float, batch: int) -> int | None:
        nonlocal now
        now = 100 + seconds
        progress.train_batch(3, 10, batch, 50)
        return progress.report.progress.estimated_remaining_seconds

    assert estimate(3, 1) is None  # the first batches load and compile: they say little
    assert estimate(30, 25) == 450  # half an epoch in 30 s, seven and a half are left
    told = progress.report.progress
    assert (told.epoch, told.epochs, told.batch, told.batches) == (2, 10, 25, 50)
    progress.finish_epoch(3, 10, {})
    assert (progress.report.progress.epoch, progress.report.progress.batch) == (3, None)


def test_steps_only_grow_and_every_stage_makes_some() -> None:
    plan, recorder = plan_of(SAMPLE), Recorder()
    walk(RunProgress(plan, recorder, attempt=1, stop=Event()), plan.stages)
    progresses = [report.progress for report, _ in recorder.seen]
    steps = [progress.step for progress in progresses if progress.step is not None]
    assert steps == sorted(steps)
    assert len(set(steps)) == 3 * len(plan.stages) + 2
    times = [progress.step_time for progress in progresses if progress.step_time is not None]
    assert times == sorted(times)
    for stage in plan.stages:
        assert len({progress.step for progress in progresses if progress.stage is stage}) >= 3


def checkpoint_of(epoch: int) -> CheckpointReport:
    return CheckpointReport(
        epoch=epoch, time=datetime.now(UTC), save_seconds=2, digest=digest_bytes(str(epoch).encode())
    )


def test_a_reported_checkpoint_names_those_before_it_and_what_the_store_has() -> None:
    progress = RunProgress(plan_of(SAMPLE), Recorder(), attempt=2, stop=Event())
    progress.recall_checkpoint(checkpoint_of(1))
    for epoch in range(2, 9):
        progress.keep_checkpoint(checkpoint_of(epoch))
    progress.store_checkpoint(7, 5.0, "")
    progress.store_checkpoint(None, 0, "x" * 1000)
    progress.keep_checkpoint(checkpoint_of(9))
    newest = progress.report.checkpoint
    assert newest is not None
    assert (newest.epoch, newest.stored_epoch, newest.save_seconds) == (9, 7, 7.0)
    assert newest.earlier == tuple(checkpoint_of(epoch).digest for epoch in (8, 7, 6, 5, 4))
    assert len(newest.problem) == 256
    progress.store_checkpoint(9, 3.0, "")
    newest = progress.report.checkpoint
    assert newest is not None
    assert (newest.stored_epoch, newest.save_seconds, newest.problem) == (9, 5.0, "")
    assert len(progress.report.to_json().encode()) < 2048


def test_a_stop_ends_the_next_call() -> None:
    stop = Event()
    progress = RunProgress(plan_of(SAMPLE), Recorder(), attempt=1, stop=stop)
    progress.begin(Stage.DATASET)
    stop.set()
    with pytest.raises(PreemptedError, match="stage Dataset"):
        progress.advance(0.1)


def test_an_observer_that_fails_is_left_out_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def observe(self, report: RunReport, moment: Moment) -> None:
            raise RuntimeError("broken pipe")

    plan, recorder = plan_of(SAMPLE), Recorder()
    walk(RunProgress(plan, Observers([Broken(), recorder]), attempt=1, stop=Event()), plan.stages)
    assert recorder.seen[-1][1] is Moment.END
    assert caplog.text.count("Broken failed") == 1


def test_the_log_has_a_line_per_stage_and_epoch_but_none_per_step() -> None:
    plan, stream = plan_of(SAMPLE), io.StringIO()
    walk(RunProgress(plan, LogObserver(stream), attempt=1, stop=Event()), plan.stages)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines].count("epoch") == 2
    assert len(lines) == 2 * len(plan.stages) + 2 + 1
    assert lines[-1]["outcome"] == "Succeeded"


def test_the_terminal_shows_stage_epoch_and_metric() -> None:
    plan, stream = plan_of(SAMPLE), io.StringIO()
    with TerminalObserver(Console(file=stream, force_terminal=True, width=120)) as terminal:
        walk(RunProgress(plan, terminal, attempt=1, stop=Event()), plan.stages)
    shown = stream.getvalue()
    assert "Succeeded" in shown
    assert "mAP50 0.500" in shown


@pytest.mark.parametrize(
    ("error", "kind", "exit_code"),
    [
        (
            RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
            CudaOutOfMemoryError,
            ExitCode.CUDA_OOM,
        ),
        (MemoryError(), HostOutOfMemoryError, ExitCode.HOST_OOM),
        (OSError(12, "Cannot allocate memory"), HostOutOfMemoryError, ExitCode.HOST_OOM),
        (OSError(28, "No space left on device"), StorageError, ExitCode.STORAGE),
        (FileNotFoundError(2, "no such file"), StepError, ExitCode.INTERNAL),
        (ZeroDivisionError("x"), StepError, ExitCode.INTERNAL),
        (DataError("few"), DataError, ExitCode.DATA),
    ],
)
def test_every_exception_has_a_cause_an_exit_code_and_a_hint(
    error: Exception, kind: type[StepError], exit_code: ExitCode
) -> None:
    found = to_step_error(error)
    assert type(found) is kind
    assert found.exit_code == exit_code
    assert found.hint or found is error


KILLED = "DataLoader worker (pid 7) is killed by signal: Killed. "
BUS_ERROR = (
    "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are"
    " out of shared memory. Please try to raise your shared memory limit."
)
FULL = "unable to allocate shared memory(shm) for file </torch_7_1>: No space left on device (28)"


@pytest.mark.parametrize(
    ("text", "kind", "field"),
    [
        (KILLED, HostOutOfMemoryError, "compute.resources.limits.memory"),
        (BUS_ERROR, SharedMemoryError, "compute.sharedMemory"),
        (FULL, SharedMemoryError, "compute.sharedMemory"),
    ],
)
@pytest.mark.parametrize("seen", ["at once", "after a time-out"])
def test_a_killed_loader_process_is_out_of_memory(
    text: str, kind: type[StepError], field: str, seen: str
) -> None:
    error = RuntimeError(text)
    if seen == "after a time-out":  # torch then says only that the process is gone, and chains the signal
        error = RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")
        error.__cause__ = RuntimeError(text)
    found = to_step_error(error)
    assert type(found) is kind
    assert field in found.hint


def test_a_loader_process_that_ended_otherwise_is_not_out_of_memory() -> None:
    text = "DataLoader worker (pid 7) is killed by signal: Segmentation fault. "
    assert type(to_step_error(RuntimeError(text))) is StepError


def test_a_failure_with_a_long_log_fits_a_termination_message() -> None:
    with LogTail() as tail:
        for number in range(500):
            logging.getLogger("noise").warning("line %d %s", number, "é" * 200)
    failure = describe_failure(StepError("x" * 5000, hint="y" * 5000), Stage.TRAINING, tail.read())
    progress = RunProgress(plan_of(SAMPLE), Recorder(), attempt=1, stop=Event())
    progress.end(Outcome.FAILED, failure)
    text = progress.report.to_json()
    assert len(text.encode()) <= 4096
    read = RunReport.model_validate_json(text)
    assert read.failure is not None
    assert read.failure.cause is Cause.INTERNAL
    assert read.progress.percent < 100
