"""A workspace has one execution at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from annotation_trees import folder_plan, write_tree

from trainwright.contract import ExitCode
from trainwright.errors import StorageError
from trainwright_trainer.pipeline import execute
from trainwright_trainer.places import Places

# A process that has the workspace, and a child of it that was forked meanwhile and outlives it.
HOLDER = """
import os, sys, time
from pathlib import Path
from trainwright_trainer.workspace_lock import lock_workspace
with lock_workspace(Path(sys.argv[1])):
    if os.fork() == 0:
        sys.stdin.read()
        os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_execution_is_refused_until_the_first_one_is_gone(tmp_path: Path) -> None:
    places = Places(tmp_path / "work", data=write_tree(tmp_path / "source"))
    places.workspace.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, places.workspace], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StorageError, match="in use by another process") as refused:
            execute(folder_plan(), places)
        assert refused.value.exit_code == ExitCode.STORAGE
        assert "another workspace" in refused.value.hint
        assert not (places.workspace / "dataset").exists()
        holder.kill()
        holder.wait()
        assert execute(folder_plan(), places).report.outcome == "DryRun"
