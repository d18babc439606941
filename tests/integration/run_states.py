"""Runs in the states a user meets, each brought about on a real API server: what happens to a run, in order.

The operator is real; there is no node: a state says what kubelet, scheduler and trainer would have said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from builders import DIGEST, make_failure, make_report, make_success
from run_bench import RUNS, UNSCHEDULED, Bench

from trainwright.contract import (
    Cause,
    DatasetReport,
    ExitCode,
    ImageCounts,
    ModelReport,
    Outcome,
    PartReport,
    PartsReport,
    Progress,
    PromotionReport,
    RunReport,
    Stage,
    StageGroup,
)

Object = dict[str, Any]
State = Callable[[Bench, str], None]

STATES: dict[str, State] = {}
"""What brings a run of a given name into a state, by the state's name."""

GPU_NODE, OTHER_NODE = "gpu-node-7", "gpu-node-9"
WHEN = {"startedAt": "2026-01-02T03:04:05Z", "finishedAt": "2026-01-02T03:05:05Z"}
METRICS = {"mAP50": 0.9123, "mAP50to95": 0.7041, "precision": 0.93, "recall": 0.88}
IMAGES = ImageCounts(train=224, valid=64, test=32)


def state(build: State) -> State:
    """Register what makes a state by its name."""
    STATES[build.__name__.replace("_", "-")] = build
    return build


# --- what the cluster and the trainer say ----------------------------------------------------------------


@contextmanager
def gpu_nodes(bench: Bench) -> Iterator[None]:
    """Have nodes with a GPU for as long as the block lasts: too short for anybody to miss their kubelets."""
    ready = [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""}]
    for node in (GPU_NODE, OTHER_NODE):
        bench.core.create_node({"metadata": {"name": node}, "spec": {"unschedulable": True}})
        bench.core.patch_node_status(node, {"status": {"conditions": ready}})
    try:
        yield
    finally:
        for node in (GPU_NODE, OTHER_NODE):
            bench.core.delete_node(node)


def bind(bench: Bench, pod: str, node: str = GPU_NODE) -> None:
    """Give a pod a node, as a scheduler would."""
    body = {"metadata": {"name": pod}, "target": {"kind": "Node", "name": node}}
    bench.core.create_namespaced_binding(bench.namespace, body, _preload_content=False)


def tell(bench: Bench, pod: str, **status: Any) -> None:
    """Set what a kubelet or a scheduler says of a pod."""
    bench.core.patch_namespaced_pod_status(pod, bench.namespace, {"status": status})


def run_pod(bench: Bench, pod: str, node: str = GPU_NODE) -> None:
    """Have a pod run on a node, and its run know of it."""
    bind(bench, pod, node)
    # Long ago enough for its seconds to be some, and never none.
    since = datetime.now(UTC) - timedelta(minutes=10)
    started = {"running": {"startedAt": since.strftime("%Y-%m-%dT%H:%M:%SZ")}}
    tell(bench, pod, phase="Running", containerStatuses=[container(state=started, ready=True)])
    run = bench.core.read_namespaced_pod(pod, bench.namespace).metadata.labels["trainwright.dev/run"]

    def is_known(status: Object) -> bool:
        runs = status["phase"] == "Running" and pod in _message(status, "Ready")
        return runs or "ending" in status["attempts"][-1]

    bench.wait(is_known, run)


def container(**fields: Any) -> Object:
    """Return the status of the trainer's container."""
    known = {"name": "trainer", "image": "trainer:test", "imageID": "", "ready": False, "restartCount": 0}
    return known | fields


def report(bench: Bench, name: str, told: RunReport) -> None:
    """Write what a trainer reports of itself into its run's status."""
    trainer = told.model_dump(mode="json", by_alias=True, exclude_none=True)
    body = {"status": {"trainer": trainer}}
    bench.runs.patch_namespaced_custom_object_status(
        *RUNS, bench.namespace, "trainingruns", name, body, _content_type="application/merge-patch+json"
    )


