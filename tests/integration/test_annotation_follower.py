"""The chart's follower on a real cluster: it fills a claim from a real stream, and tells how far it is."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from annotation_broker import address_of, start_broker
from installation import REPOSITORY, Kubectl, find_kubectl
from prerequisites import require_program

from trainwright_devstack.annotating import publish_annotations
from trainwright_devstack.annotations import generate_annotations
from trainwright_devstack.processes import free_port
from trainwright_devstack.rabbitmq import RabbitMq

if TYPE_CHECKING:
    from trainwright_devstack.controlplane import ControlPlane
    from trainwright_devstack.processnode import ProcessNode

# The library leaves sockets to the collector when a connection is refused or lost.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

NAMESPACE, CLAIM, STREAM = "followed", "annotations", "azaion-annotations"
NAME = "trainwright-annotations"


@dataclass(frozen=True)
class Installed:
    """A follower that the chart installed, its broker, and the folder behind its claim."""

    kubectl: Kubectl
    broker: RabbitMq
    folder: Path

    def run(self, *arguments: str, manifest: Any = None) -> str:
        return self.kubectl.succeed("--namespace", NAMESPACE, *arguments, manifest=manifest)

    def images(self) -> int:
        return sum(1 for _ in self.folder.glob("vehicles/*/images/*.jpg"))

    def revision(self) -> dict[str, int]:
        done = self.kubectl.run(
            "--namespace", NAMESPACE, "get", "configmap", f"{CLAIM}-revision", "-o", "json"
        )
        data = json.loads(done.stdout)["data"] if done.returncode == 0 else {}
        return {key: int(text) for key, text in data.items()}

    def is_ready(self) -> bool:
        found = json.loads(self.run("get", "deployment", NAME, "-o", "json"))
        return bool(found["status"].get("readyReplicas"))

    def log(self) -> str:
        return self.run("logs", f"deployment/{NAME}")


def publish(broker: RabbitMq, messages: int, seed: int) -> None:
    annotations = generate_annotations(messages, seed=seed, image_size=32, poison=0.02)
    publish_annotations(address_of(broker, STREAM), annotations, create=True)


def wait(holds: Callable[[], object], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def render(values: dict[str, Any]) -> list[dict[str, Any]]:
    """What the chart renders for the follower alone."""
    chart = REPOSITORY / "helm" / "trainwright"
    rendered = subprocess.run(
        [
            require_program("helm"),
            "template",
            "trainwright",
            chart,
            "--kube-version",
            "1.30.0",
            "--values",
            "-",
        ],
        input=yaml.safe_dump(values),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    return [item for item in yaml.safe_load_all(rendered) if item and item["metadata"]["name"] == NAME]


@pytest.fixture(scope="module")
def installed(
    control_plane: ControlPlane,
    process_node: ProcessNode,
    assets: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Installed]:
    """A namespace of the strictest level, with a claim, an account, and the chart's follower."""
    kubectl = find_kubectl(assets, control_plane)
    broker = start_broker(tmp_path_factory.mktemp("rabbitmq"))
    level = {"pod-security.kubernetes.io/enforce": "restricted"}
    account = {
        "RABBITMQ_USER": broker.account.user,
        "RABBITMQ_PASSWORD": broker.account.password,
        "ca.crt": (broker.folder / "pki/ca.crt").read_text(),
    }
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    before = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": level}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "stream"}, "stringData": account},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": CLAIM}, "spec": claim},
    ]
    for item in before[1:]:
        item["metadata"]["namespace"] = NAMESPACE
    publish(broker, 100, seed=1)
    follower = {
        "enabled": True,
        "namespace": NAMESPACE,
        "host": broker.host,
        "port": broker.tls_port,
        "credentialsSecret": "stream",
        "claim": CLAIM,
        "path": "vehicles",
        "healthPort": free_port(),
        "sync": False,
    }
    for item in [*before, *render({"annotationStream": follower, "networkPolicy": {"enabled": True}})]:
        kubectl.succeed("apply", "-f", "-", manifest=item)
    try:
        volume = json.loads(_bound(kubectl))["spec"]["volumeName"]
        path = json.loads(kubectl.succeed("get", "pv", volume, "-o", "json"))["spec"]["hostPath"]["path"]
        yield Installed(kubectl, broker, Path(path))
    finally:
        broker.stop()
        kubectl.run("delete", "namespace", NAMESPACE, "--wait=false")


def _bound(kubectl: Kubectl) -> str:
    kubectl.succeed(
        "--namespace",
        NAMESPACE,
        "wait",
        "--for=jsonpath={.status.phase}=Bound",
        f"pvc/{CLAIM}",
        "--timeout=30s",
    )
    return kubectl.succeed("--namespace", NAMESPACE, "get", "pvc", CLAIM, "-o", "json")


def test_published_annotations_are_on_the_claim_and_its_revision_says_so(installed: Installed) -> None:
    wait(installed.is_ready, "the follower is ready")
    wait(lambda: installed.images() > 40, "the images come")
    wait(installed.revision, "there is a revision")
    assert installed.broker.account.password not in installed.log()


def test_its_account_may_write_that_config_map_and_nothing_else(installed: Installed) -> None:
    account = f"system:serviceaccount:{NAMESPACE}:{NAME}"

    def may(verb: str, what: str) -> str:
        done = installed.kubectl.run("--namespace", NAMESPACE, "auth", "can-i", verb, what, "--as", account)
        return done.stdout.strip()

    assert may("patch", f"configmaps/{CLAIM}-revision") == "yes"
    refused = ("patch configmaps/another", "create configmaps", "get configmaps", "get secrets", "list pods")
    assert {question: may(*question.split()) for question in refused} == dict.fromkeys(refused, "no")


def test_it_is_ready_while_it_is_connected_and_comes_back_with_the_broker(installed: Installed) -> None:
    wait(installed.is_ready, "the follower is ready")
    installed.broker.stop()
    wait(lambda: not installed.is_ready(), "it is not ready without the broker")
    installed.broker.start()
    wait(installed.is_ready, "it is ready again", seconds=90)


def test_when_it_is_stopped_the_revision_is_that_of_the_last_message(installed: Installed) -> None:
    """The last test of the module: the follower is gone afterwards."""
    wait(installed.is_ready, "the follower is ready", seconds=90)
    images = installed.images()
    publish(installed.broker, 60, seed=2)
    wait(lambda: installed.images() > images + 20, "the new ones come")
    installed.run("scale", f"deployment/{NAME}", "--replicas=0")
    installed.run("wait", "--for=delete", "pod", "--all", "--timeout=60s")
    revision = installed.revision()
    assert revision["offset"] > 100
    assert revision["count"] == installed.images()
