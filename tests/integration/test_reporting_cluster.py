"""The trainer's reports on a real API server, fenced by the chart's admission policy."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest
from installation import find_kubectl, install, sample_run

from trainwright.contract import (
    Cause,
    DatasetReport,
    FailureReport,
    ImageCounts,
    ModelReport,
    Outcome,
    PartReport,
    PartsReport,
    Progress,
    PublishingReport,
    RunIdentity,
    RunReport,
    Stage,
)
from trainwright.errors import PublishingError, SupersededError
from trainwright_operator.manifests.access import trainer_access
from trainwright_operator.names import TRAINER_ACCOUNT
from trainwright_trainer.observers import Moment
from trainwright_trainer.reporting import ApiServer, Pace, StatusReporter

if TYPE_CHECKING:
    from kubernetes import client

    from trainwright_devstack.controlplane import ControlPlane

RUNS = ("trainwright.dev", "v1alpha1")
APPLY = "application/apply-patch+yaml"
DIGEST = "sha256:" + "ab" * 32
PART = PartReport(name="parts.v1.0a0a.small", size=2**40, digest=DIGEST)
# Every field that a report may have, each as long as it gets: the CRD's schema must have room for all of it.
FULLEST = RunReport(
    attempt=3,
    sequence=2**31,
    heartbeat_time="2026-11-21T10:00:00.123456Z",
    progress=Progress(
        percent=99, stage=Stage.PUBLISHING, epoch=120, epochs=120, estimated_remaining_seconds=950400
    ),
    finished_stages=dict.fromkeys(Stage, 950400.5),
    resumed_from_epoch=119,
    metrics={
        **dict.fromkeys(("mAP50", "mAP50to95", "precision", "recall"), 0.12345),
        "gatePassed": 1.0,
        "batchSize": 8.0,
    },
    dataset=DatasetReport(
        digest=DIGEST, images=ImageCounts(train=300000, valid=50000, test=10000), quarantined=9, classes=80
    ),
    model=ModelReport(
        name="parts",
        version="2026-11-21-4f2a",
        digest=DIGEST,
        size=2**31,
        parts=PartsReport(small=PART, big=PART),
    ),
    publishing=PublishingReport(file_id="0a" * 16),
    outcome=Outcome.FAILED,
    failure=FailureReport(
        stage=Stage.PUBLISHING,
        cause=Cause.PUBLISHING,
        exit_code=69,
        message="m" * 800,
        hint="h" * 800,
        log_tail="l" * 2000,
    ),
)


@dataclass(frozen=True)
class Cluster:
    """A run whose current pod is `current`, and tokens of two pods in folders as a pod sees them."""

    kube: client.ApiClient
    identity: RunIdentity
    accounts: dict[str, Path]

    def reporter(self, pod: str) -> StatusReporter:
        """Return a reporter with the pod's token."""
        server = ApiServer(self.kube.configuration.host, self.accounts[pod])
        return StatusReporter(server, self.identity, stop=Event(), pace=Pace(retry=0.1, grace=1))

    def trainer_status(self) -> dict[str, Any]:
        """Return what the run's status holds of the trainer."""
        from kubernetes import client

        run = client.CustomObjectsApi(self.kube).get_namespaced_custom_object(
            *RUNS, self.identity.namespace, "trainingruns", self.identity.name
        )
        found: dict[str, Any] = run["status"].get("trainer", {})
        return found


@pytest.fixture
def cluster(
    control_plane: ControlPlane, kube: client.ApiClient, assets: Path, namespace: str, tmp_path: Path
) -> Cluster:
    from kubernetes import client

    install(find_kubectl(assets, control_plane))
    core, runs = client.CoreV1Api(kube), client.CustomObjectsApi(kube)
    account, binding = trainer_access(namespace)
    core.create_namespaced_service_account(namespace, account)
    client.RbacAuthorizationV1Api(kube).create_namespaced_role_binding(namespace, binding)
    runs.create_namespaced_custom_object(*RUNS, namespace, "trainingruns", sample_run("parts-1", namespace))
    uids = {pod: create_pod(core, namespace, pod) for pod in ("current", "former")}
    status = {"currentPod": {"name": "current", "uid": uids["current"]}}
    runs.patch_namespaced_custom_object_status(
        *RUNS,
        namespace,
        "trainingruns",
        "parts-1",
        {"apiVersion": "/".join(RUNS), "kind": "TrainingRun", "status": status},
        field_manager="trainwright-operator",
        _content_type=APPLY,
    )
    accounts = {}
    for pod, uid in uids.items():
        reference = {"kind": "Pod", "apiVersion": "v1", "name": pod, "uid": uid}
        body = {"spec": {"expirationSeconds": 600, "audiences": [], "boundObjectRef": reference}}
        token = core.create_namespaced_service_account_token(TRAINER_ACCOUNT, namespace, body).status.token
        accounts[pod] = tmp_path / pod
        accounts[pod].mkdir()
        (accounts[pod] / "token").write_text(token)
        (accounts[pod] / "ca.crt").write_bytes(Path(kube.configuration.ssl_ca_cert).read_bytes())
    cluster = Cluster(kube, RunIdentity(name="parts-1", namespace=namespace), accounts)
    wait_for_policy(cluster)
    return cluster


