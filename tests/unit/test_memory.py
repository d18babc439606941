"""What is left of the memory: the tightest limit around the process counts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from trainwright_trainer import memory

GIB = 1024**3


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 64 GiB left, whose control groups are in a folder."""
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(available=64 * GIB))
    monkeypatch.setattr(memory, "CGROUPS", tmp_path)
    monkeypatch.setattr(memory, "_OWN", tmp_path / "own")
    return tmp_path


def limit(group: Path, limit: object, used: int, inactive: int, names: tuple[str, str, str]) -> None:
    group.mkdir(parents=True, exist_ok=True)
    (group / names[0]).write_text(f"{limit}\n")
    (group / names[1]).write_text(f"{used}\n")
    (group / "memory.stat").write_text(f"anon 1\n{names[2]} {inactive}\n")


VERSION_2 = ("memory.max", "memory.current", "inactive_file")
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def test_without_control_groups_the_machine_counts(machine: Path) -> None:
    assert memory.available_memory() == 64 * GIB


def test_in_a_container_its_limit_counts_and_pages_of_files_make_room(machine: Path) -> None:
    (machine / "own").write_text("0::/\n")
    limit(machine, 8 * GIB, 6 * GIB, 1 * GIB, VERSION_2)
    assert memory.available_memory() == 3 * GIB


def test_the_tightest_of_the_groups_around_counts(machine: Path) -> None:
    (machine / "own").write_text("0::/pods/parts/trainer\n")
    limit(machine / "pods/parts/trainer", "max", 1 * GIB, 0, VERSION_2)
    limit(machine / "pods/parts", 4 * GIB, 2 * GIB, 0, VERSION_2)
    limit(machine / "pods", 32 * GIB, 2 * GIB, 0, VERSION_2)
    assert memory.available_memory() == 2 * GIB


def test_version_1_is_understood(machine: Path) -> None:
    (machine / "own").write_text("5:cpu,cpuacct:/a\n4:memory:/a\n")
    limit(machine / "memory/a", 5 * GIB, 1 * GIB, 0, VERSION_1)
    limit(machine / "memory", 2**63 - 4096, 9 * GIB, 0, VERSION_1)
    assert memory.available_memory() == 4 * GIB
