"""Stages in pods of their own: which comes next, which is repeated, and what each pod gets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from builders import CREATED, RunBuilder, make_job, make_pod, make_report, terminated

from trainwright.contract import Cause, FailureReport, Outcome, RunPlan, Stage, StageGroup
from trainwright_operator.api import TrainingRunSpec
from trainwright_operator.attempts import Attempt, Observation
from trainwright_operator.groups import stage_groups
from trainwright_operator.history import read_history
from trainwright_operator.manifests import attempt_job
from trainwright_operator.names import AttemptOutcome, JobKey
from trainwright_operator.plan import find_setting_problems, merge_spec, resolve_plan
from trainwright_operator.retries import Action, Decision, decide
from trainwright_operator.settings import OperatorSettings, TrainerSettings
from trainwright_operator.situation import Situation
from trainwright_operator.snapshot import Snapshot, take_snapshot
from trainwright_operator.status import compute_status

Object = dict[str, Any]

NOW = datetime(2026, 1, 2, 3, 30, tzinfo=UTC)
DATASET, TRAINING, DELIVERY = StageGroup
GROUPS = tuple(StageGroup)
SNAPSHOT = take_snapshot(OperatorSettings(trainer=TrainerSettings(image="registry.example/trainer:test")))


def apart(**compute: Any) -> RunBuilder:
    return RunBuilder().spec(compute={"stages": "Apart", **compute})


def attempt(number: int, group: StageGroup | None, outcome: str = "Succeeded", **fields: Any) -> Attempt:
    name = f"{number}-{group}"
    return Attempt(number, name, CREATED, group, end_time=CREATED, outcome=AttemptOutcome(outcome), **fields)


def next_step(*attempts: Attempt, **spec: Any) -> Decision:
    run = apart().spec(**spec).build()
    groups = stage_groups(merge_spec({}, run["spec"]), attempts)
    return decide(Observation(run, {}, {}, NOW), list(attempts), {}, 0, groups)


def job_of(run: Object, group: StageGroup | None, snapshot: Snapshot = SNAPSHOT) -> Object:
    spec, plan = resolve(run)
    return attempt_job(run, spec, plan, snapshot, JobKey(1, group))


def resolve(run: Object) -> tuple[TrainingRunSpec, RunPlan]:
    spec = merge_spec({}, run["spec"])
    plan = resolve_plan(run, spec, None).plan
    assert plan is not None
    return spec, plan


def container_of(job: Object) -> Object:
    (found,) = job["spec"]["template"]["spec"]["containers"]
    container: Object = found
    return container


def test_every_stage_is_in_one_group_and_they_follow_the_order_of_the_stages() -> None:
    assert tuple(stage for group in StageGroup for stage in group.stages) == tuple(Stage)


def test_the_groups_follow_each_other_as_one_attempt() -> None:
    assert next_step() == Decision(Action.START, 1, DATASET)
    assert next_step(attempt(1, DATASET)) == Decision(Action.START, 1, TRAINING)
    assert next_step(attempt(1, DATASET), attempt(1, TRAINING)) == Decision(Action.START, 1, DELIVERY)
    done = [attempt(1, group) for group in StageGroup]
    assert next_step(*done).action is Action.SUCCEED


def test_a_dry_run_needs_no_group_but_the_dataset() -> None:
    assert next_step(attempt(1, DATASET), dryRun=True).action is Action.SUCCEED


def test_the_next_attempt_begins_with_the_group_that_failed() -> None:
    done = attempt(1, DATASET), attempt(1, TRAINING)
    failed = attempt(1, DELIVERY, "Failed", cause=Cause.PUBLISHING, stage=Stage.PUBLISHING)
    assert next_step(*done, failed) == Decision(Action.START, 2, DELIVERY)
    stopped = attempt(1, TRAINING, "Stopped")
    assert next_step(attempt(1, DATASET), stopped) == Decision(Action.START, 2, TRAINING)


def test_a_requested_retry_begins_with_the_group_that_is_not_done() -> None:
    failed = attempt(3, DELIVERY, "Failed", cause=Cause.USER_CONFIG)
    assert next_step(failed).action is Action.FAIL
    assert next_step(failed, retryRequest="now") == Decision(Action.START, 4, DELIVERY)


def test_what_an_earlier_group_made_is_made_again_when_it_is_gone() -> None:
    failed = attempt(1, DELIVERY, "Failed", cause=Cause.STORAGE, stage=Stage.DATASET)
    assert next_step(attempt(1, DATASET), attempt(1, TRAINING), failed) == Decision(Action.START, 2, DATASET)


def test_nothing_follows_while_the_run_is_suspended() -> None:
    assert next_step(attempt(1, DATASET), suspend=True).action is Action.REST


def test_a_run_keeps_the_way_it_began() -> None:
    together, in_groups = (
        merge_spec({}, RunBuilder().build()["spec"]),
        merge_spec({}, apart().build()["spec"]),
    )
    assert stage_groups(together, []) == stage_groups(in_groups, [attempt(1, None)]) == (None,)
    assert stage_groups(in_groups, []) == stage_groups(together, [attempt(1, DATASET)]) == GROUPS


def test_the_history_keeps_the_groups_of_one_attempt_apart() -> None:
    jobs = [make_job(1, condition="Complete", group=group) for group in (DATASET, TRAINING)]
    named = {job["metadata"]["name"]: job for job in jobs}
    assert list(named) == ["parts-1-1-dataset", "parts-1-1"]
    records = read_history(Observation(apart().build(), named, {}, NOW))
    assert [(item.number, item.group, item.outcome) for item in records] == [
        (1, DATASET, "Succeeded"),
        (1, TRAINING, "Succeeded"),
    ]
    assert [Attempt.from_status(item.to_status()) for item in records] == records


def test_what_one_groups_pod_reported_says_nothing_of_the_next_groups_job() -> None:
    done = make_report(1, group=DATASET, outcome=Outcome.GROUP_DONE)
    run = apart().reporting(done).build()
    records = [attempt(1, DATASET), Attempt(1, "parts-1-1", CREATED, TRAINING)]
    run["status"]["attempts"] = [item.to_status() for item in records]
    *_, training = read_history(Observation(run, {}, {}, NOW))
    assert (training.group, training.outcome) == (TRAINING, "Failed")


def test_a_run_whose_first_group_is_done_has_not_succeeded() -> None:
    run = apart().build()
    job, pod = make_job(1, condition="Complete", group=DATASET), make_pod(1, phase="Succeeded")
    said = make_report(1, group=DATASET, outcome=Outcome.GROUP_DONE, finished_stages={Stage.DATASET: 3.0})
    pod["status"]["containerStatuses"] = terminated(0, said.to_json(), "Completed")
    observation = Observation(run, {"parts-1-1-dataset": job}, {"parts-1-1-dataset": [pod]}, NOW)
    attempts = read_history(observation)
    decision = decide(observation, attempts, {}, 0, GROUPS)
    status = compute_status(Situation(observation, attempts, decision))
    held = {item["type"]: item["status"] for item in status["conditions"]}
    assert (status["phase"], held["DatasetReady"], held["Succeeded"]) == ("Pending", "True", "False")


def test_a_failed_groups_stage_is_recorded() -> None:
    failure = FailureReport(stage=Stage.DATASET, cause=Cause.STORAGE, exit_code=74, message="gone")
    pod = make_pod(1, phase="Failed")
    said = make_report(1, group=TRAINING, outcome=Outcome.FAILED, failure=failure)
    pod["status"]["containerStatuses"] = terminated(74, said.to_json())
    job = make_job(1, condition="Failed", group=TRAINING)
    (found,) = read_history(Observation(apart().build(), {"parts-1-1": job}, {"parts-1-1": [pod]}, NOW))
    assert found.stage is Stage.DATASET
    after = found.to_status() | {"endTime": (NOW - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")}
    assert next_step(Attempt.from_status(after)) == Decision(Action.START, 2, DATASET)


# --- what each pod gets -----------------------------------------------------------------------------------


def test_nothing_but_training_asks_for_a_gpu() -> None:
    run = apart(gpus=1, resources={"requests": {"cpu": "8"}}, runtimeClassName="nvidia").build()
    resources = {group: container_of(job_of(run, group))["resources"] for group in StageGroup}
    assert resources[TRAINING] == {"requests": {"cpu": "8"}, "limits": {"nvidia.com/gpu": "1"}}
    assert resources[DATASET] == resources[DELIVERY] == {"requests": {"cpu": "1", "memory": "2Gi"}}
    classes = {
        group: job_of(run, group)["spec"]["template"]["spec"].get("runtimeClassName") for group in GROUPS
    }
    assert classes == {DATASET: None, TRAINING: "nvidia", DELIVERY: None}


def test_devices_that_a_profile_adds_are_for_the_pod_that_trains() -> None:
    asked = {"resources": {"limits": {"nvidia.com/gpu": "1", "rdma/hca": "1", "memory": "8Gi"}}}
    patch = {"spec": {"containers": [{"name": "trainer", **asked}], "initContainers": [_proxy(asked)]}}
    snapshot = SNAPSHOT.model_copy(update={"pod_template": patch})
    for group, names in ((DATASET, {"memory"}), (TRAINING, {"memory", "nvidia.com/gpu", "rdma/hca"})):
        pod = job_of(apart().build(), group, snapshot)["spec"]["template"]["spec"]
        for container in (*pod["containers"], *pod["initContainers"]):
            assert container["resources"]["limits"].keys() == names


def _proxy(asked: Object) -> Object:
    context = container_of(job_of(RunBuilder().build(), None))["securityContext"]
    return {"name": "proxy", "image": "proxy:1", "securityContext": context, **asked}


def test_the_pods_without_gpu_get_what_the_run_says() -> None:
    run = apart(cpuResources={"limits": {"memory": "4Gi"}}).build()
    assert container_of(job_of(run, DATASET))["resources"] == {"limits": {"memory": "4Gi"}}


def test_each_job_carries_its_group_and_its_pod_does_these_stages_alone() -> None:
    run = apart().build()
    for group in StageGroup:
        job = job_of(run, group)
        for labels in (job["metadata"]["labels"], job["spec"]["template"]["metadata"]["labels"]):
            assert labels["trainwright.dev/stage-group"] == group
        arguments = container_of(job)["args"]
        assert arguments[arguments.index("--stages") + 1] == group
    assert "--stages" not in container_of(job_of(RunBuilder().build(), None))["args"]


def test_annotations_and_credentials_are_mounted_where_they_are_needed_only() -> None:
    run = apart().delivering().build()
    run["spec"]["dataset"] = {"source": {"persistentVolumeClaim": {"claimName": "annotations"}}}
    mounted = {
        group: {volume["name"] for volume in job_of(run, group)["spec"]["template"]["spec"]["volumes"]}
        for group in StageGroup
    }
    secrets = {"api-credentials", "cdn-credentials", "recipients", "signing-key"}
    assert mounted[DATASET] & ({"data", "shared-memory"} | secrets) == {"data"}
    assert mounted[TRAINING] & ({"data", "shared-memory"} | secrets) == {"shared-memory"}
    assert mounted[DELIVERY] & ({"data", "shared-memory"} | secrets) == secrets
    assert set.intersection(*mounted.values()) == {"plan", "workspace", "account", "temporary"}


def test_a_default_and_a_run_that_contradict_each_other_are_refused_in_a_sentence() -> None:
    run = RunBuilder().spec(compute={"workspace": {"emptyDir": {}}}).build()
    (problem,) = find_setting_problems(merge_spec({"compute": {"stages": "Apart"}}, run["spec"]))
    assert "use a persistentVolumeClaim, or stages Together" in problem


# --- queues -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stages", "group"), [("Together", None), ("Apart", TRAINING)])
def test_the_job_that_trains_is_made_suspended_for_its_queue(stages: str, group: StageGroup | None) -> None:
    run = RunBuilder().spec(compute={"stages": stages}, queue={"name": "gpu-a", "priorityClass": "high"})
    job = job_of(run.build(), group)
    assert job["spec"]["suspend"] is True
    labels = job["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == "gpu-a"
    assert labels["kueue.x-k8s.io/priority-class"] == "high"
    assert not any("kueue" in key for key in job["spec"]["template"]["metadata"]["labels"])


@pytest.mark.parametrize("group", [DATASET, DELIVERY])
def test_no_other_job_waits(group: StageGroup) -> None:
    job = job_of(apart().spec(queue={"name": "gpu-a"}).build(), group)
    assert "suspend" not in job["spec"]
    assert not any("kueue" in key for key in job["metadata"]["labels"])


def test_a_dry_run_does_not_wait_for_a_gpu_it_does_not_ask_for() -> None:
    job = job_of(RunBuilder().spec(queue={"name": "gpu-a"}, dryRun=True).build(), None)
    assert "suspend" not in job["spec"]


def test_without_a_queue_the_field_is_not_written_at_all() -> None:
    assert "suspend" not in job_of(RunBuilder().build(), None)["spec"]
