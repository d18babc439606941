"""How far an operator of some namespaces reaches, and what it believes of pods that others made."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from builders import make_report
from installation import find_kubectl, install
from operator_process import OperatorProcess
from run_bench import RUNS, Bench

if TYPE_CHECKING:
    from kubernetes import client

    from trainwright_devstack.controlplane import ControlPlane

Object = dict[str, Any]


@pytest.fixture(scope="module")
def benches(kube: client.ApiClient) -> Iterator[tuple[Bench, Bench]]:
    """A namespace that the operator looks after, and one that it does not."""
    from kubernetes import client

    core = client.CoreV1Api(kube)
    names = [f"test-{uuid.uuid4().hex[:8]}" for _ in range(2)]
    for name in names:
        core.create_namespace({"metadata": {"name": name}})
    yield Bench(kube, names[0]), Bench(kube, names[1])
    for name in names:
        core.delete_namespace(name)


@pytest.fixture(scope="module")
def operator(
    benches: tuple[Bench, Bench],
    control_plane: ControlPlane,
    kube: client.ApiClient,
    assets: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[OperatorProcess]:
    install(find_kubectl(assets, control_plane))
    settings = {"namespaces": [benches[0].namespace]}
    operator = OperatorProcess(tmp_path_factory.mktemp("operator"), control_plane, kube, **settings).start()
    yield operator
    operator.stop()


@pytest.mark.usefixtures("operator")
def test_runs_of_other_namespaces_are_left_alone(benches: tuple[Bench, Bench]) -> None:
    ours, theirs = benches
    theirs.create()
    ours.create()
    ours.wait_for_pod(1)
    time.sleep(6)  # longer than a relist
    assert "status" not in theirs.get()
    assert theirs.batch.list_namespaced_job(theirs.namespace).items == []


@pytest.mark.usefixtures("operator")
def test_a_pod_that_somebody_made_to_look_like_the_runs_can_not_report(
    benches: tuple[Bench, Bench], kube: client.ApiClient
) -> None:
    """It has the trainers' account, and our labels of the attempt's own pod."""
    bench = benches[0]
    bench.create("watched")
    own = bench.core.read_namespaced_pod(bench.wait_for_pod(1, "watched"), bench.namespace)
    ours = {key: value for key, value in own.metadata.labels.items() if key.startswith("trainwright.dev/")}
    assert "trainwright.dev/run" in ours
    metadata = {"name": "planted", "labels": ours}
    spec = {
        "serviceAccountName": own.spec.service_account_name,
        "schedulerName": "nobody",
        "containers": [{"name": "trainer", "image": "registry.example/none"}],
    }
    planted = bench.core.create_namespaced_pod(bench.namespace, {"metadata": metadata, "spec": spec})
    time.sleep(1)
    assert bench.get("watched")["status"]["currentPod"]["uid"] == own.metadata.uid
    bound = {"apiVersion": "v1", "kind": "Pod", "name": "planted", "uid": planted.metadata.uid}
    answer = bench.core.create_namespaced_service_account_token(
        own.spec.service_account_name,
        bench.namespace,
        {"spec": {"expirationSeconds": 600, "boundObjectRef": bound}},
    )
    report = make_report(1)
    refused = requests.patch(
        f"{kube.configuration.host}/apis/{'/'.join(RUNS)}/namespaces/{bench.namespace}"
        "/trainingruns/watched/status",
        json={"status": {"trainer": report.model_dump(mode="json", by_alias=True, exclude_none=True)}},
        headers={
            "Authorization": f"Bearer {answer.status.token}",
            "Content-Type": "application/merge-patch+json",
        },
        verify=kube.configuration.ssl_ca_cert,
        timeout=30,
    )
    assert refused.status_code == 403
    assert "Only the current pod of a run may report" in refused.json()["message"]
