"""Real volumes that are too small, or can't be written to: for tests that may mount."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prerequisites import require


@contextmanager
def small_volume(folder: Path, kibibytes: int) -> Iterator[Path]:
    """Yield an empty volume of this size."""
    folder.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Make a folder read-only as a mount does: for root too."""
    _mount("--bind", str(folder), str(folder))
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def filled(volume: Path, *, leaving: int) -> Iterator[None]:
    """Fill a volume up to so many bytes; the room is back afterwards."""
    filler = volume / "filler"
    status = os.statvfs(volume)
    filler.write_bytes(bytes(max(status.f_bavail * status.f_frsize - leaving, 0)))
    try:
        yield
    finally:
        filler.unlink()


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    require(done.returncode == 0, f"needs the right to mount (root): {done.stderr.strip()}")
