"""The operator's watches on a real API server, which expires what it knew, and is started again."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
from builders import make_success
from installation import find_kubectl, install
from operator_process import OperatorProcess
from run_bench import Bench

from trainwright_devstack.processes import Process
from trainwright_operator.cluster import RUNS, ApiError, connect
from trainwright_operator.login import Login

if TYPE_CHECKING:
    from kubernetes import client

    from trainwright_devstack.binaries import Binaries
    from trainwright_devstack.controlplane import ControlPlane

KINDS = {"TrainingRun", "TrainingProfile", "ClusterTrainingProfile", "Job", "Pod"}


@pytest.fixture(scope="module")
def control_plane(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One of our own: who else uses an API server that is killed takes its time to come back."""
    from trainwright_devstack.controlplane import ControlPlane

    with ControlPlane(tmp_path_factory.mktemp("control-plane"), binaries) as plane:
        yield plane


@pytest.fixture(scope="module")
def kube(control_plane: ControlPlane) -> Iterator[client.ApiClient]:
    from trainwright_devstack.kubeconfig import connect

    with connect(control_plane.kubeconfig) as api:
        yield api


@pytest.fixture(scope="module")
def operator(
    control_plane: ControlPlane,
    kube: client.ApiClient,
    assets: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[OperatorProcess]:
    """An operator that lists anew so seldom that its watches must do."""
    install(find_kubectl(assets, control_plane))
    folder = tmp_path_factory.mktemp("operator")
    operator = OperatorProcess(folder, control_plane, kube, relistSeconds=600).start()
    yield operator
    operator.stop()


def read_health(operator: OperatorProcess) -> requests.Response:
    return requests.get(f"http://127.0.0.1:{operator.port}/healthz", timeout=5)


def start_again(plane: ControlPlane) -> None:
    """Kill the API server, and start it as it was."""
    server = Process(plane.folder / "processes" / "kube-apiserver")
    command = Path(f"/proc/{server.pid()}/cmdline").read_text().split("\0")[:-1]
    server.kill()
    assert server.wait(10)
    time.sleep(3)  # long enough for the Lease to be lost
    server.start(command, directory=plane.folder)


def wait_until_served(bench: Bench) -> None:
    """Return when runs can be asked for: our kinds come seconds after the API server says it is ready."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    deadline = time.monotonic() + 60
    while True:
        try:
            bench.get("before")
        except (ApiException, HTTPError):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        else:
            return


@pytest.mark.usefixtures("operator")
def test_a_version_the_server_no_longer_knows_is_an_error_of_its_own(control_plane: ControlPlane) -> None:
    async def watch() -> None:
        async with connect(Login.from_kubeconfig(control_plane.kubeconfig)) as api:
            async for _ in api.watch(RUNS, 1):
                pass

    with pytest.raises(ApiError) as raised:
        asyncio.run(watch())
    assert raised.value.status == 410


def test_each_kind_has_a_watch_with_an_age(operator: OperatorProcess) -> None:
    told = read_health(operator).json()
    assert set(told["watchAgeSeconds"]) == KINDS
    assert all(age < 90 for age in told["watchAgeSeconds"].values())
    metrics = requests.get(f"http://127.0.0.1:{operator.port}/metrics", timeout=5).text.splitlines()
    series = sorted(line.split()[0] for line in metrics if line.startswith("trainwright_watch_age_seconds"))
    assert series == sorted(f'trainwright_watch_age_seconds{{kind="{kind}"}}' for kind in KINDS)


# The test's own client leaves its connections to a killed server to the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_api_server_that_is_started_again_is_heard_of_again(
    operator: OperatorProcess, control_plane: ControlPlane, kube: client.ApiClient, namespace: str
) -> None:
    bench = Bench(kube, namespace)
    bench.create("before")
    pod = bench.wait_for_pod(1, "before")
    start_again(control_plane)
    wait_until_served(bench)
    bench.end_pod(pod, 0, make_success(1))
    bench.create("after")
    # The Job controller may take longer: pods and runs are heard of without it.
    bench.wait(lambda status: status["phase"] in ("Running", "Succeeded"), "before", 30)
    bench.wait(lambda status: bool(status.get("attempts")), "after", 30)
    assert operator.alive()
    assert read_health(operator).ok
    gc.collect()
