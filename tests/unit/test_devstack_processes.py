"""Programs under a guard: how they end, and that they do not outlive their owner."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainwright_devstack.processes import Process, ProcessError, stop_below, tail


def start(folder: Path, script: str, **options: bool) -> Process:
    return Process(folder).start(["sh", "-c", script], directory=folder.parent, **options)


def test_the_exit_code_is_kept_for_whoever_asks_later(tmp_path: Path) -> None:
    start(tmp_path / "p", "exit 7").wait(5)
    ended = Process(tmp_path / "p").ended()
    assert ended
    assert ended.code == 7


def test_a_signal_counts_as_128_and_its_number(tmp_path: Path) -> None:
    process = start(tmp_path / "p", "kill -9 $$")
    process.wait(5)
    ended = process.ended()
    assert ended
    assert ended.code == 137


def test_a_program_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    process = Process(tmp_path / "p").start(["no-such-program"], directory=tmp_path)
    with pytest.raises(ProcessError, match=r"no-such-program: No such file"):
        process.require_alive("it")


def test_stopping_is_polite_first(tmp_path: Path) -> None:
    process = start(tmp_path / "p", "trap 'echo bye; exit 0' TERM; echo up; while true; do sleep 0.05; done")
    deadline = time.monotonic() + 5
    while "up" not in process.log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.stop()
    assert process.log.read_text() == "up\nbye\n"


def test_stopping_does_not_wait_for_ever(tmp_path: Path) -> None:
    process = start(tmp_path / "p", "trap '' TERM; while true; do sleep 0.05; done")
    process.stop(grace=0.2)
    assert not process.alive()


def test_programs_end_with_their_owner(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from trainwright_devstack.processes import Process;"
        "Process(pathlib.Path(sys.argv[1])).start(['sleep', '300'], directory=pathlib.Path('/'))"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path / "p"], check=True)
    assert Process(tmp_path / "p").wait(5)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has subreapers")
def test_a_contained_program_takes_its_daemons_with_it(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    start(tmp_path / "p", f"setsid sleep 300 & echo $! > {pid_file}", contain=True).wait(5)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


def test_everything_below_a_folder_is_found_by_its_records(tmp_path: Path) -> None:
    for name in ("a", "b/c"):
        start(tmp_path / name, "sleep 300")
    assert stop_below(tmp_path) == 2
    assert stop_below(tmp_path) == 0


def test_a_record_of_an_earlier_boot_is_not_taken_for_a_process(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p/process.json").write_text(f'{{"pid": {os.getpid()}, "guard": 1, "startedAt": ""}}')
    (tmp_path / "p/lock").touch()
    Process(tmp_path / "p").stop()  # were the id believed, this test would be ended here
    assert stop_below(tmp_path) == 0


def test_the_end_of_a_log_keeps_its_line_ends(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a\nb\nc\n")
    assert tail(tmp_path / "log", lines=2) == "b\nc\n"
    assert tail(tmp_path / "none", lines=2) == ""
