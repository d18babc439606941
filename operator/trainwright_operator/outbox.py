"""What was told of runs, until their status says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from trainwright_operator.notices import Delivery, Outcomes, Target, identify, pending
from trainwright_operator.queue import Key

Object = dict[str, Any]


@dataclass
class Outbox:
    """What was told and is not in a status yet; wakes whoever sends when something is to be told."""

    wake: Callable[[Key], None] = lambda _key: None
    _told: dict[str, dict[Delivery, str]] = field(default_factory=dict)

    def outcomes(self, run: Object) -> Outcomes:
        """Return what became of a run's notices since its last status."""
        return self._told.get(run["metadata"]["uid"], {})

    def settle(self, run: Object, delivery: Delivery, outcome: str) -> None:
        """Note what became of one."""
        self._told.setdefault(run["metadata"]["uid"], {})[delivery] = outcome

    def written(self, run: Object, targets: list[Target]) -> None:
        """Forget what a run's status says by now, and wake for what it says is to be told."""
        if not (run.get("status") or {}).get("notices"):
            return
        uid, left = run["metadata"]["uid"], pending(run["status"], targets)
        still = {Delivery(identify(notice), target.digest) for notice, target in left}
        told = {key: outcome for key, outcome in self._told.pop(uid, {}).items() if key in still}
        if told:
            self._told[uid] = told
        if still - told.keys():
            self.wake(Key(run["metadata"]["namespace"], run["metadata"]["name"]))

    def forget(self, uid: str) -> None:
        """Forget a run that is gone."""
        self._told.pop(uid, None)

    @property
    def empty(self) -> bool:
        """Whether every status says all that was told."""
        return not self._told
