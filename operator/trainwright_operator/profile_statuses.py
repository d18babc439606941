"""Writes the status of profiles: every few seconds what has changed, however many runs come and go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from trainwright_operator.basis import KINDS_OF_PROFILES
from trainwright_operator.catalogue import ProfileKey
from trainwright_operator.cluster import ApiError, Cluster, NotLeadingError
from trainwright_operator.packed import profile_word
from trainwright_operator.profiles import count_runs, describe_profile, judge_profile
from trainwright_operator.settings import OperatorSettings
from trainwright_operator.snapshot import find_reference, kind_of
from trainwright_operator.store import Store

Object = dict[str, Any]

PAUSE_SECONDS = 5.0  # between two writes to one profile: a burst of runs is one

logger = logging.getLogger(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


class ProfileStatuses:
    """Keeps what profiles tell of themselves up to date."""

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        settings: OperatorSettings,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._settings = settings
        self._clock = clock
        self._judged: dict[ProfileKey, tuple[tuple[str, int], tuple[str, ...]]] = {}
        default = find_reference(settings, {"spec": {}})
        self._default = profile_word(kind_of(default), default.name) if default else None

    async def run(self) -> None:
        """Write what has changed, until cancelled."""
        while True:
            try:
                await self.write()
            except (ApiError, NotLeadingError) as error:
                logger.warning("the status of profiles can't be written: %s", error)
            await asyncio.sleep(PAUSE_SECONDS)

    async def write(self) -> None:
        """Write the status of each profile that says anything new."""
        profiles = list(self._store.profiles)
        users = self._store.count_users(self._default) if profiles else {}
        for key, item in profiles:
            status = describe_profile(item, self._judge(key, item), count_runs(key, users), self._clock())
            if status == item.get("status"):
                continue
            written = await self._cluster.apply_status(item, status, KINDS_OF_PROFILES[key.kind])
            self._store.profiles.keep(written)

    def _judge(self, key: ProfileKey, item: Object) -> tuple[str, ...]:
        state = item["metadata"]["uid"], item["metadata"].get("generation", 0)
        known = self._judged.get(key)
        if known is None or known[0] != state:
            known = self._judged[key] = state, judge_profile(key, item, self._settings)
        return known[1]