def in_training(attempt: int, epoch: int, **fields: Any) -> RunReport:
    """Return what a trainer reports in the middle of its training."""
    known = {
        "progress": Progress(
            percent=10 + epoch * 70 // 120,
            stage=Stage.TRAINING,
            epoch=epoch,
            epochs=120,
            estimated_remaining_seconds=(120 - epoch) * 60,
        ),
        "finished_stages": {Stage.DATASET: 42.0},
        "dataset": DatasetReport(digest=DIGEST, images=IMAGES, quarantined=3, classes=4),
        "metrics": {key: value / 2 for key, value in METRICS.items()},
    }
    return make_report(attempt, **(known | fields))


def published(attempt: int, **fields: Any) -> RunReport:
    """Return the last report of a trainer whose model is published."""
    parts = PartsReport(
        small=PartReport(name="parts-small", size=2_200_000, digest=DIGEST),
        big=PartReport(name="parts-big", size=8_800_000, digest=DIGEST),
    )
    seconds = dict(zip(Stage, (42.0, 7200.0, 12.0, 31.0, 9.0, 2.0, 6.0), strict=True))
    known = {
        "finished_stages": seconds,
        "dataset": DatasetReport(digest=DIGEST, images=IMAGES, quarantined=3, classes=4),
        "model": ModelReport(
            name="parts", version="2026-01-02-4f2a4f2a", digest=DIGEST, size=11_000_000, parts=parts
        ),
        "metrics": METRICS,
        "promotion": PromotionReport(promoted=True, reason="mAP50to95 is 0.704, at least 0.500 is asked for"),
    }
    return make_success(attempt).model_copy(update=known | fields)


def fail(bench: Bench, name: str, word: RunReport) -> None:
    """End an attempt's pod with a failure it tells of."""
    assert word.failure is not None
    bench.end_pod(bench.wait_for_pod(word.attempt, name), word.failure.exit_code, word)


# --- the states --------------------------------------------------------------------------------------------


@state
def pending_because_things_are_missing(bench: Bench, name: str) -> None:
    delivery = {
        "api": {"url": "https://resources.example.com", "credentials": {"secretName": "publisher"}},
        "sealing": {"recipients": {"configMapName": "plants"}, "signingKey": {"secretName": "signing"}},
    }
    source = {"persistentVolumeClaim": {"claimName": "annotations"}}
    bench.create(name, dataset={"source": source}, delivery=delivery, training={"arguments": {"lrf0": 0.1}})
    bench.wait(lambda status: "Accepted" in _false(status), name)


@state
def pending_because_no_node_has_a_free_gpu(bench: Bench, name: str) -> None:
    bench.create(name, compute=UNSCHEDULED | {"gpus": 1})
    message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    tell(bench, bench.wait_for_pod(1, name), conditions=[condition])
    bench.wait(lambda status: "Insufficient" in _message(status, "Ready"), name)


@state
def pending_because_the_image_cannot_be_pulled(bench: Bench, name: str) -> None:
    bench.create(name)
    pod = bench.wait_for_pod(1, name)
    bind(bench, pod)
    waiting = {
        "reason": "ImagePullBackOff",
        "message": 'Back-off pulling image "registry.example/trainer:test"',
    }
    tell(bench, pod, phase="Pending", containerStatuses=[container(state={"waiting": waiting})])
    bench.wait(lambda status: "ImagePullBackOff" in _message(status, "Ready"), name)


@state
def running_and_building_the_dataset(bench: Bench, name: str) -> None:
    bench.create(name)
    run_pod(bench, bench.wait_for_pod(1, name))
    report(bench, name, make_report(1, progress=Progress(percent=3, stage=Stage.DATASET)))
    bench.wait(lambda status: status.get("stage") == "Dataset" and status["phase"] == "Running", name)


