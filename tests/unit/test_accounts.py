"""What a run used and lost is counted once, whatever happens between two looks at it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from builders import DIGEST, RunBuilder, make_failure, make_job, make_pod, make_report, make_success
from hypothesis import given
from hypothesis import strategies as st

from trainwright.contract import Cause, CheckpointReport, ExitCode, RunReport
from trainwright_operator.accounts import Accounts, Terms, Usage, close_accounts
from trainwright_operator.attempts import Observation
from trainwright_operator.history import read_history
from trainwright_operator.names import GPUS_ANNOTATION
from trainwright_operator.times import format_time

BEGIN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)  # when all Jobs of the builders were made
Object = dict[str, Any]


def at(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


def job(number: int = 1, *, made: int = 0, ended: int | None = None, gpus: int = 2, **how: Any) -> Object:
    body = make_job(number, condition=how.pop("condition", "Failed") if ended is not None else "")
    body["metadata"]["annotations"][GPUS_ANNOTATION] = str(gpus)
    body["metadata"]["creationTimestamp"] = format_time(at(made))
    for condition in body["status"]["conditions"]:
        condition["lastTransitionTime"] = format_time(at(ended or 0))
    body["spec"] = how
    return body


def pod(
    number: int,
    start: int | None,
    end: int | None = None,
    *,
    uid: str = "a",
    code: int = 70,
    word: Any = None,
) -> Object:
    body = make_pod(number, phase="Pending" if start is None else "Running" if end is None else "Failed")
    body["metadata"] |= {"uid": f"{number}-{uid}", "name": f"parts-1-{number}-{uid}"}
    state: Object = {"running": {"startedAt": format_time(at(start or 0))}}
    if end is not None:
        times = {"startedAt": format_time(at(start or 0)), "finishedAt": format_time(at(end))}
        state = {"terminated": {"exitCode": code, "message": word.to_json() if word else "", **times}}
    if start is not None:
        body["status"]["containerStatuses"] = [{"name": "trainer", "state": state}]
    return body


def saved(attempt: int, seconds: int, *, stored: bool = False) -> RunReport:
    """Return a report of a checkpoint, in the store too or not."""
    stored_epoch = 3 if stored else None
    checkpoint = CheckpointReport(
        epoch=3, time=at(seconds), save_seconds=1, digest=DIGEST, stored_epoch=stored_epoch
    )
    return make_report(attempt, checkpoint=checkpoint)


class Life:
    """A run whose status is written after each look, as the operator would."""

    def __init__(self, terms: Terms | None = None, **spec: Any) -> None:
        self.run = RunBuilder().spec(**spec).build()
        self.terms = terms or Terms()

    def look(
        self, *pairs: tuple[Object, list[Object]], now: int = 9999, report: RunReport | None = None
    ) -> Accounts:
        if report:
            self.run["status"]["trainer"] = report.model_dump(mode="json", by_alias=True, exclude_none=True)
        jobs = {item["metadata"]["name"]: item for item, _ in pairs}
        pods = {item["metadata"]["name"]: found for item, found in pairs}
        observation = Observation(self.run, jobs, pods, at(now))
        accounts = close_accounts(observation, read_history(observation), self.terms)
        self.run["status"] = self.run.get("status", {}) | {
            "attempts": [attempt.to_status() for attempt in accounts.attempts],
            "currentPod": accounts.current_pod or {},
            "usage": accounts.usage.to_status(),
        }
        return accounts

    @property
    def attempts(self) -> list[Object]:
        found: list[Object] = self.run["status"]["attempts"]
        return found


def figures(usage: Usage) -> tuple[int, ...]:
    return usage.gpu_seconds, usage.useful, usage.lost_to_preemption, usage.lost_to_failure


def test_a_success_is_useful_from_its_containers_start_to_its_end() -> None:
    life = Life()
    life.look((job(), [pod(1, 30)]))
    word = make_success(1)
    done = life.look((job(ended=131, condition="Complete"), [pod(1, 30, 130, code=0, word=word)]))
    assert figures(done.usage) == (200, 200, 0, 0)
    assert (done.usage.pod_seconds, done.usage.queued_seconds) == (100, 30)
    assert life.attempts[0] | {"gpus": 2, "gpuSeconds": 200, "podSeconds": 100} == life.attempts[0]
    assert "lostSeconds" not in life.attempts[0]


def test_what_lies_behind_the_newest_checkpoint_is_lost_with_a_failure() -> None:
    life = Life()
    life.look((job(), [pod(1, 10)]))
    failure = make_failure(1, Cause.INTERNAL, ExitCode.INTERNAL)
    word = failure.model_copy(update={"checkpoint": saved(1, 70).checkpoint})
    done = life.look((job(ended=110), [pod(1, 10, 110, word=word)]))
    assert figures(done.usage) == (200, 120, 0, 80)
    assert (done.usage.lost_pod_seconds, life.attempts[0]["lostSeconds"]) == (40, 40)


def test_a_finished_stage_is_not_lost_though_nothing_was_trained_yet() -> None:
    life = Life()
    life.look((job(), [pod(1, 0)]))
    report = make_report(1, stage_time=at(60))
    done = life.look((job(ended=100), [pod(1, 0, 100)]), report=report)
    assert figures(done.usage) == (200, 120, 0, 80)


def test_a_checkpoint_that_an_earlier_pod_made_is_none_of_this_ones_work() -> None:
    life = Life()
    life.look((job(), [pod(1, 0)]))
    life.look((job(ended=100), [pod(1, 0, 100)]), report=saved(1, 90))
    life.look((job(2, made=100), [pod(2, 120)]), (job(ended=100), []))
    done = life.look((job(2, made=100, ended=150), [pod(2, 120, 150)]), report=saved(2, 90))
    assert figures(done.usage) == (260, 180, 0, 80)
    assert done.usage.queued_seconds == 20


@pytest.mark.parametrize(("stored", "useful"), [(True, 120), (False, 0)])
def test_in_an_emptydir_only_a_stored_checkpoint_is_not_lost(stored: bool, useful: int) -> None:
    life = Life(Terms(keeps_workspace=False))
    life.look((job(), [pod(1, 0)]))
    report = saved(1, 60, stored=stored).model_copy(update={"stage_time": at(80)})
    done = life.look((job(ended=100), [pod(1, 0, 100)]), report=report)
    assert done.usage.useful == useful


def test_preemptions_and_suspensions_have_figures_of_their_own() -> None:
    life = Life()
    life.look((job(), [pod(1, 0)]))
    evicted = pod(1, 0, 100, code=76)
    done = life.look((job(ended=100), [evicted]), report=saved(1, 60))
    assert figures(done.usage) == (200, 120, 80, 0)
    life.look((job(2, made=100), [pod(2, 110)]))
    life.run["spec"]["suspend"] = True
    done = life.look(now=160)
    assert (done.usage.lost_to_suspension, done.usage.gpu_seconds) == (100, 300)


def test_a_pod_that_a_queue_replaces_is_closed_when_the_job_is_suspended_and_the_wait_is_counted() -> None:
    life = Life()
    life.look((job(), [pod(1, 10)]))
    taken = life.look((job(suspend=True), [pod(1, 10, 50)]), report=saved(1, 40))
    assert figures(taken.usage) == (80, 60, 20, 0)
    assert taken.waiting_since == at(50)
    again = life.look((job(), [pod(1, 10, 50), pod(1, 200, uid="b")]))
    assert (again.usage.queued_seconds, again.usage.gpu_seconds) == (10 + 150, 80)
    done = life.look((job(ended=300, condition="Complete"), [pod(1, 200, 300, uid="b")]))
    assert (done.usage.gpu_seconds, done.usage.useful) == (280, 260)
    assert life.attempts[0]["gpuSeconds"] == 280


def test_a_pod_that_was_replaced_unseen_is_closed_with_the_next() -> None:
    life = Life()
    life.look((job(), [pod(1, 0)]))
    done = life.look((job(), [pod(1, 0, 40), pod(1, 50, 60, uid="b"), pod(1, 70, uid="c")]))
    assert done.usage.pod_seconds == 50
    assert done.usage.queued_seconds == 10 + 10
    assert done.current_pod == {"name": "parts-1-1-c", "uid": "1-c", "startTime": format_time(at(70))}


def test_a_pod_that_vanished_with_its_job_counts_until_that_was_seen() -> None:
    life = Life()
    life.look((job(), [pod(1, 10)]))
    done = life.look(now=60)
    assert (done.usage.pod_seconds, done.usage.lost_to_failure) == (50, 100)


def test_nothing_changes_while_time_merely_passes() -> None:
    life = Life()
    life.look((job(), [pod(1, 10)]), now=20)
    before = life.run["status"]
    running = life.look((job(), [pod(1, 10)]), now=500)
    assert life.run["status"] == before
    assert running.open_seconds(at(500)) == 490
    assert running.waiting_since is None


def test_a_pod_that_has_ended_waits_for_its_job_and_costs_no_write() -> None:
    life = Life()
    life.look((job(), [pod(1, 10)]))
    before = life.run["status"]
    ended = life.look((job(), [pod(1, 10, 60)]), now=61)
    assert life.run["status"] == before
    assert (ended.open_seconds(at(61)), ended.waiting_since) == (50, None)


def test_an_attempt_whose_pod_never_ran_only_waited() -> None:
    life = Life()
    life.look((job(), [pod(1, None)]))
    done = life.look((job(ended=90), []))
    assert (done.usage.queued_seconds, done.usage.pod_seconds) == (90, 0)


def test_a_run_without_gpus_shows_its_waste_in_pod_seconds() -> None:
    life = Life()
    life.look((job(gpus=0), [pod(1, 0)]))
    done = life.look((job(gpus=0, ended=100), [pod(1, 0, 100)]), report=saved(1, 30))
    assert figures(done.usage) == (0, 0, 0, 0)
    assert (done.usage.pod_seconds, done.usage.lost_pod_seconds) == (100, 70)


def test_the_price_of_then_is_paid() -> None:
    life = Life(Terms(price=2.5))
    life.look((job(), [pod(1, 0)]))
    done = life.look((job(ended=3600), [pod(1, 0, 3600)]))
    assert done.usage.cost == 5.0
    life.terms = Terms(price=100)
    again = life.look((job(ended=3600), [pod(1, 0, 3600)]))
    assert again.usage.cost == 5.0


PODS = st.lists(
    st.tuples(
        st.integers(0, 300),  # seconds it waits
        st.integers(0, 3000),  # seconds it runs
        st.integers(-10, 4000),  # when its checkpoint was saved
        st.sampled_from(["replaced", "preempted", "failed"]),
    ),
    min_size=1,
    max_size=6,
)


@given(pods=PODS, looks=st.lists(st.integers(0, 12), max_size=12), lost=st.sets(st.integers(0, 11)))
def test_whatever_is_missed_or_written_in_vain_the_figures_agree(
    pods: list[tuple[int, int, int, str]], looks: list[int], lost: set[int]
) -> None:
    """Each pod is seen to run or not; some looks' writes are lost; in the end all is in the figures once."""
    moments = _tell(pods)
    wanted = sorted({min(look, len(moments) - 1) for look in looks} | {len(moments) - 1})
    life = Life(Terms(price=1))
    for number, index in enumerate(wanted):
        before = life.run.get("status")
        accounts = life.look(*moments[index])
        usage = accounts.usage
        lost_in_all = usage.lost_to_preemption + usage.lost_to_failure + usage.lost_to_suspension
        assert usage.useful + lost_in_all == usage.gpu_seconds == 2 * usage.pod_seconds
        assert 2 * usage.lost_pod_seconds == lost_in_all
        if number in lost and index != wanted[-1]:
            life.run["status"] = before or {}
    ran, waited = sum(pod[1] for pod in pods), sum(pod[0] for pod in pods)
    assert usage.pod_seconds == sum(a["podSeconds"] for a in life.attempts if "podSeconds" in a) == ran
    assert usage.queued_seconds == waited
    assert usage.cost == pytest.approx(2 * ran / 3600, abs=0.001)


