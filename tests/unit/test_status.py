"""The status of a run is computed from what is there."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from builders import (
    DIGEST,
    RunBuilder,
    make_failure,
    make_job,
    make_pod,
    make_report,
    make_success,
    terminated,
)

from trainwright.contract import Cause, ExitCode, Outcome, Progress, PromotionReport, Stage
from trainwright_operator.accounts import Terms, close_accounts
from trainwright_operator.api import TrainingRunStatus
from trainwright_operator.attempts import Observation
from trainwright_operator.history import read_history
from trainwright_operator.names import Reason
from trainwright_operator.retries import decide
from trainwright_operator.situation import Acceptance, Situation
from trainwright_operator.status import compute_status, is_final

NOW = datetime(2026, 1, 2, 4, 0, tzinfo=UTC)
Object = dict[str, Any]


def compute(
    run: Object,
    *pairs: tuple[Object, Object | None],
    acceptance: Acceptance | None = None,
    now: datetime = NOW,
) -> Object:
    """Return the status, after checking that the CRD's model accepts it."""
    jobs = {job["metadata"]["name"]: job for job, _ in pairs}
    pods = {job["metadata"]["name"]: [pod] if pod else [] for job, pod in pairs}
    observation = Observation(run, jobs, pods, now)
    accounts = close_accounts(observation, read_history(observation), Terms())
    attempts = accounts.attempts
    decision = decide(observation, attempts, {}, backoff_seconds=0)
    status = compute_status(Situation(observation, attempts, decision, acceptance, accounts))
    model = TrainingRunStatus.model_validate(status)
    known = model.model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert names_of(known) == names_of(status), "the CRD's schema would refuse what it does not know"
    return status


def names_of(value: Any) -> Any:
    """Return the names of all fields, without their values."""
    if isinstance(value, dict):
        return {name: names_of(member) for name, member in value.items()}
    return [names_of(member) for member in value] if isinstance(value, list) else None


def conditions(status: Object) -> dict[str, str]:
    return {condition["type"]: condition["status"] for condition in status["conditions"]}


def condition(status: Object, type_: str) -> Object:
    return next(item for item in status["conditions"] if item["type"] == type_)


def test_the_first_status_holds_every_condition() -> None:
    status = compute(RunBuilder().build(), acceptance=Acceptance())
    assert conditions(status) == {
        "Accepted": "True",
        "Admitted": "Unknown",
        "DatasetReady": "Unknown",
        "Trained": "Unknown",
        "Verified": "Unknown",
        "Published": "Unknown",
        "Promoted": "Unknown",
        "Succeeded": "False",
        "Failed": "False",
        "Suspended": "False",
        "Ready": "False",
        "Reconciling": "True",
        "Stalled": "False",
    }


def test_the_same_objects_give_the_same_status_and_keep_its_times() -> None:
    run = RunBuilder().build()
    pairs = ((make_job(1), make_pod(1)),)
    first = compute(run, *pairs, acceptance=Acceptance())
    later = datetime(2026, 1, 2, 5, 0, tzinfo=UTC)
    assert compute(RunBuilder().status(first).build(), *pairs, now=later) == first


def test_a_refused_run_lists_all_problems_and_stalls_after_a_minute() -> None:
    refusal = Acceptance(("no Secret", "no claim"), Reason.MISSING)
    soon = datetime(2026, 1, 2, 3, 4, 20, tzinfo=UTC)
    fresh = compute(RunBuilder().build(), acceptance=refusal, now=soon)
    assert condition(fresh, "Accepted")["message"] == "no Secret; no claim"
    assert (conditions(fresh)["Reconciling"], conditions(fresh)["Stalled"]) == ("True", "False")
    stale = compute(RunBuilder().build(), acceptance=refusal)
    assert (conditions(stale)["Reconciling"], conditions(stale)["Stalled"]) == ("False", "True")


def test_a_pod_that_cannot_be_scheduled_is_explained() -> None:
    unscheduled = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes have nvidia.com/gpu"}
    pod = make_pod(1, phase="Pending", conditions=[unscheduled])
    status = compute(RunBuilder().build(), (make_job(1), pod), acceptance=Acceptance())
    assert status["phase"] == "Pending"
    assert "0/3 nodes have nvidia.com/gpu" in condition(status, "Ready")["message"]


