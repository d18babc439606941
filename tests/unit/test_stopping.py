"""A process that is asked to stop ends within its grace period, with a last word, whatever it is doing."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Event

from annotation_trees import plan_of

from trainwright.contract import Cause, ExitCode, Outcome, Stage
from trainwright_trainer.observers import Moment
from trainwright_trainer.progress import RunProgress
from trainwright_trainer.stopping import LastReport

PROGRAM = """
import os, sys, time
from pathlib import Path
from trainwright_trainer.stopping import StopRequest

def last_word():
    Path(sys.argv[1]).write_text("asked to stop")

with StopRequest(1.5, last_word) as request:
    child = os.fork() if sys.argv[2] == "parent" else None
    if child == 0:
        time.sleep(30)
        os._exit(0)
    print(child, flush=True)
    if sys.argv[2] == "polite":
        request.stop.wait(30)
        sys.exit(76)
    if sys.argv[2] == "parent":
        os.waitpid(child, 0)
        print("stopped" if request.stop.wait(0.5) else "goes on", flush=True)
        sys.exit(0)
    time.sleep(30)
"""


def start(message: Path, kind: str) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(message), kind], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_what_does_not_end_by_itself_is_ended_in_time_with_a_last_word(tmp_path: Path) -> None:
    process, _ = start(tmp_path / "message", "deaf")
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    process.communicate(timeout=20)
    assert process.returncode == ExitCode.PREEMPTED
    assert time.monotonic() - began > 0.9  # the execution had its time
    assert (tmp_path / "message").read_text() == "asked to stop"


def test_what_ends_by_itself_is_left_alone(tmp_path: Path) -> None:
    process, _ = start(tmp_path / "message", "polite")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == ExitCode.PREEMPTED
    assert not (tmp_path / "message").exists()


def test_a_loader_process_that_is_ended_does_not_stop_its_parent(tmp_path: Path) -> None:
    process, child = start(tmp_path / "message", "parent")
    time.sleep(0.2)
    subprocess.run(["kill", "-TERM", child], check=True)
    output, _ = process.communicate(timeout=20)
    assert output.strip() == "goes on"


def test_the_last_word_is_the_newest_report_as_that_of_a_stopped_execution() -> None:
    newest = LastReport()
    assert newest.preempted() is None
    progress = RunProgress(plan_of({"source": {"sample": {}}}), newest, attempt=2, stop=Event())
    progress.begin(Stage.DATASET)
    report = newest.preempted()
    assert report is not None
    assert report.failure is not None
    assert (report.outcome, report.failure.cause) == (Outcome.FAILED, Cause.PREEMPTED)
    assert (report.attempt, report.failure.stage) == (2, Stage.DATASET)
    newest.observe(report, Moment.END)
    assert newest.preempted() is report