def _tell(pods: list[tuple[int, int, int, str]]) -> list[list[tuple[Object, list[Object]]]]:
    """Return what is there at each moment: a pod begins, a pod ends, its Job ends."""
    moments, ended, there, clock, number, made = [], [], [], 0, 1, 0
    for index, (wait, run, save, how) in enumerate(pods):
        start, end = clock + wait, clock + wait + run
        moments.append([*ended, (job(number, made=made), [*there, pod(number, start, uid=str(index))])])
        report = saved(number, clock + save)
        there = [*there, pod(number, start, end, uid=str(index), code=76, word=report)]
        is_over = how != "replaced" or index == len(pods) - 1
        moments.append([*ended, (job(number, made=made, suspend=not is_over), there)])
        clock = end
        if is_over:
            ended = [*ended, (job(number, made=made, ended=end), there)]
            moments.append(ended)
            number, made, there = number + 1, end, []
    return moments


def test_a_pod_that_somebody_asked_to_end_is_known_as_leaving() -> None:
    staying, leaving = pod(1, 10), pod(1, 10)
    leaving["metadata"]["deletionTimestamp"] = format_time(at(40))
    found = []
    for each in (staying, leaving):
        run = RunBuilder().build()
        observation = Observation(run, {"parts-1-1": job(1)}, {"parts-1-1": [each]}, at(50))
        opened = close_accounts(observation, read_history(observation), Terms()).open_pod
        assert opened is not None
        found.append(opened.leaving)
    assert found == [False, True]
