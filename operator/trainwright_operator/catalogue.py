"""The profiles there are, as the watches last told, and the snapshots that were taken of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from pydantic import ValidationError

from trainwright_operator.api import ProfileSpec
from trainwright_operator.gone import Gone
from trainwright_operator.names import CLUSTER_PROFILE_KIND
from trainwright_operator.snapshot import Snapshot

Object = dict[str, Any]

MOST_SNAPSHOTS = 256  # that runs were started with, and that no longer are today's


class ProfileKey(NamedTuple):
    """Which profile; the namespace of one for the whole cluster is empty."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r}"


class Catalogue:
    """Profiles by their keys, and snapshots by their digests."""

    def __init__(self) -> None:
        self._profiles: dict[ProfileKey, Object] = {}
        self._snapshots: dict[str, Snapshot] = {}
        self._gone = Gone()

    def find(self, key: ProfileKey) -> Object | None:
        """Return the profile of this key."""
        return self._profiles.get(key)

    def __iter__(self) -> Iterator[tuple[ProfileKey, Object]]:
        return iter(tuple(self._profiles.items()))

    def keep(self, item: Object) -> ProfileKey | None:
        """Remember a profile; return its key if its spec is another than before."""
        key = key_of(item)
        if _uid(item) in self._gone:
            return None
        known = self._profiles.get(key)
        if known is not None and _version(known) > _version(item) and _uid(known) == _uid(item):
            return None
        self._profiles[key] = item
        same = known is not None and (_uid(known), _generation(known)) == (_uid(item), _generation(item))
        return None if same else key

    def forget(self, item: Object) -> ProfileKey | None:
        """Drop a profile that was deleted, not one made since by its name; return its key."""
        key = key_of(item)
        self._gone.add(_uid(item))
        if key in self._profiles and _uid(self._profiles[key]) == _uid(item):
            del self._profiles[key]
            return key
        return None

    def replace(self, kind: str, items: Iterable[Object], namespace: str | None = None) -> set[ProfileKey]:
        """Put a list of one kind in place of what is remembered; return the keys of all that changed.

        Of one namespace, if it is given, or else of all.
        """
        listed = {key_of(item): item for item in items}
        known = {key for key in self._profiles if key.kind == kind and namespace in (None, key.namespace)}
        gone = known - listed.keys()
        for key in gone:
            self._gone.add(_uid(self._profiles.pop(key)))
        return gone | {changed for item in listed.values() if (changed := self.keep(item)) is not None}

    def snapshot(self, digest: str) -> Snapshot | None:
        """Return the snapshot of this digest, if it was seen before."""
        return self._snapshots.get(digest)

    def remember(self, snapshot: Snapshot) -> None:
        """Remember a snapshot by its digest."""
        if len(self._snapshots) >= MOST_SNAPSHOTS:
            self._snapshots.pop(next(iter(self._snapshots)))
        self._snapshots[snapshot.digest] = snapshot


def key_of(item: Object) -> ProfileKey:
    """Return the key of a profile."""
    metadata = item["metadata"]
    return profile_key(item["kind"], metadata.get("namespace", ""), metadata["name"])


def profile_key(kind: str, namespace: str, name: str) -> ProfileKey:
    """Return the key of the profile of this name that a run in this namespace means."""
    return ProfileKey(kind, "" if kind == CLUSTER_PROFILE_KIND else namespace, name)


def read_profile(item: Object) -> ProfileSpec | str:
    """Return the spec of a profile, or why it can't be read: a newer CRD may know more than we do."""
    try:
        return ProfileSpec.model_validate(item["spec"])
    except ValidationError as error:
        first = error.errors()[0]
        return f"spec.{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _uid(item: Object) -> str:
    return str(item["metadata"]["uid"])


def _generation(item: Object) -> int:
    return int(item["metadata"].get("generation", 0))


def _version(item: Object) -> int:
    return int(item["metadata"].get("resourceVersion", 0))
