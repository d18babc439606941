"""All that a run's status is computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainwright_operator.accounts import Accounts
from trainwright_operator.attempts import Attempt, Observation
from trainwright_operator.deadlines import Overrun
from trainwright_operator.names import Reason
from trainwright_operator.retries import Decision
from trainwright_operator.snapshot import Snapshot


@dataclass(frozen=True)
class Acceptance:
    """Whether the run may be carried out; `problems` lists everything against it."""

    problems: tuple[str, ...] = ()
    reason: Reason = Reason.VALID
    plan_digest: str = ""
    snapshot: Snapshot | None = None  # of the run's profile and the operator's settings
    note: str = ""  # what the run's author should know though it is no problem

    @property
    def accepted(self) -> bool:
        """Whether there is nothing against it."""
        return not self.problems


@dataclass(frozen=True)
class Situation:
    """All that a status is computed from."""

    observation: Observation
    attempts: Sequence[Attempt]
    decision: Decision
    acceptance: Acceptance | None = None  # None: decided before, see the written status
    accounts: Accounts | None = None  # None: as they follow from the rest, without a price
    spent: Overrun | None = None  # the limit that leaves nothing for another attempt
    patience_seconds: float = 60  # how long a run that is not accepted may still be on its way
