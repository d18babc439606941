"""Training without a network, where only the workspace can be written to: all it needs is in the image."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from prerequisites import require
from training_program import Program, tiny_plan

from trainwright.contract import ExitCode, Outcome

CONFINE = """
set -e
mount --make-rprivate /
mount --bind "$0" "$0"
mount -o remount,bind,ro /
export TMPDIR="$0/tmp" MPLCONFIGDIR="$0/tmp"
exec "$@"
"""
"""Makes the root of a mount namespace read-only but for one folder, with one for temporary files."""


@pytest.fixture
def confined_by(tmp_path: Path) -> tuple[str, ...]:
    """What starts a program without a network, in a read-only file system but for the test's folder."""
    (tmp_path / "tmp").mkdir()
    command = ("unshare", "--map-root-user", "--net", "--mount", "bash", "-c", CONFINE, str(tmp_path))
    tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    require(tried.returncode == 0, f"needs the right to make namespaces: {tried.stderr.strip()}")
    return command


@pytest.mark.parametrize(
    ("attempted", "refusal"),
    [
        ("echo > /var/tmp/trainwright-was-here", "Read-only file system"),
        ("echo > ~/trainwright-was-here", "Read-only file system"),
        ("echo > /dev/tcp/127.0.0.1/80", "Network is unreachable"),
        ("echo > /dev/tcp/192.0.2.1/80", "Network is unreachable"),
    ],
)
def test_the_confinement_confines(confined_by: tuple[str, ...], attempted: str, refusal: str) -> None:
    tried = subprocess.run(
        [*confined_by, "bash", "-c", attempted], capture_output=True, text=True, check=False
    )
    assert tried.returncode != 0
    assert refusal in tried.stderr


def test_a_run_needs_no_network_and_writes_to_its_workspace_only(
    confined_by: tuple[str, ...], tmp_path: Path
) -> None:
    program = Program(tmp_path, tiny_plan(), confined_by)
    code, output = program.run()
    assert code == ExitCode.SUCCESS, output
    assert program.report().outcome is Outcome.SUCCEEDED
    assert not (tmp_path / "network").exists(), "it asked for a name, or for a connection"
    assert "pip install" not in output
    assert (program.workspace / "training" / "history.csv").is_file()
