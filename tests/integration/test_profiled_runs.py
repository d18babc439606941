"""Profiles on a real API server: what a run gets of one and keeps, and what it may not ask for."""

from __future__ import annotations

import json
import time
from typing import Any

from builders import make_failure
from operator_process import OperatorProcess
from run_bench import RUNS, UNSCHEDULED, Bench

from trainwright.contract import Cause, ExitCode

Object = dict[str, Any]
OPERATOR_SETTINGS = {"relistSeconds": 300}  # watches must do


def write_profile(bench: Bench, **spec: Any) -> None:
    """Make the profile `small`, or change it."""
    from kubernetes import client

    versions = [{"name": "v1", "image": "registry.example/trainer:v1", "default": True}]
    body = {
        "apiVersion": "/".join(RUNS),
        "kind": "TrainingProfile",
        "metadata": {"name": "small"},
        "spec": {"versions": versions, **spec},
    }
    arguments = (*RUNS, bench.namespace, "trainingprofiles")
    try:
        bench.runs.create_namespaced_custom_object(*arguments, body)
    except client.ApiException:
        bench.runs.patch_namespaced_custom_object(
            *arguments, "small", {"spec": body["spec"]}, _content_type="application/merge-patch+json"
        )


def get_profile(bench: Bench) -> Object:
    found: Object = bench.runs.get_namespaced_custom_object(
        *RUNS, bench.namespace, "trainingprofiles", "small"
    )
    return found


def accepted(status: Object) -> Object:
    return next((item for item in status.get("conditions", ()) if item["type"] == "Accepted"), {})


def is_refused(status: Object) -> bool:
    return accepted(status).get("status") == "False"


def plan_of(bench: Bench, name: str) -> Object:
    plan: Object = json.loads(
        bench.core.read_namespaced_config_map(f"{name}-plan", bench.namespace).data["plan.json"]
    )
    return plan


def trainer_of(bench: Bench, job: str) -> Any:
    return bench.batch.read_namespaced_job(job, bench.namespace).spec.template.spec.containers[0]


def test_a_run_gets_its_profiles_image_defaults_and_patch_and_its_own_word_wins(bench: Bench) -> None:
    write_profile(
        bench,
        defaults={
            "training": {"epochs": 7, "batchSize": 3},
            "compute": {"resources": {"limits": {"memory": "2Gi"}}},
        },
        environment={"allowed": ["TZ"], "set": {"NCCL_DEBUG": "WARN"}},
        podTemplate={"metadata": {"annotations": {"example.com/team": "vision"}}},
    )
    compute = {**UNSCHEDULED, "environment": {"TZ": "UTC"}}
    bench.create(profile={"name": "small"}, training={"epochs": 5}, compute=compute)
    bench.wait_for_pod(1)
    training = plan_of(bench, "run")["training"]
    assert (training["epochs"], training["batchSize"]) == (5, 3)
    trainer = trainer_of(bench, "run-1")
    assert trainer.image == "registry.example/trainer:v1"
    assert trainer.resources.limits == {"memory": "2Gi"}
    assert {"TZ": "UTC", "NCCL_DEBUG": "WARN"}.items() <= {
        entry.name: entry.value for entry in trainer.env
    }.items()
    job = bench.batch.read_namespaced_job("run-1", bench.namespace)
    assert job.spec.template.metadata.annotations == {"example.com/team": "vision"}
    profile = bench.get()["status"]["profile"]
    assert (profile["kind"], profile["name"], profile["version"]) == ("TrainingProfile", "small", "v1")


def test_everything_a_run_may_not_ask_for_is_said_at_once_before_a_job_is_made(bench: Bench) -> None:
    write_profile(
        bench,
        limits={"gpus": 0, "memory": "4Gi", "cpu": 2, "epochs": 10, "endpoints": ["*.example.com"]},
        environment={"allowed": []},
    )
    bench.create(
        profile={"name": "small"},
        training={"epochs": 11},
        delivery={"api": {"url": "https://api.example.org"}},
        compute={
            "gpus": 1,
            "resources": {"limits": {"memory": "5Gi", "nvidia.com/gpu": 4}},
            "environment": {"TZ": "UTC"},
        },
    )
    message = accepted(bench.wait(is_refused))["message"]
    assert accepted(bench.get()["status"])["reason"] == "NotAllowed"
    for sentence in (
        "spec.compute.gpus is 1: TrainingProfile 'small' allows at most 0",
        "spec.training.epochs is 11: TrainingProfile 'small' allows at most 10",
        "spec.compute.resources.limits.memory is 5Gi: TrainingProfile 'small' allows at most 4Gi",
        "spec.compute.resources.limits.cpu is not set: TrainingProfile 'small' allows at most 2",
        "spec.compute.resources.limits.nvidia.com/gpu is 4",
        "spec.compute.environment.TZ is not allowed",
        "spec.delivery.api.url leads to 'api.example.org'",
        "spec.delivery.api.credentials is set neither",
    ):
        assert sentence in message
    assert bench.batch.list_namespaced_job(bench.namespace).items == []