def test_an_epoch_alone_is_no_reason_to_write_the_status() -> None:
    pairs = ((make_job(1), make_pod(1)),)
    epochs = [
        make_report(
            1, metrics={"mAP50": epoch / 10}, progress=Progress(percent=40, stage=Stage.TRAINING, epoch=epoch)
        )
        for epoch in (3, 4)
    ]
    first = compute(RunBuilder().reporting(epochs[0]).build(), *pairs, acceptance=Acceptance())
    assert compute(RunBuilder().status(first).reporting(epochs[1]).build(), *pairs) == first


def test_the_running_pod_is_the_one_that_may_report() -> None:
    status = compute(RunBuilder().build(), (make_job(1), make_pod(1)), acceptance=Acceptance())
    assert status["phase"] == "Running"
    assert status["currentPod"] == {"name": "parts-1-1-abcde", "uid": "pod-1"}


def test_a_pod_that_has_ended_is_running_until_its_job_says_how() -> None:
    pod = make_pod(1, phase="Succeeded", containerStatuses=terminated(0, make_success().to_json()))
    status = compute(RunBuilder().build(), (make_job(1), pod), acceptance=Acceptance())
    assert status["phase"] == "Running"


def test_finished_stages_are_conditions_and_stay_so_in_the_next_attempt() -> None:
    done = {Stage.DATASET: 1.0, Stage.TRAINING: 60.0}
    run = RunBuilder().reporting(make_report(1, finished_stages=done)).build()
    status = compute(run, (make_job(1), make_pod(1)), acceptance=Acceptance())
    assert (conditions(status)["DatasetReady"], conditions(status)["Trained"]) == ("True", "True")
    run = RunBuilder().status(status).reporting(make_report(2)).build()
    status = compute(run, (make_job(1, condition="Failed"), None), (make_job(2), make_pod(2)))
    assert conditions(status)["Trained"] == "True"


def test_success_is_read_from_the_pods_last_word() -> None:
    pod = make_pod(1, phase="Succeeded", containerStatuses=terminated(0, make_success().to_json()))
    status = compute(RunBuilder().build(), (make_job(1, condition="Complete"), pod), acceptance=Acceptance())
    assert status["phase"] == "Succeeded"
    assert status["model"]["digest"] == DIGEST
    expected = {"Succeeded": "True", "Published": "True", "Ready": "True", "Reconciling": "False"}
    assert expected.items() <= conditions(status).items()


def test_results_are_kept_when_pod_and_report_are_gone() -> None:
    pod = make_pod(1, phase="Succeeded", containerStatuses=terminated(0, make_success().to_json()))
    job = make_job(1, condition="Complete")
    status = compute(RunBuilder().build(), (job, pod), acceptance=Acceptance())
    assert compute(RunBuilder().status(status).build())["model"] == status["model"]


@pytest.mark.parametrize("promoted", [True, False])
def test_a_published_model_is_promoted_only_if_it_passed_its_gate(promoted: bool) -> None:
    reason = "mAP50 0.400 on the test split is below gate.minimum 0.7"
    word = make_success().model_copy(update={"promotion": PromotionReport(promoted=promoted, reason=reason)})
    pod = make_pod(1, phase="Succeeded", containerStatuses=terminated(0, word.to_json()))
    status = compute(RunBuilder().build(), (make_job(1, condition="Complete"), pod), acceptance=Acceptance())
    assert status["phase"] == "Succeeded"
    assert condition(status, "Promoted")["status"] == str(promoted)
    assert condition(status, "Promoted")["message"] == reason


def test_cancelling_a_failed_run_changes_nothing() -> None:
    pod = make_pod(1, phase="Failed", containerStatuses=terminated(ExitCode.DATA))
    status = compute(RunBuilder().build(), (make_job(1, condition="Failed"), pod), acceptance=Acceptance())
    assert is_final(RunBuilder().spec(cancel=True).status(status).build())


def test_a_dry_run_is_told_from_a_success() -> None:
    report = make_report(
        1,
        progress=Progress(percent=100, stage=Stage.DATASET),
        finished_stages={Stage.DATASET: 1.0},
        outcome=Outcome.DRY_RUN,
    )
    pod = make_pod(1, phase="Succeeded", containerStatuses=terminated(0, report.to_json()))
    run = RunBuilder().spec(dryRun=True).build()
    status = compute(run, (make_job(1, condition="Complete"), pod), acceptance=Acceptance())
    assert condition(status, "Succeeded")["reason"] == "DryRun"
    assert condition(status, "Trained")["reason"] == "NotRequested"


