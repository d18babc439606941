"""What was seen to be so a moment ago, and is not asked for again at once."""

from __future__ import annotations

import time
from collections.abc import Callable

SECONDS = 10.0
MOST = 1024  # facts; an operator that sees more namespaces than this in so short a time asks again


class Recently:
    """Facts that held a moment ago; each is believed for some seconds, and its absence never."""

    def __init__(self, seconds: float = SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._seen: dict[str, float] = {}

    def holds(self, fact: str) -> bool:
        """Return whether the fact was seen to hold, not too long ago."""
        return self._clock() - self._seen.get(fact, float("-inf")) < self._seconds

    def note(self, fact: str) -> None:
        """Believe the fact from now on."""
        if len(self._seen) >= MOST:
            self._seen.clear()
        self._seen[fact] = self._clock()

    def forget(self, fact: str) -> None:
        """Believe the fact no longer."""
        self._seen.pop(fact, None)
