"""What a run may take: time in a queue, time at work, time without a step, GPU-seconds and money. Pure.

Every limit is a moment, so that somebody can look again exactly then; one that has passed ends the attempt.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple, Self

from trainwright.contract import Cause, RunReport, Stage
from trainwright_operator.accounts import Accounts, Usage
from trainwright_operator.api import Budget, Compute, Deadlines, TrainingRunSpec
from trainwright_operator.attempts import Attempt
from trainwright_operator.retries import Action, Decision
from trainwright_operator.times import format_time

STALLED_SECONDS = 1800
MOST_SECONDS = 315_360_000  # ten years: a later moment may be none that can be told
OWN_FIELD = "spec.deadlines.activeSeconds"
PROFILE_FIELD = "limits.activeSeconds of the profile"
STEPPING_STAGES = (Stage.DATASET, Stage.TRAINING, Stage.EVALUATION)
"""Stages that make a step every few seconds; in the others one step may be a whole export or upload."""


class Overrun(NamedTuple):
    """What was exceeded: a cause for programs, and a sentence that names field, value and remedy."""

    cause: Cause
    message: str


class Limit(NamedTuple):
    """When an attempt has to end, and why."""

    due: datetime
    overrun: Overrun


@dataclass(frozen=True)
class Allowance:
    """What limits a run, and the price of a GPU for an hour if there is one."""

    deadlines: Deadlines
    budget: Budget
    price: float | None = None
    gpus: int = 0  # of a Job that trains
    most_active: int | None = None  # seconds that the profile allows a run to work

    @classmethod
    def of(cls, spec: TrainingRunSpec, price: float | None, most_active: int | None = None) -> Self:
        """Return what an effective spec allows."""
        asked = spec.compute.gpus if spec.compute else None
        gpus = int(Compute.built_in["gpus"]) if asked is None else asked
        return cls(
            deadlines=spec.deadlines or Deadlines(),
            budget=spec.budget or Budget(),
            price=price,
            gpus=0 if spec.dry_run else gpus,
            most_active=most_active,
        )

    @property
    def active(self) -> tuple[int, str] | None:
        """The seconds a run may work in all, and the field that says so: its own, or a tighter profile's."""
        said = ((self.deadlines.active_seconds, OWN_FIELD), (self.most_active, PROFILE_FIELD))
        return min(((seconds, field) for seconds, field in said if seconds is not None), default=None)

    @property
    def stalled(self) -> timedelta:
        """How long a run may stand still; zero is for ever."""
        seconds = self.deadlines.stalled_seconds
        return timedelta(seconds=STALLED_SECONDS if seconds is None else seconds)


def find_unpriced(spec: TrainingRunSpec, price: float | None) -> list[str]:
    """Return what is wrong with a budget in money where nobody says what a GPU costs."""
    cost = spec.budget.cost if spec.budget else None
    if cost is None or price is not None:
        return []
    return [
        f"spec.budget.cost is {cost:g}, but neither the profile nor the operator's settings have a"
        " pricePerGPUHour: set one, or use spec.budget.gpuSeconds"
    ]


@dataclass(frozen=True)
class Holding:
    """What is done about a run's attempts when its limits are kept, and which of them leaves nothing."""

    decision: Decision
    attempts: list[Attempt]
    spent: Overrun | None = None


def find_limits(allowance: Allowance, accounts: Accounts, report: RunReport | None) -> list[Limit]:
    """Return the limits of the attempt that goes on, the nearest first."""
    limits = [
        *_limit_waiting(allowance.deadlines, accounts),
        *_limit_running(allowance, accounts),
        *_limit_standstill(allowance.stalled, accounts, report),
    ]
    return sorted(limits, key=lambda limit: limit.due)


def hold_open(decision: Decision, attempts: list[Attempt], limits: list[Limit], now: datetime) -> Holding:
    """Return what to do about an attempt that goes on: its pod is asked to end when a limit is reached."""
    *others, last = attempts
    due = next((limit for limit in limits if limit.due <= now), None)
    if due and last.ending is None:
        last = replace(last, ending=due.overrun.cause, message=due.overrun.message)
    if last.ending:
        return Holding(replace(decision, action=Action.STOP), [*others, last])
    times = [(limit.due - now).total_seconds() for limit in limits]
    if decision.wait_seconds is not None:
        times.append(decision.wait_seconds)
    return Holding(replace(decision, wait_seconds=min(times, default=None)), attempts)


