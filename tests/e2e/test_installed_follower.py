"""The chart's follower in a cluster: it fills a claim from a real stream, and tells how far it is."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from annotation_broker import STREAM, address_of, start_broker
from prerequisites import require_program
from stack_cluster import wait
from whole_stack import Team

from trainwright_devstack.annotating import publish_annotations
from trainwright_devstack.annotations import generate_annotations
from trainwright_devstack.processes import free_port
from trainwright_devstack.rabbitmq import RabbitMq
from trainwright_trainer.annotations.sample import CLASS_NAMES

# The library leaves sockets to the collector when a connection is refused or lost.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

Object = dict[str, Any]

CHART = Path(__file__).resolve().parents[2] / "helm" / "trainwright"
NAME, CLAIM, SECRET, FOLDER = "trainwright-annotations", "annotations", "stream", "vehicles"


@dataclass(frozen=True)
class Followed:
    """A claim that a follower fills, and the broker that it follows."""

    team: Team
    broker: RabbitMq

    def publish(self, messages: int, seed: int) -> None:
        annotations = generate_annotations(messages, seed=seed, image_size=64, poison=0.02)
        publish_annotations(address_of(self.broker), annotations, create=True)

    def images(self) -> int:
        return sum(1 for _ in self.team.volume(CLAIM).glob(f"{FOLDER}/*/images/*.jpg"))

    def revision(self) -> dict[str, int]:
        items = self.team.get("configmaps", f"--field-selector=metadata.name={CLAIM}-revision")["items"]
        return {key: int(text) for item in items for key, text in item["data"].items()}

    def is_ready(self) -> bool:
        return bool(self.team.get("deployment", NAME)["status"].get("readyReplicas"))


def render(follower: Object) -> list[Object]:
    """What the chart has for a follower, beside the operator."""
    values = {"annotationStream": follower, "networkPolicy": {"enabled": True}}
    rendered = subprocess.run(
        [require_program("helm"), "template", "trainwright", CHART, "--kube-version", "1.30.0", "-f", "-"],
        input=yaml.safe_dump(values),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    return [item for item in yaml.safe_load_all(rendered) if item and item["metadata"]["name"] == NAME]


@pytest.fixture(scope="module")
def followed(team: Team, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Followed]:
    """A follower that the chart installed, in a namespace of the strictest level."""
    cluster = team.stack.state.cluster
    broker = start_broker(tmp_path_factory.mktemp("rabbitmq"), cluster.host)
    account = {
        "RABBITMQ_USER": broker.account.user,
        "RABBITMQ_PASSWORD": broker.account.password,
        "ca.crt": (broker.folder / "pki/ca.crt").read_text(),
    }
    secret = {
        "metadata": {"name": SECRET, "labels": {"trainwright.dev/use": "stream"}},
        "stringData": account,
    }
    claim = {
        "metadata": {"name": CLAIM},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    follower = {
        "enabled": True,
        "namespace": team.namespace,
        "host": broker.host,
        "port": broker.tls_port,
        "credentialsSecret": SECRET,
        "claim": CLAIM,
        "path": FOLDER,
        "image": cluster.trainer_image,
        "replayDeadLetters": True,
        "healthPort": free_port(),
    }
    followed = Followed(team, broker)
    try:
        followed.publish(100, seed=1)
        team.apply({"apiVersion": "v1", "kind": "Secret", **secret})
        team.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", **claim})
        for item in render(follower):
            team.apply(item)
        yield followed
    finally:
        team.kubectl("delete", "deployment", NAME, "--ignore-not-found")
        broker.stop()


def test_published_annotations_are_on_the_claim_and_its_revision_says_so(followed: Followed) -> None:
    wait(followed.is_ready, "the follower is ready")
    wait(lambda: followed.images() > 40, "the images come")
    wait(followed.revision, "there is a revision")
    told = followed.team.kubectl("logs", f"deployment/{NAME}")
    assert "is kept as a dead letter" in told
    assert followed.broker.account.password not in told


def test_a_run_takes_what_the_follower_has_applied(followed: Followed) -> None:
    broker = followed.broker
    dataset = {
        "source": {"persistentVolumeClaim": {"claimName": CLAIM, "path": f"/{FOLDER}"}},
        "annotationStream": {
            "host": broker.host,
            "port": broker.tls_port,
            "stream": STREAM,
            "credentials": {"secretName": SECRET},
        },
        "classes": {"inline": list(CLASS_NAMES)},
        "includeSeed": True,
        "allowEmptyClasses": True,
    }
    followed.team.apply(followed.team.manifest("streamed", dataset=dataset, dryRun=True))
    status = followed.team.wait_for_phase("streamed", "Succeeded")
    assert status["dataset"]["streamOffset"] >= 99
    assert sum(status["dataset"]["images"].values()) > 40


def test_its_account_may_write_that_config_map_and_nothing_else(followed: Followed) -> None:
    account = f"system:serviceaccount:{followed.team.namespace}:{NAME}"

    def may(question: str) -> str:
        words = ("-n", followed.team.namespace, "auth", "can-i", *question.split(), "--as", account)
        return followed.team.cluster.run(*words).stdout.strip()

    assert may(f"patch configmaps/{CLAIM}-revision") == "yes"
    refused = ("patch configmaps/another", "create configmaps", "get configmaps", "get secrets", "list pods")
    assert {question: may(question) for question in refused} == dict.fromkeys(refused, "no")


def test_it_is_ready_while_it_is_connected_and_comes_back_with_the_broker(followed: Followed) -> None:
    wait(followed.is_ready, "the follower is ready")
    followed.broker.stop()
    wait(lambda: not followed.is_ready(), "it is not ready without the broker")
    followed.broker.start()
    wait(followed.is_ready, "it is ready again")


def test_when_it_is_stopped_the_revision_is_that_of_the_last_message(followed: Followed) -> None:
    """The last test of the module: the follower is gone afterwards."""
    wait(followed.is_ready, "the follower is ready")
    images = followed.images()
    followed.publish(60, seed=2)
    wait(lambda: followed.images() > images + 20, "the new ones come")
    followed.team.kubectl("scale", f"deployment/{NAME}", "--replicas=0")
    selector = "app.kubernetes.io/component=annotations"
    followed.team.kubectl("wait", "--for=delete", "pod", "-l", selector, "--timeout=60s")
    revision = followed.revision()
    assert revision["offset"] > 100
    assert revision["count"] == followed.images()
