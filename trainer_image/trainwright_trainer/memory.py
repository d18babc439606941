"""How much memory this process may still take: the container's limit counts, not the machine's."""

from __future__ import annotations

from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def available_memory() -> int:
    """Return the bytes left on the machine, or up to the tightest limit around this process."""
    return min([int(psutil.virtual_memory().available), *_left_in_groups()])


def _left_in_groups() -> list[int]:
    """Return what is left in each control group around us that has a limit; version 2 or 1."""
    try:
        lines = _OWN.read_text(encoding="ascii").splitlines()
    except OSError:
        return []
    left = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, limit, used, dispensable = CGROUPS, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root, limit = CGROUPS / "memory", "memory.limit_in_bytes"
            used, dispensable = "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        own = root / path.lstrip("/")
        for group in [folder for folder in (own, *own.parents) if folder.is_relative_to(root)]:
            room = _room(group, limit, used, dispensable)
            left += [] if room is None else [room]
    return left


def _room(group: Path, limit: str, used: str, dispensable: str) -> int | None:
    """Return what is left below a group's limit; pages of files that nobody waits for make room."""
    try:
        most = int((group / limit).read_text(encoding="ascii"))
        taken = int((group / used).read_text(encoding="ascii"))
        lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):  # no such group here, or its limit is "max"
        return None
    reclaimable = next((int(line.split()[1]) for line in lines if line.startswith(f"{dispensable} ")), 0)
    return max(most - taken + reclaimable, 0)