def test_a_run_waits_for_its_profile_and_for_its_version_and_goes_on_when_they_are_there(
    bench: Bench,
) -> None:
    bench.create(profile={"name": "small", "version": "v2"})
    assert "TrainingProfile 'small' does not exist" in accepted(bench.wait(is_refused))["message"]
    write_profile(bench)
    bench.wait(lambda status: "has the versions v1" in accepted(status).get("message", ""), seconds=5)
    versions = [
        {"name": "v1", "image": "registry.example/trainer:v1", "default": True},
        {"name": "v2", "image": "registry.example/trainer:v2"},
    ]
    write_profile(bench, versions=versions)
    bench.wait(lambda status: accepted(status).get("status") == "True", seconds=5)
    bench.wait_for_pod(1)
    assert trainer_of(bench, "run-1").image == "registry.example/trainer:v2"


def test_a_run_that_waits_for_its_retry_keeps_what_it_was_started_with_and_a_new_one_sees_the_change(
    bench: Bench, operator: OperatorProcess
) -> None:
    write_profile(bench, defaults={"training": {"epochs": 3}, "retry": {"publishing": 2}})
    bench.create(profile={"name": "small"})
    pod = bench.wait_for_pod(1)
    before = bench.get()["status"]["profile"]
    write_profile(
        bench,
        versions=[{"name": "v1", "image": "registry.example/trainer:changed", "default": True}],
        defaults={"training": {"epochs": 4}, "retry": {"publishing": 0}},
    )
    operator.kill()  # nothing is remembered
    operator.start()
    word = make_failure(1, Cause.PUBLISHING, ExitCode.PUBLISHING, "401")
    bench.end_pod(pod, ExitCode.PUBLISHING, word)
    bench.wait_for_pod(2)
    assert trainer_of(bench, "run-2").image == "registry.example/trainer:v1"
    assert bench.get()["status"]["profile"] == before
    assert plan_of(bench, "run")["training"]["epochs"] == 3

    bench.create("new", profile={"name": "small"})
    bench.wait_for_pod(1, "new")
    assert trainer_of(bench, "new-1").image == "registry.example/trainer:changed"
    assert plan_of(bench, "new")["training"]["epochs"] == 4
    assert bench.get("new")["status"]["profile"]["digest"] != before["digest"]


def test_a_run_goes_on_without_its_profile(bench: Bench) -> None:
    write_profile(bench, defaults={"retry": {"publishing": 1}})
    bench.create(profile={"name": "small"})
    pod = bench.wait_for_pod(1)
    bench.runs.delete_namespaced_custom_object(*RUNS, bench.namespace, "trainingprofiles", "small")
    bench.end_pod(pod, ExitCode.PUBLISHING, make_failure(1, Cause.PUBLISHING, ExitCode.PUBLISHING, "401"))
    bench.wait_for_pod(2)
    assert trainer_of(bench, "run-2").image == "registry.example/trainer:v1"


def test_a_template_that_would_weaken_the_pod_is_refused_by_name(bench: Bench) -> None:
    container = {"name": "trainer", "command": ["sh"], "securityContext": {"privileged": True}}
    write_profile(bench, podTemplate={"spec": {"serviceAccountName": "admin", "containers": [container]}})
    bench.create(profile={"name": "small"})
    message = accepted(bench.wait(is_refused))["message"]
    for fragment in ("spec.serviceAccountName", "container 'trainer'.command", "privileged"):
        assert fragment in message
    assert bench.batch.list_namespaced_job(bench.namespace).items == []
    ready = wait_for_profile(bench, lambda status: "conditions" in status)["conditions"][0]
    assert (ready["type"], ready["status"]) == ("Ready", "False")
    assert "spec.serviceAccountName" in ready["message"]


def test_a_profile_counts_the_runs_that_use_it(bench: Bench) -> None:
    write_profile(bench)
    for name in ("first", "second"):
        bench.create(name, profile={"name": "small"}, suspend=True)
    bench.create("without", suspend=True)
    status = wait_for_profile(bench, lambda status: status.get("runs") == 2)
    assert (status["observedGeneration"], status["conditions"][0]["status"]) == (1, "True")
    bench.patch("first", cancel=True)
    wait_for_profile(bench, lambda status: status.get("runs") == 1)


def wait_for_profile(bench: Bench, reached: Any) -> Object:
    deadline = time.monotonic() + 20
    while not reached(status := get_profile(bench).get("status", {})):
        assert time.monotonic() < deadline, status
        time.sleep(0.1)
    return dict(status)
