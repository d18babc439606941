"""Which of several operators acts: the holder of a Lease.

Everybody measures with a clock of its own: a holder gives up a third of the Lease's duration before anybody
else may take it, counted from before its last renewal was sent; who waits counts from when it saw that one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from trainwright_operator.cluster import LEASES, ApiError, Cluster
from trainwright_operator.names import LEASE_NAME

Object = dict[str, Any]

logger = logging.getLogger(__name__)

KEPT = 2 / 3  # of its duration, after which a Lease that could not be renewed is given up
RENEWALS = 6  # in one duration
LOOKS = 12  # in one duration, of who waits
CONFLICT = 409


@dataclass(frozen=True)
class Identity:
    """Who an operator is: its pod's name, and the namespace that has its Lease.

    A container that the kubelet starts again has its predecessor's name, and takes its Lease at once.
    """

    name: str
    namespace: str


class Leadership:
    """One operator's part in holding the Lease."""

    def __init__(self, cluster: Cluster, identity: Identity, seconds: float) -> None:
        self._cluster = cluster
        self._identity = identity
        self._seconds = seconds
        self._lease: Object | None = None
        self._seen: tuple[str, float] = ("", 0.0)  # the version of another's Lease, and since when it is that
        self._ends = float("-inf")

    @property
    def leads(self) -> bool:
        """Whether this operator may act: nobody else can have taken the Lease yet."""
        return time.monotonic() < self._ends

    async def acquire(self) -> None:
        """Return when the Lease is ours."""
        while not await self._try(self._take):
            await asyncio.sleep(self._seconds / LOOKS)
        logger.info("leading as %s", self._identity.name)

    async def keep(self) -> None:
        """Renew the Lease; return when it could not be renewed in time, or somebody else has it."""
        while self.leads:
            await asyncio.sleep(min(self._seconds / RENEWALS, self._ends - time.monotonic()))
            if self.leads and not await self._try(self._renew) and self._lease is None:
                break
        self._ends = float("-inf")
        logger.warning("not leading any more: the Lease was not renewed in time, or is somebody else's")

    async def release(self) -> None:
        """Let another operator have the Lease at once, if it is ours."""
        if self._lease is None or not self.leads:
            return
        self._ends = float("-inf")
        spec = self._lease["spec"] | {"holderIdentity": None, "renewTime": _now()}
        try:
            async with asyncio.timeout(self._seconds / RENEWALS):
                await self._cluster.replace(self._lease | {"spec": spec})
        except (ApiError, TimeoutError) as error:
            logger.warning("the Lease was not released, and lasts a little longer: %s", error)

    async def _try(self, step: Callable[[], Awaitable[Object | None]]) -> bool:
        """Take one step in time; the Lease is ours from before it on."""
        begun = time.monotonic()
        left = self._ends - begun if self.leads else self._seconds * KEPT
        try:
            async with asyncio.timeout(left):
                self._lease = await step()
        except (ApiError, TimeoutError) as error:
            logger.warning("the Lease can't be read or written: %s", error or "no answer in time")
            return False
        if self._lease is None:
            return False
        self._ends = begun + self._seconds * KEPT
        return True

    async def _take(self) -> Object | None:
        """Make the Lease, or take it over where its holder is gone."""
        found = await self._cluster.get(LEASES, self._identity.namespace, LEASE_NAME)
        if found is None:
            metadata = {"name": LEASE_NAME, "namespace": self._identity.namespace}
            body = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": metadata}
            return await self._cluster.create(body | {"spec": self._begun({})})
        if not self._is_free(found):
            return None
        return await self._cluster.replace(found | {"spec": self._begun(found["spec"])})

    def _is_free(self, lease: Object) -> bool:
        holder, version = lease["spec"].get("holderIdentity"), lease["metadata"]["resourceVersion"]
        if not holder or holder == self._identity.name:
            return True
        if self._seen[0] != version:
            self._seen = version, time.monotonic()
        lasts = max(self._seconds, lease["spec"].get("leaseDurationSeconds") or 0)
        return time.monotonic() - self._seen[1] > lasts

    async def _renew(self) -> Object | None:
        """Write that we are still there; None where the Lease is somebody else's."""
        lease = self._lease
        try:
            return lease and await self._cluster.replace(lease | {"spec": self._renewed(lease["spec"])})
        except ApiError as error:
            if error.status != CONFLICT:
                raise
        # An earlier renewal may have arrived though its answer did not.
        found = await self._cluster.get(LEASES, self._identity.namespace, LEASE_NAME)
        if lease is None or found is None or _tenure(found) != _tenure(lease):
            return None
        return await self._cluster.replace(found | {"spec": self._renewed(found["spec"])})

    def _renewed(self, spec: Object) -> Object:
        return spec | {"leaseDurationSeconds": max(1, round(self._seconds)), "renewTime": _now()}

    def _begun(self, before: Object) -> Object:
        """Return the Lease's specification with us as its holder from now on."""
        begun = {
            "holderIdentity": self._identity.name,
            "acquireTime": _now(),
            "leaseTransitions": before.get("leaseTransitions", -1) + 1,
        }
        return self._renewed(before | begun)


def _tenure(lease: Object) -> tuple[str | None, str | None]:
    """Return whose Lease it is, and since when: a name alone may be that of a predecessor."""
    return lease["spec"].get("holderIdentity"), lease["spec"].get("acquireTime")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