def wait_for_policy(cluster: Cluster) -> None:
    """The API server learns of a new policy a moment after it was created."""
    server = ApiServer(cluster.kube.configuration.host, cluster.accounts["former"])
    report = FULLEST.model_copy(update={"publishing": None})
    deadline = time.monotonic() + 30
    while server.apply_report(cluster.identity, report).status_code != 403:
        assert time.monotonic() < deadline, "the policy is not in force after 30 s"
        time.sleep(0.2)


def create_pod(core: client.CoreV1Api, namespace: str, name: str) -> str:
    """Create a pod that no node ever gets; return its uid."""
    container = {"name": "trainer", "image": "registry.example/none"}
    spec = {"serviceAccountName": TRAINER_ACCOUNT, "containers": [container], "schedulerName": "nobody"}
    return str(core.create_namespaced_pod(namespace, {"metadata": {"name": name}, "spec": spec}).metadata.uid)


def test_the_fullest_report_is_kept_whole(cluster: Cluster) -> None:
    with cluster.reporter("current") as reporting:
        reporting.observe(FULLEST, Moment.END)
    assert RunReport.model_validate(cluster.trainer_status()) == RunReport.model_validate_json(
        FULLEST.to_json()
    )


def test_the_fence_lets_the_current_pod_pass_and_no_other(cluster: Cluster) -> None:
    report = FULLEST.model_copy(update={"outcome": None, "failure": None, "publishing": None})
    former = cluster.reporter("former")
    former.observe(report, Moment.STEP)
    with pytest.raises(SupersededError, match="another current pod"):
        former.fence("0b" * 16)
    assert "publishing" not in cluster.trainer_status()
    current = cluster.reporter("current")
    current.observe(report, Moment.STEP)
    current.fence("0c" * 16)
    assert cluster.trainer_status()["publishing"] == {"fileId": "0c" * 16}


def test_the_fence_tells_a_missing_right_and_a_report_off_the_schema_from_another_pod(
    cluster: Cluster,
) -> None:
    from kubernetes import client

    running = FULLEST.model_copy(update={"outcome": None, "failure": None, "publishing": None})
    off_schema = running.model_copy(update={"metrics": {"mAP50": float("nan")}})
    current = cluster.reporter("current")
    current.observe(off_schema, Moment.STEP)
    with pytest.raises(PublishingError, match=r"422: .*status\.trainer\.metrics"):
        current.fence("0d" * 16)
    rights = client.RbacAuthorizationV1Api(cluster.kube)
    for binding in rights.list_namespaced_role_binding(cluster.identity.namespace).items:
        rights.delete_namespaced_role_binding(binding.metadata.name, cluster.identity.namespace)
    current.observe(running, Moment.STEP)
    with pytest.raises(PublishingError, match=r"403: .* cannot patch"):
        _fence_until_refused(current)


def _fence_until_refused(reporting: StatusReporter) -> None:
    """The API server learns that a right was taken away a moment later."""
    for _ in range(100):
        reporting.fence("0d" * 16)
        time.sleep(0.1)


def test_a_second_attempt_that_knows_nothing_yet_replaces_the_first_ones_report(cluster: Cluster) -> None:
    """Server-side apply turns a map whose entries were all taken away into null, which the schema refuses."""
    with cluster.reporter("current") as reporting:
        reporting.observe(FULLEST, Moment.END)
    fresh = RunReport(
        attempt=4,
        sequence=1,
        heartbeat_time=FULLEST.heartbeat_time,
        progress=Progress(percent=0, stage=Stage.DATASET),
    )
    with cluster.reporter("current") as reporting:
        reporting.observe(fresh, Moment.STAGE)
    assert RunReport.model_validate(cluster.trainer_status()) == fresh
