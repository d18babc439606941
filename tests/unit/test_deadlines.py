"""Deadlines and budgets: when an attempt has to end, and what leaves nothing for another one."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from builders import RunBuilder, make_report

from trainwright.contract import Cause, Progress, Stage
from trainwright_operator.accounts import Accounts, Pod, Usage
from trainwright_operator.api import TrainingRunSpec
from trainwright_operator.attempts import Attempt
from trainwright_operator.cluster import Cluster
from trainwright_operator.deadlines import (
    Allowance,
    Limit,
    Overrun,
    find_limits,
    find_unpriced,
    hold_next,
    hold_open,
    hold_stopped,
)
from trainwright_operator.names import AttemptOutcome
from trainwright_operator.retries import Action, Decision
from trainwright_operator.stalls import Doubts

Object = dict[str, Any]
BEGIN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ATTEMPT = Attempt(number=1, job="parts-1-1", start_time="2026-01-02T03:04:05Z")
WAIT = Decision(Action.WAIT, 1)


def at(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


def allow(price: float | None = None, gpus: int = 2, **spec: Any) -> Allowance:
    body = RunBuilder().spec(compute={"gpus": gpus}, **spec).build()["spec"]
    return Allowance.of(TrainingRunSpec.model_validate(body), price)


def running(start: int = 100, gpus: int = 2, **usage: Any) -> Accounts:
    return Accounts(Usage(**usage), [ATTEMPT], open_pod=Pod("p", "u", start=at(start)), gpus=gpus)


def waiting(since: int) -> Accounts:
    return Accounts(Usage(), [ATTEMPT], waiting_since=at(since))


def stepped(seconds: int, stage: Stage = Stage.TRAINING) -> Any:
    return make_report(1, progress=Progress(percent=4, stage=stage, step=7, step_time=at(seconds)))


def due(limits: list[Limit]) -> list[tuple[datetime, Cause]]:
    return [(limit.due, limit.overrun.cause) for limit in limits]


def test_without_deadlines_only_a_standstill_of_half_an_hour_ends_an_attempt() -> None:
    assert due(find_limits(allow(), running(), stepped(200))) == [(at(2000), Cause.HANG)]
    assert find_limits(allow(), waiting(0), None) == []


def test_each_wait_has_its_own_time() -> None:
    allowance = allow(deadlines={"queuedSeconds": 60})
    assert due(find_limits(allowance, waiting(500), None)) == [(at(560), Cause.DEADLINE_EXCEEDED)]
    assert find_limits(allowance, running(), None) == []


def test_time_at_work_is_that_of_all_attempts_together() -> None:
    allowance = allow(deadlines={"activeSeconds": 1000})
    assert due(find_limits(allowance, running(pod_seconds=400), None)) == [
        (at(100 + 600), Cause.DEADLINE_EXCEEDED)
    ]


def test_a_profile_allows_less_time_at_work_than_its_run_asks_for() -> None:
    allowance = replace(allow(deadlines={"activeSeconds": 1000}), most_active=300)
    (limit,) = find_limits(allowance, running(), None)
    assert limit.due == at(400)
    assert limit.overrun.message.startswith("limits.activeSeconds of the profile is 300, and")


def test_a_budget_in_money_without_a_price_is_refused() -> None:
    spec = TrainingRunSpec.model_validate(RunBuilder().spec(budget={"cost": 25}).build()["spec"])
    (problem,) = find_unpriced(spec, None)
    assert problem.startswith("spec.budget.cost is 25, but neither the profile nor")
    assert find_unpriced(spec, 0.0) == []


def test_a_budget_ends_the_attempt_when_its_gpus_have_used_it_up() -> None:
    accounts = running(gpu_seconds=200, cost=1.0)
    assert due(find_limits(allow(budget={"gpuSeconds": 500}), accounts, None)) == [
        (at(100 + 150), Cause.BUDGET_EXCEEDED)
    ]
    allowance = allow(price=3.6, budget={"cost": 2})
    assert due(find_limits(allowance, accounts, None)) == [(at(100 + 500), Cause.BUDGET_EXCEEDED)]
    assert find_limits(allow(budget={"cost": 2}), accounts, None) == []  # nobody knows the price
    assert find_limits(allow(budget={"gpuSeconds": 5}), running(gpus=0), None) == []


def test_a_pod_stands_still_only_after_a_step_and_in_stages_that_make_many() -> None:
    allowance = allow(deadlines={"stalledSeconds": 60})
    assert due(find_limits(allowance, running(), stepped(150))) == [(at(210), Cause.HANG)]
    for report in (None, make_report(1), stepped(50), stepped(150, Stage.EXPORT)):
        assert find_limits(allowance, running(), report) == []
    assert find_limits(allow(deadlines={"stalledSeconds": 0}), running(), stepped(150)) == []


def test_a_pod_that_has_ended_is_held_to_nothing() -> None:
    allowance = allow(deadlines={"activeSeconds": 1, "stalledSeconds": 1})
    pod = Pod("p", "u", start=at(0), end=at(5), ended=True)
    assert find_limits(allowance, replace(running(), open_pod=pod), stepped(1)) == []


def test_the_nearest_limit_is_waited_for_to_the_second() -> None:
    allowance = allow(deadlines={"activeSeconds": 1000, "stalledSeconds": 60})
    limits = find_limits(allowance, running(), stepped(150))
    held = hold_open(WAIT, [ATTEMPT], limits, at(200))
    assert held.decision == replace(WAIT, wait_seconds=10)
    assert hold_open(replace(WAIT, wait_seconds=3), [ATTEMPT], limits, at(200)).decision.wait_seconds == 3


def test_an_attempt_past_its_limit_is_asked_to_end_and_says_why_before() -> None:
    limits = find_limits(allow(deadlines={"queuedSeconds": 60}), waiting(0), None)
    held = hold_open(WAIT, [ATTEMPT], limits, at(60))
    (ending,) = held.attempts
    assert (held.decision.action, ending.ending) == (Action.STOP, Cause.DEADLINE_EXCEEDED)
    assert ending.message.startswith("spec.deadlines.queuedSeconds is 60, and no pod ran since")
    assert ending.to_status()["message"] == ending.message, "it is cut"
    again = hold_open(WAIT, [Attempt.from_status(ending.to_status())], [], at(61))
    assert again.decision.action is Action.STOP


@pytest.mark.parametrize(
    ("spec", "cause"),
    [
        ({"deadlines": {"activeSeconds": 100}}, Cause.DEADLINE_EXCEEDED),
        ({"budget": {"gpuSeconds": 200}}, Cause.BUDGET_EXCEEDED),
        ({"deadlines": {"activeSeconds": 101}, "budget": {"gpuSeconds": 201}}, None),
    ],
)
def test_nothing_starts_that_has_nothing_left(spec: Object, cause: Cause | None) -> None:
    usage = Usage(pod_seconds=100, gpu_seconds=200)
    failed = replace(ATTEMPT, outcome=AttemptOutcome.FAILED, cause=Cause.PREEMPTED)
    start = Decision(Action.START, 2)
    held = hold_next(start, [failed], allow(**spec), usage)
    assert (held.spent and held.spent.cause) == cause
    assert held.decision == (Decision(Action.FAIL, 1) if cause else start)


class Answers:
    """An API server that knows when the last step was made."""

    def __init__(self, *steps: str) -> None:
        self.steps = list(steps)

    async def get(self, *_: Any) -> Object:
        return report_of(self.steps.pop(0))


def report_of(step: str) -> Object:
    metadata = {"name": "parts-1", "namespace": "ml", "uid": "u"}
    return {"metadata": metadata, "status": {"trainer": {"progress": {"stepTime": step}}}}


def weigh(doubts: Doubts, seconds: float) -> datetime:
    stall = Limit(at(100), Overrun(Cause.HANG, "no step"))
    allowed = timedelta(seconds=90)
    return asyncio.run(doubts.weigh(report_of("a"), [stall], allowed, at(seconds)))[0].due


def test_a_standstill_is_believed_when_the_api_server_says_so_twice_a_minute_apart() -> None:
    doubts = Doubts(cast(Cluster, Answers("a", "a")))
    assert weigh(doubts, 99) == at(100)
    assert weigh(doubts, 100) == at(160)
    assert weigh(doubts, 120) == at(160)
    assert weigh(doubts, 160) == at(100)


def test_a_report_that_comes_in_between_ends_the_doubt() -> None:
    doubts = Doubts(cast(Cluster, Answers("a", "b", "a")))
    assert weigh(doubts, 5000) == at(5060)
    assert weigh(doubts, 5060) == at(5120)
    assert weigh(doubts, 5120) == at(5180)


def test_a_budget_that_no_time_can_use_up_is_a_limit_in_ten_years() -> None:
    allowance = allow(price=0.01, budget={"cost": 1e9}, deadlines={"stalledSeconds": 0})
    assert due(find_limits(allowance, running(start=0), None)) == [(at(315_360_000), Cause.BUDGET_EXCEEDED)]


def test_a_pod_that_was_asked_to_end_does_not_stand_still() -> None:
    leaving = Pod("p", "u", start=at(100), leaving=True)
    assert find_limits(allow(), replace(running(), open_pod=leaving), stepped(200)) == []


def test_an_attempt_that_is_asked_to_end_by_its_user_says_so_but_not_one_at_its_limit() -> None:
    stop = Decision(Action.STOP, 1)
    [attempt] = hold_stopped(stop, [ATTEMPT]).attempts
    assert attempt.stopping
    assert attempt.to_status()["stopping"] is True
    assert Attempt.from_status(attempt.to_status()) == attempt
    ending = replace(ATTEMPT, ending=Cause.HANG)
    assert hold_stopped(stop, [ending]).attempts == [ending]
    assert "stopping" not in ATTEMPT.to_status()