@state
def running_in_epoch_57_of_120(bench: Bench, name: str) -> None:
    bench.create(name)
    run_pod(bench, bench.wait_for_pod(1, name))
    report(bench, name, in_training(1, 57))
    bench.wait(lambda status: status.get("stage") == "Training" and status["phase"] == "Running", name)


@state
def running_again_after_an_eviction(bench: Bench, name: str) -> None:
    bench.create(name)
    pod = bench.wait_for_pod(1, name)
    run_pod(bench, pod)
    report(bench, name, in_training(1, 57))
    evicted = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
    ended = {"exitCode": ExitCode.PREEMPTED, "reason": "Error", **WHEN}
    tell(
        bench,
        pod,
        phase="Failed",
        conditions=[evicted],
        containerStatuses=[container(state={"terminated": ended})],
    )
    pod = bench.wait_for_pod(2, name)
    run_pod(bench, pod, OTHER_NODE)
    report(bench, name, in_training(2, 58, resumed_from_epoch=57))
    bench.wait(lambda status: "resumedFromEpoch" in status["attempts"][-1], name)


@state
def waiting_to_try_again_after_a_network_failure(bench: Bench, name: str) -> None:
    bench.create(name)
    message = "https://resources.example.com does not answer: connection refused"
    fail(bench, name, make_failure(1, Cause.NETWORK, ExitCode.NETWORK, message))
    bench.wait(lambda status: _reason(status, "Ready") == "Retrying", name)


@state
def suspended(bench: Bench, name: str) -> None:
    bench.create(name)
    run_pod(bench, pod := bench.wait_for_pod(1, name))
    report(bench, name, in_training(1, 57))
    bench.patch(name, suspend=True)
    bench.core.delete_namespaced_pod(pod, bench.namespace, grace_period_seconds=0)
    bench.wait_for_phase("Suspended", name)


@state
def cancelled(bench: Bench, name: str) -> None:
    bench.create(name)
    run_pod(bench, pod := bench.wait_for_pod(1, name))
    bench.patch(name, cancel=True)
    bench.core.delete_namespaced_pod(pod, bench.namespace, grace_period_seconds=0)
    bench.wait_for_phase("Cancelled", name)


@state
def succeeded_and_promoted(bench: Bench, name: str) -> None:
    bench.create(name)
    run_pod(bench, pod := bench.wait_for_pod(1, name))
    bench.end_pod(pod, 0, published(1))
    bench.wait_for_phase("Succeeded", name)


@state
def succeeded_but_not_promoted(bench: Bench, name: str) -> None:
    bench.create(name, gate={"metric": "mAP50to95", "minimum": 0.8})
    run_pod(bench, pod := bench.wait_for_pod(1, name))
    verdict = PromotionReport(promoted=False, reason="mAP50to95 is 0.704, at least 0.800 is asked for")
    bench.end_pod(pod, 0, published(1, promotion=verdict))
    bench.wait_for_phase("Succeeded", name)


@state
def succeeded_as_a_dry_run(bench: Bench, name: str) -> None:
    bench.create(name, dryRun=True)
    run_pod(bench, pod := bench.wait_for_pod(1, name))
    told = in_training(1, 0, outcome=Outcome.DRY_RUN, progress=Progress(percent=100, stage=Stage.DATASET))
    bench.end_pod(pod, 0, told)
    bench.wait_for_phase("Succeeded", name)


@state
def failed_because_of_the_data(bench: Bench, name: str) -> None:
    bench.create(name)
    message = "9.4 % of the annotations can't be used (30 of 320), more than dataset.maxCorruptPercent 5"
    run_pod(bench, bench.wait_for_pod(1, name))
    fail(bench, name, make_failure(1, Cause.DATA, ExitCode.DATA, message))
    bench.wait_for_phase("Failed", name)


@state
def failed_because_the_memory_never_sufficed(bench: Bench, name: str) -> None:
    bench.create(name, retry={"outOfMemory": 1})
    for attempt in (1, 2):
        run_pod(bench, pod := bench.wait_for_pod(attempt, name))
        bench.end_pod(pod, 137, reason="OOMKilled")
    bench.wait_for_phase("Failed", name)


