"""Finds what a run is carried out with beside its spec: the snapshot it has, or today's profile."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from trainwright.contract import digest_of
from trainwright_operator.api import ProfileReference
from trainwright_operator.catalogue import Catalogue, ProfileKey, profile_key, read_profile
from trainwright_operator.cluster import CLUSTER_PROFILES, CONFIG_MAPS, PROFILES, Cluster, Kind
from trainwright_operator.names import CLUSTER_PROFILE_KIND, PROFILE_KIND, plan_name
from trainwright_operator.packed import controller_uid
from trainwright_operator.recently import Recently
from trainwright_operator.settings import OperatorSettings
from trainwright_operator.snapshot import (
    SNAPSHOT_KEY,
    Snapshot,
    choose_version,
    find_reference,
    kind_of,
    take_snapshot,
)

Object = dict[str, Any]

BELIEVED_SECONDS = 1.0  # a profile that was just asked for is not asked for again for each run of a burst
MOST_KNOWN = 1024  # versions of profiles; runs may name as many that do not exist as they like
KINDS_OF_PROFILES: dict[str, Kind] = {PROFILE_KIND: PROFILES, CLUSTER_PROFILE_KIND: CLUSTER_PROFILES}


@dataclass(frozen=True)
class Basis:
    """The snapshot a run is carried out with; with problems it may be read by, but not started with."""

    snapshot: Snapshot
    problems: tuple[str, ...] = ()
    kept: bool = False  # the run was started with it, whatever its profile is today


class BasisFinder:
    """Finds what a run is carried out with; asks the API server for little but today's profile."""

    def __init__(self, cluster: Cluster, settings: OperatorSettings, catalogue: Catalogue) -> None:
        self._cluster = cluster
        self._settings = settings
        self._catalogue = catalogue
        self._bare = take_snapshot(settings)
        self._today: dict[tuple[ProfileKey, str], tuple[tuple[str, int], Basis]] = {}
        self._asked = Recently(BELIEVED_SECONDS, time.monotonic)

    async def find(self, run: Object) -> Basis:
        """Return the basis a run was started with; those of today for one that was not."""
        written = ((run.get("status") or {}).get("profile") or {}).get("digest")
        if not written:
            return await self._ask(run)
        kept = self._catalogue.snapshot(written)
        if kept is None:
            today = self._of_today(run)
            same = not today.problems and today.snapshot.digest == written
            kept = today.snapshot if same else await self._read_kept(run, written)
            if kept is None:  # its ConfigMap was deleted: another attempt is refused, see `prepare`
                return today
            self._catalogue.remember(kept)
        return Basis(kept, kept=True)

    async def _ask(self, run: Object) -> Basis:
        """Return today's basis of a run that is about to start, from the API server: watches may lag."""
        reference = find_reference(self._settings, run)
        if reference is None:
            return Basis(self._bare)
        key = _key(reference, run)
        found = self._catalogue.find(key)
        if found is None or not self._asked.holds(str(key)):
            await self._ask_for(key, found)
        return self._of_today(run)

    def _of_today(self, run: Object) -> Basis:
        """Return the basis of a run by what is known of its profile."""
        reference = find_reference(self._settings, run)
        if reference is None:
            return Basis(self._bare)
        key = _key(reference, run)
        item = self._catalogue.find(key)
        if item is None:
            return Basis(self._bare, (self._absent(key),))
        wanted = key, reference.version or ""
        state = item["metadata"]["uid"], item["metadata"].get("generation", 0)
        known = self._today.get(wanted)
        if known is None or known[0] != state:
            if len(self._today) >= MOST_KNOWN:
                self._today.clear()
            known = self._today[wanted] = state, self._read(key, item, reference)
        return known[1]

    def _read(self, key: ProfileKey, item: Object, reference: ProfileReference) -> Basis:
        spec = read_profile(item)
        if isinstance(spec, str):
            return Basis(self._bare, (f"spec.profile: {key} can't be used: {spec}",))
        version = choose_version(spec, reference.version)
        if version is None:
            names = ", ".join(item.name for item in spec.versions)
            problem = f"spec.profile.version is {reference.version!r}: {key} has the versions {names}"
            return Basis(self._bare, (problem,))
        return Basis(take_snapshot(self._settings, key.kind, key.name, spec, version.name))

    async def _ask_for(self, key: ProfileKey, known: Object | None) -> None:
        kind = KINDS_OF_PROFILES[key.kind]
        found = await self._cluster.get(kind, key.namespace or None, key.name)
        if found is not None:
            self._catalogue.keep(found)
            self._asked.note(str(key))
        elif known is not None:
            self._catalogue.forget(known)

    def _absent(self, key: ProfileKey) -> str:
        """Say that a profile is missing, and whether one of the other kind was meant."""
        where = f" in namespace {key.namespace!r}" if key.namespace else ""
        other = key.namespace and self._catalogue.find(profile_key(CLUSTER_PROFILE_KIND, "", key.name))
        hint = f"set spec.profile.kind to {CLUSTER_PROFILE_KIND}" if other else "create it, or name another"
        return f"spec.profile.name: {key} does not exist{where}: {hint}"

    async def _read_kept(self, run: Object, digest: str) -> Snapshot | None:
        """Return the snapshot of the run's plan; a ConfigMap with any other is not believed."""
        metadata = run["metadata"]
        found = await self._cluster.get(CONFIG_MAPS, metadata["namespace"], plan_name(metadata["name"]))
        if found is None or controller_uid(found) != metadata["uid"]:
            return None
        text = (found.get("data") or {}).get(SNAPSHOT_KEY, "")
        if digest_of(text) != digest:
            return None
        try:
            return Snapshot.from_json(text)
        except ValidationError:
            return None


def _key(reference: ProfileReference, run: Object) -> ProfileKey:
    return profile_key(kind_of(reference), run["metadata"]["namespace"], reference.name)
