"""How often a login may fail: per account and address, and per address, within a sliding window."""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable

ADDRESS_FACTOR = 3
"""One address may fail this many times as often as one account from it: offices share an address."""

MOST_KEYS = 10_000
"""What is remembered is bounded; the longest untouched is forgotten first."""


class LoginThrottle:
    """Counts attempts before they are checked, so that parallel guesses gain nothing; success gives back."""

    def __init__(
        self, attempts: int, window_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._attempts = attempts
        self._window = window_seconds
        self._clock = clock
        self._seen: OrderedDict[Hashable, deque[float]] = OrderedDict()

    def admit(self, account: str, address: str) -> int:
        """Count an attempt and return 0, or return the seconds to wait before the next is looked at."""
        now = self._clock()
        limits = {
            (account.casefold(), address): self._attempts,
            (address,): self._attempts * ADDRESS_FACTOR,
        }
        for key, limit in limits.items():
            attempts = self._recent(key, now)
            if len(attempts) >= limit:
                return max(1, math.ceil(attempts[0] + self._window - now))
        for key in limits:
            self._recent(key, now).append(now)
        return 0

    def succeed(self, account: str, address: str) -> None:
        """Forget the failures of a caller who proved to own the account, and this attempt of the address."""
        self._seen.pop((account.casefold(), address), None)
        attempts = self._seen.get((address,))
        if attempts:
            attempts.pop()

    def _recent(self, key: Hashable, now: float) -> deque[float]:
        attempts = self._seen.setdefault(key, deque())
        self._seen.move_to_end(key)
        while attempts and attempts[0] <= now - self._window:
            attempts.popleft()
        while len(self._seen) > MOST_KEYS:
            self._seen.popitem(last=False)
        return attempts
