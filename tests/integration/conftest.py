"""One control plane, and one node that runs pods as local processes, for all integration tests of a session.

Nothing here starts before a test asks for it. The programs come from KUBEBUILDER_ASSETS or the cache; where
they are missing the tests are skipped by name, and fail when CI=true.
"""

from __future__ import annotations

import gc
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prerequisites import require

if TYPE_CHECKING:
    from kubernetes import client
    from operator_process import OperatorProcess
    from run_bench import Bench

    from trainwright_devstack.binaries import Binaries
    from trainwright_devstack.controlplane import ControlPlane
    from trainwright_devstack.processnode import ProcessNode
    from trainwright_devstack.rabbitmq import RabbitMq


@pytest.fixture(scope="session")
def binaries() -> Binaries:
    """The programs of the control plane."""
    from trainwright_devstack.binaries import find_binaries

    found, problems = find_binaries()
    require(found, f"needs a control plane: {'; '.join(problems)}")
    assert found is not None
    return found


@pytest.fixture(scope="session")
def assets(binaries: Binaries) -> Path:
    """The folder of these programs; it may hold kubectl, helm and versitygw too."""
    return binaries.folder


@pytest.fixture(scope="session")
def kubectl(assets: Path) -> Path:
    """The program kubectl."""
    require((assets / "kubectl").exists(), f"needs kubectl in {assets}")
    return assets / "kubectl"


@pytest.fixture(scope="session")
def control_plane(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server with its controllers; `control_plane.kubeconfig` is an administrator's."""
    from trainwright_devstack.controlplane import ControlPlane

    with ControlPlane(tmp_path_factory.mktemp("control-plane"), binaries) as plane:
        yield plane


@pytest.fixture(scope="session")
def process_node(
    control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProcessNode]:
    """A ready node that runs pods as processes of this machine, and serves `kubectl logs`."""
    from trainwright_devstack.processnode import ProcessNode

    folder = tmp_path_factory.mktemp("node")
    with ProcessNode(folder, control_plane.kubeconfig, authority=control_plane.authority) as node:
        yield node


@pytest.fixture(scope="session")
def kube(control_plane: ControlPlane) -> Iterator[client.ApiClient]:
    """The official client, as administrator."""
    from trainwright_devstack.kubeconfig import connect

    with connect(control_plane.kubeconfig) as api:
        yield api


@pytest.fixture
def namespace(kube: client.ApiClient) -> Iterator[str]:
    """The name of a fresh namespace, removed afterwards with all that is in it."""
    from kubernetes import client

    core = client.CoreV1Api(kube)
    name = f"test-{uuid.uuid4().hex[:8]}"
    core.create_namespace({"metadata": {"name": name}})
    yield name
    core.delete_namespace(name)


@pytest.fixture(scope="module")
def operator(
    control_plane: ControlPlane,
    kube: client.ApiClient,
    assets: Path,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[OperatorProcess]:
    """The operator with the chart's rights; a module's OPERATOR_SETTINGS are its settings."""
    from installation import find_kubectl, install
    from operator_process import OperatorProcess

    install(find_kubectl(assets, control_plane))
    settings = getattr(request.module, "OPERATOR_SETTINGS", {})
    operator = OperatorProcess(tmp_path_factory.mktemp("operator"), control_plane, kube, **settings).start()
    yield operator
    assert operator.stop() == 0, operator.log.read_text()


@pytest.fixture
def bench(operator: OperatorProcess, kube: client.ApiClient, namespace: str) -> Bench:
    """A namespace in which runs are made, watched and ended."""
    from run_bench import Bench

    return Bench(kube, namespace)


@pytest.fixture(scope="module")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMq]:
    """A broker of the module's own: some of them stop theirs."""
    from annotation_broker import start_broker

    broker = start_broker(tmp_path_factory.mktemp("rabbitmq"))
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def broker(rabbitmq: RabbitMq) -> RabbitMq:
    """The same, for modules that publish nothing before their tests."""
    return rabbitmq


@pytest.fixture
def collected() -> Iterator[None]:
    """Collect what a library leaves open here, and not in some later test."""
    yield
    gc.collect()