@state
def failed_because_the_api_refuses_the_password(bench: Bench, name: str) -> None:
    bench.create(name, retry={"publishing": 0})
    run_pod(bench, bench.wait_for_pod(1, name))
    message = "https://resources.example.com/login answers 401: e-mail or password is wrong"
    fail(bench, name, make_failure(1, Cause.PUBLISHING, ExitCode.PUBLISHING, message))
    bench.wait_for_phase("Failed", name)


@state
def running_once_more_on_request(bench: Bench, name: str) -> None:
    failed_because_the_api_refuses_the_password(bench, name)
    bench.patch(name, retryRequest="the password is mended")
    run_pod(bench, bench.wait_for_pod(2, name))
    progress = Progress(percent=95, stage=Stage.PUBLISHING)
    report(bench, name, published(2, outcome=None, progress=progress, promotion=None))
    bench.wait(lambda status: status.get("stage") == "Publishing" and status["phase"] == "Running", name)


@state
def pending_because_a_quota_refuses_the_job(bench: Bench, name: str) -> None:
    quota = {"metadata": {"name": "no-jobs"}, "spec": {"hard": {"count/jobs.batch": "0"}}}
    bench.core.create_namespaced_resource_quota(bench.namespace, quota)
    bench.create(name)
    bench.wait(lambda status: "Accepted" in _false(status), name)


@state
def pending_because_a_name_is_taken(bench: Bench, name: str) -> None:
    body = {"metadata": {"name": f"{name}-plan"}, "data": {"plan.json": "{}"}}
    bench.core.create_namespaced_config_map(bench.namespace, body)
    bench.create(name)
    bench.wait(lambda status: "Accepted" in _false(status), name)


@state
def queued_until_a_gpu_is_free(bench: Bench, name: str) -> None:
    bench.create(name, compute=UNSCHEDULED | {"gpus": 1}, queue={"name": "gpu-a", "priorityClass": "high"})
    bench.wait_for_phase("Queued", name)


@state
def queued_again_because_the_queue_took_the_gpu_back(bench: Bench, name: str) -> None:
    bench.create(name, compute=UNSCHEDULED | {"gpus": 1}, queue={"name": "gpu-a"})
    bench.wait_for_phase("Queued", name)
    _set_suspended(bench, name, suspend=False)
    run_pod(bench, pod := bench.wait_for_pod(1, name))
    report(bench, name, in_training(1, 57))
    bench.wait_for_phase("Running", name)
    _set_suspended(bench, name, suspend=True)
    bench.core.delete_namespaced_pod(pod, bench.namespace, grace_period_seconds=0)
    bench.wait_for_phase("Queued", name)


def _set_suspended(bench: Bench, name: str, *, suspend: bool) -> None:
    """Suspend a run's first Job or let it go on, as its queue does."""
    bench.batch.patch_namespaced_job(f"{name}-1", bench.namespace, {"spec": {"suspend": suspend}})


@state
def training_after_its_dataset_was_built_by_a_pod_without_gpu(bench: Bench, name: str) -> None:
    bench.create(name, compute=UNSCHEDULED | {"gpus": 1, "stages": "Apart"})
    pod = bench.wait(lambda status: "currentPod" in status, name)["currentPod"]["name"]
    run_pod(bench, pod, OTHER_NODE)
    progress = Progress(percent=10, stage=Stage.DATASET)
    done = in_training(
        1, 0, progress=progress, metrics={}, group=StageGroup.DATASET, outcome=Outcome.GROUP_DONE
    )
    bench.end_pod(pod, 0, done)
    pod = bench.wait(
        lambda status: len(status["attempts"]) == 2 and status["currentPod"]["name"] != pod, name
    )["currentPod"]["name"]
    run_pod(bench, pod)
    report(bench, name, in_training(1, 4, group=StageGroup.TRAINING))
    bench.wait(lambda status: status.get("stage") == "Training" and status["phase"] == "Running", name)