def hold_stopped(decision: Decision, attempts: list[Attempt]) -> Holding:
    """Return the same where an attempt has to end: it says so first, whatever is wished meanwhile."""
    *others, last = attempts
    if last.outcome or last.ending:
        return Holding(decision, attempts)
    return Holding(decision, [*others, replace(last, stopping=True)])


def hold_next(decision: Decision, attempts: list[Attempt], allowance: Allowance, usage: Usage) -> Holding:
    """Return what to do where another attempt should start: none does if a limit leaves nothing for it."""
    totals = _totals(allowance, usage, allowance.gpus if decision.key.trains else 0)
    spent = next((overrun for overrun, left in totals if left <= 0), None)
    if spent is None:
        return Holding(decision, attempts)
    return Holding(Decision(Action.FAIL, attempts[-1].number), attempts, spent)


def _limit_waiting(deadlines: Deadlines, accounts: Accounts) -> Iterator[Limit]:
    since, seconds = accounts.waiting_since, deadlines.queued_seconds
    if since is None or seconds is None:
        return
    message = (
        f"spec.deadlines.queuedSeconds is {seconds}, and no pod ran since {format_time(since)}:"
        " free capacity or raise it, then set spec.retryRequest"
    )
    yield Limit(since + timedelta(seconds=seconds), Overrun(Cause.DEADLINE_EXCEEDED, message))


def _limit_running(allowance: Allowance, accounts: Accounts) -> Iterator[Limit]:
    pod = accounts.open_pod
    if pod is None or pod.start is None or pod.ended:
        return
    for overrun, left in _totals(allowance, accounts.usage, accounts.gpus):
        seconds = min(max(left, 0), MOST_SECONDS)
        yield Limit(pod.start + timedelta(seconds=seconds), overrun)


def _totals(allowance: Allowance, usage: Usage, gpus: int) -> Iterator[tuple[Overrun, float]]:
    """Yield each limit of the run as a whole, with the seconds that a pod has left of it."""
    budget, price = allowance.budget, allowance.price
    raise_it = "raise it, then set spec.retryRequest"
    if allowance.active:
        active, field = allowance.active
        told = f"{field} is {active}, and pods ran for that long in all: {raise_it}"
        yield Overrun(Cause.DEADLINE_EXCEEDED, told), active - usage.pod_seconds
    if budget.gpu_seconds is not None and gpus:
        told = f"spec.budget.gpuSeconds is {budget.gpu_seconds}, and all of it is used: {raise_it}"
        yield Overrun(Cause.BUDGET_EXCEEDED, told), (budget.gpu_seconds - usage.gpu_seconds) / gpus
    if budget.cost is not None and price and gpus:
        told = f"spec.budget.cost is {budget.cost:g}, and all of it is spent: {raise_it}"
        yield Overrun(Cause.BUDGET_EXCEEDED, told), (budget.cost - (usage.cost or 0)) * 3600 / (price * gpus)


def _limit_standstill(allowed: timedelta, accounts: Accounts, report: RunReport | None) -> Iterator[Limit]:
    """A pod that has told of no step yet is not held to any pace: perhaps its reports can't get through.

    Nor is one that was asked to end, by whomever: it saves, and makes no more steps.
    """
    pod = accounts.open_pod
    if not allowed or report is None or pod is None or pod.start is None or pod.ended or pod.leaving:
        return
    progress = report.progress
    made = progress.step_time
    if made is None or made < pod.start or progress.stage not in STEPPING_STAGES:
        return
    message = (
        f"spec.deadlines.stalledSeconds is {allowed.total_seconds():.0f}, and no step was made since"
        f" {format_time(made)} (step {progress.step}, stage {progress.stage})"
    )
    yield Limit(made + allowed, Overrun(Cause.HANG, message))
