"""What the watches last said of runs, their Jobs and their pods."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from trainwright_operator.catalogue import Catalogue, ProfileKey
from trainwright_operator.gone import Gone
from trainwright_operator.names import FINAL_PHASES, RUN_KIND, Phase
from trainwright_operator.packed import Packed, pack, profile_word, run_key
from trainwright_operator.queue import Key

Object = dict[str, Any]


class Store:
    """An index of objects by kind and run; it only remembers, and is never the truth about absence.

    What we wrote ourselves is kept at once, and watches and lists may tell of it later, or of what was
    before: an older version never replaces a newer one, and what is gone does not come back.
    """

    def __init__(self) -> None:
        self._objects: dict[str, dict[Key, dict[str, Packed]]] = {
            kind: defaultdict(dict) for kind in (RUN_KIND, "Job", "Pod")
        }
        self._gone = Gone()
        self.profiles = Catalogue()

    def run(self, key: Key) -> Object | None:
        """Return the run of this key."""
        found = self._objects[RUN_KIND].get(key, {}).get(key.name)
        return found.unpack() if found else None

    def phases(self) -> list[str | None]:
        """Return the phase of each run; None of one without a status."""
        return [run.phase for run in self._all(RUN_KIND)]

    def waiting_for(self, profile: ProfileKey) -> list[Key]:
        """Return the runs that may not have started yet for want of a profile, or of what it says.

        Runs that name none are among them: the operator's settings may name this one for them.
        """
        word = profile_word(profile.kind, profile.name)
        return [
            run.key
            for run in self._all(RUN_KIND)
            if run.key is not None
            and run.phase in (None, Phase.PENDING)
            and run.profile in (None, word)
            and profile.namespace in ("", run.key.namespace)
        ]

    def count_users(self, default: str | None) -> Counter[tuple[str, str]]:
        """Return how many unfinished runs each profile has, by its namespace and kind with name.

        `default` is the profile of runs that name none. For a profile of the cluster add up all namespaces.
        """
        return Counter(
            (run.key.namespace, word)
            for run in self._all(RUN_KIND)
            if run.key is not None and run.phase not in FINAL_PHASES and (word := run.profile or default)
        )

    def jobs(self, run: Object) -> list[Object]:
        """Return the Jobs this very run controls."""
        return self._controlled("Job", run, run["metadata"]["uid"])

    def pods(self, run: Object, job: Object) -> list[Object]:
        """Return the pods this very Job controls, oldest first."""
        pods = self._controlled("Pod", run, job["metadata"]["uid"])
        return sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))

    def keys(self) -> list[Key]:
        """Return the keys of all runs."""
        return [run.key for run in self._all(RUN_KIND) if run.key is not None]

    def knows(self, kind: str, item: Object) -> bool:
        """Return whether this very version of an object is remembered: nothing it tells is new."""
        return self._known(kind, item) is not None

    def pack(self, kind: str, item: Object) -> Packed:
        """Return an object as it is kept; what is remembered already is not packed again."""
        return self._known(kind, item) or pack(kind, item)

    def keep(self, kind: str, item: Object) -> Key | None:
        """Remember an object; return the key of the run it concerns, or None if it is no child of a run."""
        return self._keep(kind, pack(kind, item))

    def forget(self, kind: str, item: Object) -> Key | None:
        """Drop an object that was deleted, not one made since by its name; return the key of its run."""
        packed = pack(kind, item)
        self._gone.add(packed.uid)
        return self._forget(kind, packed)

    def replace(
        self, kind: str, items: Iterable[Packed], version: int, namespace: str | None = None
    ) -> set[Key]:
        """Put a list in place of what is remembered from before its version; return the keys of what changed.

        Of one namespace, if it is given, or else of all.
        """
        before = self._all(kind, namespace)
        for item in before:
            self._forget(kind, item)
        newer = (item for item in before if item.version > version)
        for item in (*items, *newer):
            self._keep(kind, item)
        after = self._all(kind, namespace)
        for uid in {item.uid for item in before} - {item.uid for item in after}:
            self._gone.add(uid)
        changed = _versions(before) ^ _versions(after)
        return {key for key, _, _ in changed if key is not None}

    def _controlled(self, kind: str, run: Object, uid: str) -> list[Object]:
        found = (
            self._objects[kind].get(Key(run["metadata"]["namespace"], run["metadata"]["name"]), {}).values()
        )
        return [item.unpack() for item in found if item.controller == uid]

    def _keep(self, kind: str, item: Packed) -> Key | None:
        if item.key is not None and item.uid not in self._gone:
            siblings = self._objects[kind][item.key]
            siblings[item.name] = _newest(siblings.get(item.name), item)
        return item.key

    def _forget(self, kind: str, item: Packed) -> Key | None:
        if item.key is None:
            return None
        siblings = self._objects[kind].get(item.key, {})
        if item.name in siblings and siblings[item.name].uid == item.uid:
            del siblings[item.name]
            if not siblings:
                del self._objects[kind][item.key]
        return item.key

    def _known(self, kind: str, item: Object) -> Packed | None:
        metadata, key = item["metadata"], run_key(kind, item)
        known = self._objects[kind].get(key, {}).get(metadata["name"]) if key else None
        version = metadata["uid"], int(metadata.get("resourceVersion", 0))
        return known if known is not None and (known.uid, known.version) == version else None

    def _all(self, kind: str, namespace: str | None = None) -> list[Packed]:
        return [
            item
            for key, siblings in self._objects[kind].items()
            if namespace in (None, key.namespace)
            for item in siblings.values()
        ]


def _versions(items: Iterable[Packed]) -> set[tuple[Key | None, str, int]]:
    return {(item.key, item.uid, item.version) for item in items}


def _newest(known: Packed | None, item: Packed) -> Packed:
    """Return the newer of two versions; one of another uid is another object, and not compared."""
    if known is None or known.uid != item.uid:
        return item
    return known if known.version > item.version else item