@state
def pending_because_its_profile_allows_less(bench: Bench, name: str) -> None:
    body = {
        "apiVersion": "/".join(RUNS),
        "kind": "TrainingProfile",
        "metadata": {"name": "small", "namespace": bench.namespace},
        "spec": {
            "versions": [{"name": "v1", "image": "registry.example/trainer:test", "default": True}],
            "limits": {"gpus": 1, "epochs": 50, "endpoints": ["resources.example.com"]},
        },
    }
    bench.runs.create_namespaced_custom_object(*RUNS, bench.namespace, "trainingprofiles", body)
    training = {"epochs": 120, "batchSize": 12}
    bench.create(name, profile={"name": "small"}, training=training, compute=UNSCHEDULED | {"gpus": 2})
    bench.wait(lambda status: "Accepted" in _false(status), name)


@state
def running_after_a_batch_that_was_too_large_for_the_gpu(bench: Bench, name: str) -> None:
    bench.create(name, compute=UNSCHEDULED | {"gpus": 1})
    run_pod(bench, bench.wait_for_pod(1, name))
    message = "the GPU's memory does not hold a batch of 11 images of 1280 px"
    fail(bench, name, make_failure(1, Cause.CUDA_OOM, ExitCode.CUDA_OOM, message))
    run_pod(bench, bench.wait_for_pod(2, name))
    report(bench, name, in_training(2, 1))
    bench.wait(lambda status: status.get("stage") == "Training" and status["phase"] == "Running", name)


@state
def failed_because_it_waited_too_long_for_a_node(bench: Bench, name: str) -> None:
    bench.create(name, compute=UNSCHEDULED | {"gpus": 1}, deadlines={"queuedSeconds": 1})
    bench.wait_for_phase("Failed", name)


@state
def failed_because_it_worked_longer_than_it_may(bench: Bench, name: str) -> None:
    bench.create(name, deadlines={"activeSeconds": 1})
    run_pod(bench, pod := bench.wait_for_pod(1, name))
    report(bench, name, in_training(1, 57))
    bench.wait(lambda status: "ending" in status["attempts"][-1], name)
    bench.core.delete_namespaced_pod(pod, bench.namespace, grace_period_seconds=0)
    bench.wait_for_phase("Failed", name)


@state
def running_on_another_node_after_a_gpu_broke(bench: Bench, name: str) -> None:
    bench.create(name, compute=UNSCHEDULED | {"gpus": 1})
    run_pod(bench, bench.wait_for_pod(1, name))
    message = "CUDA error: an illegal memory access was encountered"
    fail(bench, name, make_failure(1, Cause.GPU_FAULT, ExitCode.GPU_FAULT, message))
    run_pod(bench, bench.wait_for_pod(2, name), OTHER_NODE)
    report(bench, name, in_training(2, 58, resumed_from_epoch=57))
    bench.wait(lambda status: "resumedFromEpoch" in status["attempts"][-1], name)


@state
def failed_because_the_loss_is_no_number(bench: Bench, name: str) -> None:
    bench.create(name)
    run_pod(bench, bench.wait_for_pod(1, name))
    message = "the loss is no number in epoch 3, three times from the same checkpoint on"
    fail(bench, name, make_failure(1, Cause.NAN, ExitCode.NAN, message))
    bench.wait(lambda status: status["phase"] in ("Failed", "Pending") and status.get("failures"), name)
    bench.wait_for_phase("Failed", name)


def _condition(status: Object, type_: str) -> Object:
    return next((item for item in status.get("conditions", ()) if item["type"] == type_), {})


def _message(status: Object, type_: str) -> str:
    message: str = _condition(status, type_).get("message", "")
    return message


def _reason(status: Object, type_: str) -> str:
    reason: str = _condition(status, type_).get("reason", "")
    return reason


def _false(status: Object) -> set[str]:
    return {item["type"] for item in status.get("conditions", ()) if item["status"] == "False"}
