"""Which objects are deleted: the answer to a request of ours may come after the watch has told of that."""

from __future__ import annotations

MOST = 10_000  # by far more than can be deleted while a request is under way


class Gone:
    """Uids of deleted objects, the newest; no other object ever has one of them."""

    def __init__(self) -> None:
        self._uids: dict[str, None] = {}

    def add(self, uid: str) -> None:
        """Remember that this object is deleted."""
        self._uids[uid] = None
        if len(self._uids) > MOST:
            del self._uids[next(iter(self._uids))]

    def __contains__(self, uid: str) -> bool:
        return uid in self._uids
