"""What the watches last said of runs, their Jobs and their pods."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from trainwright_operator.names import RUN_LABEL
from trainwright_operator.queue import Key

Object = dict[str, Any]


class Store:
    """An index of objects by kind and run; it only remembers, and is never the truth about absence.

    What we wrote ourselves is kept at once, and watches and lists may tell of it later, or of what was
    before: an older version never replaces a newer one. Kept is what is asked for: thousands of objects in
    full would take most of the operator's memory.
    """

    def __init__(self) -> None:
        self._runs: dict[Key, Object] = {}
        self._children: dict[str, dict[Key, dict[str, Object]]] = {
            "Job": defaultdict(dict),
            "Pod": defaultdict(dict),
        }

    def run(self, key: Key) -> Object | None:
        """Return the run of this key."""
        return self._runs.get(key)

    def runs(self) -> Iterable[Object]:
        """Return all runs."""
        return self._runs.values()

    def jobs(self, run: Object) -> list[Object]:
        """Return the Jobs this very run controls."""
        found = self._children["Job"].get(_key(run), {}).values()
        return [job for job in found if controller_uid(job) == run["metadata"]["uid"]]

    def pods(self, run: Object, job: Object) -> list[Object]:
        """Return the pods this very Job controls, oldest first."""
        found = self._children["Pod"].get(_key(run), {}).values()
        pods = [pod for pod in found if controller_uid(pod) == job["metadata"]["uid"]]
        return sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))

    def knows(self, kind: str, item: Object) -> bool:
        """Return whether this very version of an object is remembered: nothing it tells is new."""
        if kind == "TrainingRun":
            known = self._runs.get(_key(item))
        else:
            key = _run_key(item)
            known = self._children[kind].get(key, {}).get(item["metadata"]["name"]) if key else None
        return known is not None and _identity(known) == _identity(item)

    def keep(self, kind: str, item: Object) -> Key | None:
        """Remember an object; return the key of the run it concerns, or None if it is no child of a run."""
        item = _shorten(kind, item)
        if kind == "TrainingRun":
            self._runs[_key(item)] = _newest(self._runs.get(_key(item)), item)
            return _key(item)
        key = _run_key(item)
        if key is not None:
            children, name = self._children[kind][key], item["metadata"]["name"]
            children[name] = _newest(children.get(name), item)
        return key

    def forget(self, kind: str, item: Object) -> Key | None:
        """Drop an object that was deleted, not one made since by its name; return the key of its run."""
        if kind == "TrainingRun":
            _drop(self._runs, _key(item), item)
            return _key(item)
        key = _run_key(item)
        if key is not None:
            children = self._children[kind][key]
            _drop(children, item["metadata"]["name"], item)
            if not children:
                del self._children[kind][key]
        return key

    def replace(self, kind: str, items: Iterable[Object], version: int) -> set[Key]:
        """Put a list in place of what is remembered from before its version; return every key it concerns."""
        known = self._all(kind)
        before = {key for item in known if (key := self.forget(kind, item)) is not None}
        newer = [item for item in known if _version(item) > version]
        return before | {key for item in (*items, *newer) if (key := self.keep(kind, item)) is not None}

    def _all(self, kind: str) -> list[Object]:
        if kind == "TrainingRun":
            return list(self._runs.values())
        return [item for children in self._children[kind].values() for item in children.values()]


def find_controller(item: Object) -> Object | None:
    """Return the reference to the object that controls this one."""
    owners: list[Object] = item["metadata"].get("ownerReferences", [])
    return next((owner for owner in owners if owner.get("controller")), None)


def controller_uid(item: Object) -> str | None:
    """Return the uid of the object that controls this one."""
    owner = find_controller(item)
    return str(owner["uid"]) if owner else None


BULK = {"Job": ("template",), "Pod": ("volumes", "containers", "initContainers")}
"""What is large in the specification of a child and never asked for: we wrote it, and it does not change."""


def _shorten(kind: str, item: Object) -> Object:
    """Return the object without its bulk; the one that was given stays as it is."""
    short = item | {"metadata": {k: v for k, v in item["metadata"].items() if k != "managedFields"}}
    if kind in BULK and "spec" in item:
        short["spec"] = {key: value for key, value in item["spec"].items() if key not in BULK[kind]}
    return short


def _identity(item: Object) -> tuple[str, str]:
    return item["metadata"]["uid"], str(item["metadata"].get("resourceVersion", ""))


def _drop(known: dict[Any, Object], name: object, item: Object) -> None:
    if name in known and known[name]["metadata"]["uid"] == item["metadata"]["uid"]:
        del known[name]


def _newest(known: Object | None, item: Object) -> Object:
    """Return the newer of two versions; one of another uid is another object, and not compared."""
    if known is None or known["metadata"]["uid"] != item["metadata"]["uid"]:
        return item
    return known if _version(known) > _version(item) else item


def _version(item: Object) -> int:
    return int(item["metadata"].get("resourceVersion", 0))


def _key(item: Object) -> Key:
    return Key(item["metadata"]["namespace"], item["metadata"]["name"])


def _run_key(item: Object) -> Key | None:
    run = item["metadata"].get("labels", {}).get(RUN_LABEL)
    return Key(item["metadata"]["namespace"], run) if run else None