def test_a_failure_names_stage_cause_exit_code_and_hint() -> None:
    word = make_failure(1, Cause.DATA, ExitCode.DATA, "no image left")
    pod = make_pod(1, phase="Failed", containerStatuses=terminated(ExitCode.DATA, word.to_json()))
    status = compute(RunBuilder().build(), (make_job(1, condition="Failed"), pod), acceptance=Acceptance())
    assert status["phase"] == "Failed"
    assert status["failure"] == {
        "cause": "Data",
        "exitCode": 65,
        "message": "no image left",
        "hint": "mend it",
    }
    assert conditions(status)["Stalled"] == "True"


def test_the_log_tail_of_a_pod_that_died_without_a_word_is_kept() -> None:
    pod = make_pod(1, phase="Failed", containerStatuses=terminated(ExitCode.DATA, "Bus error (core dumped)"))
    status = compute(RunBuilder().build(), (make_job(1, condition="Failed"), pod), acceptance=Acceptance())
    assert status["failure"]["logTail"] == "Bus error (core dumped)"


def test_what_an_earlier_attempt_reported_is_not_said_of_the_one_that_failed() -> None:
    run = RunBuilder().reporting(make_failure(1, Cause.PUBLISHING, ExitCode.PUBLISHING, "401")).build()
    pod = make_pod(2, phase="Failed", containerStatuses=terminated(ExitCode.DATA, "no image"))
    status = compute(run, (make_job(2, condition="Failed"), pod), acceptance=Acceptance())
    assert status["failure"]["logTail"] == "no image"
    assert status["failure"].get("hint") != "mend it"


def test_a_report_that_this_operator_cannot_read_keeps_it_from_nothing() -> None:
    run = RunBuilder().spec(cancel=True).reporting(make_report(1)).build()
    run["status"]["trainer"]["finishedStages"] = {"Distillation": 3.0}
    assert compute(run, (make_job(1), make_pod(1)))["phase"] == "Running"  # until its Job is stopped


def test_a_last_word_beyond_the_bounds_of_the_schema_is_kept_as_a_log_tail() -> None:
    word = make_failure(1, Cause.DATA, ExitCode.DATA).to_json().replace("mend it", "x" * 1500)
    pod = make_pod(1, phase="Failed", containerStatuses=terminated(ExitCode.DATA, word))
    status = compute(RunBuilder().build(), (make_job(1, condition="Failed"), pod), acceptance=Acceptance())
    assert (status["phase"], status["failure"]["cause"]) == ("Failed", "Data")


@pytest.mark.parametrize(("field", "phase"), [("suspend", "Suspended"), ("cancel", "Cancelled")])
def test_a_stopped_run_says_so(field: str, phase: str) -> None:
    status = compute(RunBuilder().spec(**{field: True}).build())
    assert status["phase"] == phase
    assert conditions(status)["Ready"] == ("True" if field == "suspend" else "False")


def test_success_and_cancellation_are_final_whatever_is_asked_for_later() -> None:
    pod = make_pod(1, phase="Succeeded", containerStatuses=terminated(0, make_success().to_json()))
    status = compute(RunBuilder().build(), (make_job(1, condition="Complete"), pod), acceptance=Acceptance())
    assert is_final(RunBuilder().spec(retryRequest="again", suspend=True).status(status).build())
    cancelled = compute(RunBuilder().spec(cancel=True).build())
    assert is_final(RunBuilder().spec(cancel=True, retryRequest="again").status(cancelled).build())


def test_failure_is_final_until_a_new_retry_request() -> None:
    pod = make_pod(1, phase="Failed", containerStatuses=terminated(ExitCode.DATA))
    pair = (make_job(1, condition="Failed"), pod)
    status = compute(RunBuilder().build(), pair, acceptance=Acceptance())
    assert is_final(RunBuilder().status(status).build())
    assert not is_final(RunBuilder().spec(retryRequest="again").status(status).build())


def test_the_longest_status_stays_below_16_kib() -> None:
    word = make_failure(1, Cause.PUBLISHING, ExitCode.PUBLISHING, "x" * 2048)
    pairs = []
    for number in range(1, 40):
        exit_code = ExitCode.PREEMPTED if number < 39 else ExitCode.DATA
        pod = make_pod(number, phase="Failed", containerStatuses=terminated(exit_code, word.to_json()))
        pairs.append((make_job(number, condition="Failed"), pod))
    status = compute(RunBuilder().build(), *pairs, acceptance=Acceptance(("y" * 9000,), Reason.MISSING))
    assert len(status["attempts"]) == 10
    assert len(json.dumps(status)) + 4096 < 16 * 1024
