"""What the watches last said of runs, their Jobs and their pods."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from trainwright_operator.names import RUN_LABEL
from trainwright_operator.queue import Key

Object = dict[str, Any]


class Store:
    """An index of objects by kind and run; it only remembers, and is never the truth about absence."""

    def __init__(self) -> None:
        self._runs: dict[Key, Object] = {}
        self._children: dict[str, dict[Key, dict[str, Object]]] = {
            "Job": defaultdict(dict),
            "Pod": defaultdict(dict),
        }

    def run(self, key: Key) -> Object | None:
        """Return the run of this key."""
        return self._runs.get(key)

    def jobs(self, run: Object) -> list[Object]:
        """Return the Jobs this very run controls."""
        found = self._children["Job"].get(_key(run), {}).values()
        return [job for job in found if controller_uid(job) == run["metadata"]["uid"]]

    def pods(self, run: Object, job: Object) -> list[Object]:
        """Return the pods this very Job controls, oldest first."""
        found = self._children["Pod"].get(_key(run), {}).values()
        pods = [pod for pod in found if controller_uid(pod) == job["metadata"]["uid"]]
        return sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))

    def keep(self, kind: str, item: Object) -> Key | None:
        """Remember an object; return the key of the run it concerns, or None if it is no child of a run."""
        if kind == "TrainingRun":
            self._runs[_key(item)] = item
            return _key(item)
        key = _run_key(item)
        if key is not None:
            self._children[kind][key][item["metadata"]["name"]] = item
        return key

    def forget(self, kind: str, item: Object) -> Key | None:
        """Drop an object that was deleted; return the key of the run it concerns."""
        if kind == "TrainingRun":
            self._runs.pop(_key(item), None)
            return _key(item)
        key = _run_key(item)
        if key is not None:
            children = self._children[kind][key]
            children.pop(item["metadata"]["name"], None)
            if not children:
                del self._children[kind][key]
        return key

    def replace(self, kind: str, items: Iterable[Object]) -> set[Key]:
        """Put a fresh list in place of all that is remembered of a kind; return every key either concerns."""
        if kind == "TrainingRun":
            before = set(self._runs)
            self._runs = {_key(item): item for item in items}
            return before | set(self._runs)
        before = set(self._children[kind])
        self._children[kind].clear()
        return before | {key for item in items if (key := self.keep(kind, item)) is not None}


def controller_uid(item: Object) -> str | None:
    """Return the uid of the object that controls this one."""
    for owner in item["metadata"].get("ownerReferences", ()):
        if owner.get("controller"):
            return str(owner["uid"])
    return None


def _key(item: Object) -> Key:
    return Key(item["metadata"]["namespace"], item["metadata"]["name"])


def _run_key(item: Object) -> Key | None:
    run = item["metadata"].get("labels", {}).get(RUN_LABEL)
    return Key(item["metadata"]["namespace"], run) if run else None
