"""Doubts whether a run stands still: its reports may be on their way, or the API server was away for all.

A run is believed to stand still when the API server says so twice, with time between for a report to come in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from trainwright.contract import Cause
from trainwright_operator.cluster import RUNS, Cluster
from trainwright_operator.deadlines import Limit

Object = dict[str, Any]

LONGEST_PAUSE = timedelta(seconds=60)  # a trainer that makes steps reports them every 30 s


@dataclass
class Doubts:
    """Since when each run is seen to stand still; an operator that starts anew has no doubts yet."""

    cluster: Cluster
    _since: dict[str, datetime] = field(default_factory=dict)

    async def weigh(self, run: Object, limits: list[Limit], stalled: timedelta, now: datetime) -> list[Limit]:
        """Return the limits; a standstill that nobody has confirmed yet is due a little later."""
        uid = run["metadata"]["uid"]
        found = next((each for each in limits if each.overrun.cause is Cause.HANG and each.due <= now), None)
        if found is None:
            self._since.pop(uid, None)
            return limits
        pause = min(stalled, LONGEST_PAUSE)
        since = self._since.get(uid)
        if since is not None and now < since + pause:
            return [found._replace(due=since + pause) if each is found else each for each in limits]
        if await self._has_moved(run):
            self._since.pop(uid, None)
        elif since is not None:
            return limits
        else:
            self._since[uid] = now
        return [found._replace(due=now + pause) if each is found else each for each in limits]

    async def _has_moved(self, run: Object) -> bool:
        metadata = run["metadata"]
        fresh = await self.cluster.get(RUNS, metadata["namespace"], metadata["name"])
        return fresh is None or _step_time(fresh) != _step_time(run)


def _step_time(run: Object) -> Any:
    return run.get("status", {}).get("trainer", {}).get("progress", {}).get("stepTime")
