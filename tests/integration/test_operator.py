"""The operator on a real API server, with the chart's rights. Pods get no node: we tell how they end."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from builders import make_failure, make_success
from operator_process import OperatorProcess
from run_bench import RUNS, UNSCHEDULED, Bench, children_of

from trainwright.contract import Cause, ExitCode, RunPlan

Object = dict[str, Any]


def condition(status: Object, type_: str) -> Object:
    return next(item for item in status["conditions"] if item["type"] == type_)


def test_a_run_becomes_a_plan_a_workspace_and_a_job(bench: Bench) -> None:
    bench.create()
    pod = bench.wait_for_pod(1)
    uid = bench.get()["metadata"]["uid"]
    children = [
        bench.core.read_namespaced_config_map("run-plan", bench.namespace),
        bench.core.read_namespaced_persistent_volume_claim("run-workspace", bench.namespace),
        bench.batch.read_namespaced_job("run-1", bench.namespace),
    ]
    assert {child.metadata.owner_references[0].uid for child in children} == {uid}
    assert (
        bench.core.read_namespaced_pod(pod, bench.namespace).spec.service_account_name
        == "trainwright-trainer"
    )


def test_a_run_whose_pod_finishes_succeeds_and_kubectl_wait_would_return(bench: Bench) -> None:
    bench.create()
    bench.end_pod(bench.wait_for_pod(1), 0, make_success(1))
    status = bench.wait_for_phase("Succeeded")
    assert condition(status, "Succeeded")["status"] == "True"
    assert status["observedGeneration"] == 1
    assert status["attempts"][0]["outcome"] == "Succeeded"


def test_nothing_of_ours_is_on_the_users_object(bench: Bench) -> None:
    bench.create()
    bench.wait_for_pod(1)
    metadata = bench.get()["metadata"]
    assert "finalizers" not in metadata
    assert "annotations" not in metadata
    assert "labels" not in metadata


def test_a_failure_that_no_retry_can_mend_fails_at_once_with_its_cause_and_hint(bench: Bench) -> None:
    bench.create()
    bench.end_pod(
        bench.wait_for_pod(1), ExitCode.DATA, make_failure(1, Cause.DATA, ExitCode.DATA, "no images")
    )
    status = bench.wait_for_phase("Failed")
    assert status["failure"] | {} == {
        "cause": "Data",
        "exitCode": 65,
        "message": "no images",
        "hint": "mend it",
    }
    assert condition(status, "Failed")["reason"] == "NotRetryable"


def test_attempts_follow_each_other_until_the_budget_is_spent_and_a_request_grants_one_more(
    bench: Bench,
) -> None:
    bench.create(retry={"publishing": 1})
    for attempt in (1, 2):
        word = make_failure(attempt, Cause.PUBLISHING, ExitCode.PUBLISHING, "401")
        bench.end_pod(bench.wait_for_pod(attempt), ExitCode.PUBLISHING, word)
    status = bench.wait_for_phase("Failed")
    assert condition(status, "Failed")["reason"] == "BudgetSpent"
    assert status["attempt"] == 2
    bench.patch(retryRequest="password mended")
    bench.end_pod(bench.wait_for_pod(3), 0, make_success(3))
    status = bench.wait_for_phase("Succeeded")
    assert [attempt["outcome"] for attempt in status["attempts"]] == ["Failed", "Failed", "Succeeded"]
    assert "failure" not in status


def test_everything_that_is_missing_is_said_at_once_and_the_run_goes_on_when_it_is_there(
    bench: Bench,
) -> None:
    bench.create(
        dataset={"source": {"persistentVolumeClaim": {"claimName": "annotations"}}},
        delivery={
            "api": {"url": "https://api.example", "credentials": {"secretName": "publisher"}},
            "sealing": {
                "recipients": {"configMapName": "recipients"},
                "signingKey": {"secretName": "signing"},
            },
        },
    )
    status = bench.wait(lambda status: condition(status, "Accepted")["status"] == "False")
    message = condition(status, "Accepted")["message"]
    for name in ("annotations", "publisher", "recipients", "signing"):
        assert repr(name) in message
    assert bench.batch.list_namespaced_job(bench.namespace).items == []
    _create_what_is_missing(bench)
    bench.wait(lambda status: condition(status, "Accepted")["status"] == "True", seconds=30)
    bench.wait_for_pod(1)


def test_settings_that_are_wrong_are_said_along_with_what_is_missing(bench: Bench) -> None:
    bench.create(
        dataset={"source": {"persistentVolumeClaim": {"claimName": "annotations"}}},
        training={"arguments": {"lrf0": 0.1}},
        delivery={"folder": "models"},
    )
    status = bench.wait(lambda status: condition(status, "Accepted")["status"] == "False")
    for fragment in ("annotations", "lrf0", "spec.delivery.api.url"):
        assert fragment in condition(status, "Accepted")["message"]


def _create_what_is_missing(bench: Bench) -> None:
    label = {"trainwright.dev/use": "delivery"}
    secrets = {
        "publisher": {"AZAION_API_EMAIL": "a@b.example", "AZAION_API_PASSWORD": "x"},
        "signing": {"publisher.key": "x"},
    }
    for name, data in secrets.items():
        body = {"metadata": {"name": name, "labels": label}, "stringData": data}
        bench.core.create_namespaced_secret(bench.namespace, body)
    metadata = {"name": "recipients", "labels": {"trainwright.dev/use": "recipients"}}
    bench.core.create_namespaced_config_map(
        bench.namespace, {"metadata": metadata, "data": {"reader.pub": "x"}}
    )
    claim = {"accessModes": ["ReadOnlyMany"], "resources": {"requests": {"storage": "1Gi"}}}
    bench.core.create_namespaced_persistent_volume_claim(
        bench.namespace, {"metadata": {"name": "annotations"}, "spec": claim}
    )


def test_a_planted_config_map_of_the_plans_name_is_not_adopted(bench: Bench) -> None:
    planted = {"metadata": {"name": "run-plan"}, "data": {"plan.json": "{}"}}
    bench.core.create_namespaced_config_map(bench.namespace, planted)
    bench.create()
    status = bench.wait(lambda status: condition(status, "Accepted")["status"] == "False")
    assert condition(status, "Accepted")["reason"] == "NameTaken"
    assert "'run-plan'" in condition(status, "Accepted")["message"]
    found = bench.core.read_namespaced_config_map("run-plan", bench.namespace)
    assert (found.data, found.metadata.owner_references) == ({"plan.json": "{}"}, None)
    assert bench.batch.list_namespaced_job(bench.namespace).items == []


@pytest.mark.parametrize("marked_as", ["forged", "honest"])
def test_a_plan_that_somebody_planted_in_the_runs_name_is_not_believed(bench: Bench, marked_as: str) -> None:
    bench.create("first")
    bench.wait_for_pod(1, "first")
    plan = bench.core.read_namespaced_config_map("first-plan", bench.namespace)
    bench.create(suspend=True)
    bench.wait_for_phase("Suspended")
    body = json.loads(plan.data["plan.json"])
    run = bench.get()
    version = f"{run['metadata']['creationTimestamp'][:10]}-{run['metadata']['uid'][:8]}"
    body["run"] = {key: run["metadata"][key] for key in ("name", "namespace", "uid")}
    body["model"]["version"] = version
    honest = RunPlan.model_validate(body)
    forged = honest.model_copy(update={"gpus": 8})
    digest = forged.digest if marked_as == "forged" else honest.digest
    owner = {"apiVersion": "/".join(RUNS), "kind": "TrainingRun", "controller": True}
    metadata = {
        "name": "run-plan",
        "annotations": {"trainwright.dev/plan-digest": digest},
        "ownerReferences": [{**owner, "name": "run", "uid": run["metadata"]["uid"]}],
    }
    bench.core.create_namespaced_config_map(
        bench.namespace, {"metadata": metadata, "data": {"plan.json": forged.to_json()}}
    )
    bench.patch(suspend=False)
    status = bench.wait(lambda status: condition(status, "Accepted")["status"] == "False")
    assert condition(status, "Accepted")["reason"] == "NameTaken"


def test_deleting_a_run_removes_its_children(bench: Bench) -> None:
    bench.create()
    bench.wait_for_pod(1)
    bench.runs.delete_namespaced_custom_object(*RUNS, bench.namespace, "trainingruns", "run")
    deadline = time.monotonic() + 30
    while children_of(bench):
        assert time.monotonic() < deadline, children_of(bench)
        time.sleep(0.1)


def test_a_finished_run_whose_job_and_plan_are_deleted_stays_finished(
    bench: Bench, operator: OperatorProcess
) -> None:
    bench.create()
    bench.end_pod(bench.wait_for_pod(1), 0, make_success(1))
    before = bench.wait_for_phase("Succeeded")
    bench.batch.delete_namespaced_job("run-1", bench.namespace, propagation_policy="Background")
    bench.core.delete_namespaced_config_map("run-plan", bench.namespace)
    operator.kill()
    operator.start()
    time.sleep(1)
    assert bench.get()["status"] == before
    assert bench.batch.list_namespaced_job(bench.namespace).items == []


def test_a_run_goes_on_when_the_operator_was_killed_and_the_pod_ended_meanwhile(
    bench: Bench, operator: OperatorProcess
) -> None:
    bench.create()
    pod = bench.wait_for_pod(1)
    operator.kill()
    bench.end_pod(pod, 0, make_success(1))
    operator.start()
    assert bench.wait_for_phase("Succeeded")["attempt"] == 1


def test_a_deleted_job_is_followed_by_another_attempt(bench: Bench) -> None:
    bench.create()
    bench.wait_for_pod(1)
    bench.batch.delete_namespaced_job("run-1", bench.namespace, propagation_policy="Background")
    bench.wait_for_pod(2)
    first = bench.get()["status"]["attempts"][0]
    assert (first["cause"], first["message"]) == ("Killed", "the Job run-1 was deleted")


def test_another_attempt_waits_until_the_pod_of_a_deleted_job_has_ended(bench: Bench) -> None:
    bench.create()
    pod = bench.wait_for_pod(1)
    node = {"metadata": {"name": pod}, "target": {"kind": "Node", "name": "silent"}}
    bench.core.create_namespaced_binding(bench.namespace, node, _preload_content=False)
    bench.batch.delete_namespaced_job("run-1", bench.namespace, propagation_policy="Background")
    time.sleep(3)
    assert bench.core.read_namespaced_pod(pod, bench.namespace).metadata.deletion_timestamp
    assert bench.get()["status"]["attempt"] == 1
    assert bench.batch.list_namespaced_job(bench.namespace).items == []
    bench.core.delete_namespaced_pod(pod, bench.namespace, grace_period_seconds=0)
    bench.wait_for_pod(2)


def test_a_pod_that_copies_our_labels_never_becomes_the_one_that_may_report(bench: Bench) -> None:
    bench.create()
    pod = bench.wait_for_pod(1)
    real = bench.core.read_namespaced_pod(pod, bench.namespace)
    node = {"metadata": {"name": pod}, "target": {"kind": "Node", "name": "silent"}}
    bench.core.create_namespaced_binding(bench.namespace, node, _preload_content=False)
    time.sleep(1.1)  # it is the newer one, in whole seconds
    container = {"name": "trainer", "image": "planted:1"}
    planted = {
        "metadata": {"name": "planted", "labels": real.metadata.labels},
        "spec": {"schedulerName": "nobody", "containers": [container]},
    }
    bench.core.create_namespaced_pod(bench.namespace, planted)
    bench.batch.delete_namespaced_job("run-1", bench.namespace, propagation_policy="Background")
    time.sleep(3)
    status = bench.get()["status"]
    assert (status["attempt"], status["currentPod"]["uid"]) == (1, real.metadata.uid)
    for name in (pod, "planted"):
        bench.core.delete_namespaced_pod(name, bench.namespace, grace_period_seconds=0)
    bench.wait_for_pod(2)


def test_a_run_made_again_by_its_name_waits_for_what_the_former_one_left(bench: Bench) -> None:
    bench.create()
    bench.wait_for_pod(1)
    bench.runs.delete_namespaced_custom_object(*RUNS, bench.namespace, "trainingruns", "run")
    bench.create()
    # The garbage collector looks for new kinds, such as ours, every 30 s only.
    bench.wait(lambda status: _reason(status) in ("LeftOver", "Valid"))
    bench.wait(lambda status: _reason(status) == "Valid", seconds=60)
    bench.wait_for_pod(1)
    uid = bench.get()["metadata"]["uid"]
    claim = bench.core.read_namespaced_persistent_volume_claim("run-workspace", bench.namespace)
    assert claim.metadata.owner_references[0].uid == uid
    events = bench.core.list_namespaced_event(bench.namespace).items
    assert "NameTaken" not in [event.reason for event in events]


def _reason(status: Object) -> str:
    reason: str = condition(status, "Accepted")["reason"]
    return reason


def test_a_child_that_the_api_server_refuses_is_told_of(bench: Bench) -> None:
    bench.create(compute={**UNSCHEDULED, "nodeSelector": {"not a label": "x"}})
    status = bench.wait(lambda status: condition(status, "Accepted")["status"] == "False")
    assert condition(status, "Accepted")["reason"] == "Refused"
    assert "nodeSelector" in condition(status, "Accepted")["message"]


def test_suspending_ends_the_pod_and_resuming_starts_the_next_attempt(bench: Bench) -> None:
    bench.create()
    bench.wait_for_pod(1)
    bench.patch(suspend=True)
    status = bench.wait_for_phase("Suspended")
    assert condition(status, "Ready") | {} == condition(status, "Ready") | {
        "status": "True",
        "reason": "Suspended",
    }
    assert bench.core.list_namespaced_pod(bench.namespace).items == []
    bench.patch(suspend=False)
    bench.wait_for_pod(2)
    assert bench.get()["status"]["attempts"][0]["outcome"] == "Stopped"


def test_resuming_while_the_pod_still_saves_costs_no_budget(bench: Bench) -> None:
    bench.create(retry={"infrastructure": 0})
    pod = bench.wait_for_pod(1)
    node = {"metadata": {"name": pod}, "target": {"kind": "Node", "name": "silent"}}
    bench.core.create_namespaced_binding(bench.namespace, node, _preload_content=False)
    bench.patch(suspend=True)
    bench.wait(lambda status: status["attempts"][0].get("stopping", False))
    bench.patch(suspend=False)
    bench.wait(lambda status: status["observedGeneration"] == 3)
    bench.core.delete_namespaced_pod(pod, bench.namespace, grace_period_seconds=0)
    bench.wait_for_pod(2)
    status = bench.get()["status"]
    assert (status["attempts"][0]["outcome"], status.get("failures")) == ("Stopped", None)


def test_cancelling_is_for_good(bench: Bench) -> None:
    bench.create()
    bench.wait_for_pod(1)
    bench.patch(cancel=True)
    bench.wait_for_phase("Cancelled")
    bench.patch(retryRequest="please")
    status = bench.wait(lambda status: status["observedGeneration"] == 3)
    assert status["phase"] == "Cancelled"
    assert bench.batch.list_namespaced_job(bench.namespace).items == []


def test_transitions_are_told_as_events_about_the_run(bench: Bench) -> None:
    bench.create()
    bench.end_pod(bench.wait_for_pod(1), 0, make_success(1))
    bench.wait_for_phase("Succeeded")
    deadline = time.monotonic() + 10
    while "Succeeded" not in (reasons := _event_reasons(bench)):
        assert time.monotonic() < deadline, reasons
        time.sleep(0.1)
    assert "AttemptStarted" in reasons


def _event_reasons(bench: Bench) -> list[str]:
    events = bench.core.list_namespaced_event(bench.namespace).items
    return [event.reason for event in events if event.involved_object.kind == "TrainingRun"]


def test_a_run_at_rest_is_not_written_to(bench: Bench) -> None:
    bench.create()
    bench.wait_for_pod(1)
    time.sleep(0.5)
    before = bench.get()["metadata"]["resourceVersion"]
    time.sleep(6)  # longer than a relist
    assert bench.get()["metadata"]["resourceVersion"] == before
