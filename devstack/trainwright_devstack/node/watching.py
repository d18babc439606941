"""A list that keeps itself up to date: listed anew whenever its watch ends in a way it can't go on from."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from trainwright_devstack.api import Api, ApiError, Unreachable, describe

Object = dict[str, Any]
LOG = logging.getLogger(__name__)

WATCH_SECONDS = 60
RETRY_SECONDS = 1.0


class ListWatch:
    """Calls `replace` with every full list and `change` with each event after it, in one thread."""

    def __init__(
        self,
        api: Api,
        path: str,
        query: dict[str, str],
        replace: Callable[[list[Object]], None],
        change: Callable[[str, Object], None],
    ) -> None:
        self._api, self._path, self._query = api, path, query
        self._replace, self._change = replace, change
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"watch-{path}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Make no more calls."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except ApiError as error:
                LOG.warning("%s: %s", self._path, describe(error))
            except Unreachable as error:
                LOG.warning("%s: %s", self._path, error)
            except Exception:  # a list that is no longer kept up to date would go unnoticed
                LOG.exception("%s: unexpected, listing again", self._path)
            self._stop.wait(RETRY_SECONDS)

    def _follow(self) -> None:
        """List, then watch until the server says that our version is too old."""
        found = self._api.get(self._path, **self._query)
        kind = found["kind"].removesuffix("List")
        if self._stop.is_set():
            return
        self._replace([{"kind": kind, **item} for item in found["items"]])
        version = found["metadata"]["resourceVersion"]
        while not self._stop.is_set():
            for event in self._api.watch(
                self._path, version, WATCH_SECONDS, allowWatchBookmarks="true", **self._query
            ):
                if self._stop.is_set() or event["type"] == "ERROR":
                    return
                version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    self._change(event["type"], event["object"])
