"""What was annotated a moment ago is trained on: a run brings its claim up to the end of the stream first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from annotation_broker import STREAM, address_of, start_broker
from stack_cluster import wait
from whole_stack import Team, condition

from trainwright_devstack.annotating import publish_annotations
from trainwright_devstack.annotations import generate_annotations
from trainwright_devstack.rabbitmq import RabbitMq
from trainwright_devstack.stack import Devstack
from trainwright_trainer.annotations.sample import CLASS_NAMES

Object = dict[str, Any]
CLAIM = "stream-trees"
SECRET = "stream-account"


@pytest.fixture(scope="module")
def broker(devstack: Devstack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMq]:
    broker = start_broker(tmp_path_factory.mktemp("rabbitmq"), devstack.state.cluster.host)
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def source(team: Team, broker: RabbitMq) -> Path:
    """The folder behind an empty claim, and the Secret that the stream is read with."""
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    authority = broker.folder / "pki/ca.crt"
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET, "labels": {"trainwright.dev/use": "stream"}},
        "stringData": {
            "RABBITMQ_USER": broker.account.user,
            "RABBITMQ_PASSWORD": broker.account.password,
            "ca.crt": authority.read_text(),
        },
    }
    for each in (claim, secret):
        team.kubectl("apply", "-f", "-", manifest=each)
    wait(lambda: team.get("pvc", CLAIM)["status"]["phase"] == "Bound", "the claim is bound")
    root = team.volume(CLAIM)
    wait(root.is_dir, "the volume's folder exists")
    return root


def stream_of(broker: RabbitMq, **changes: Any) -> Object:
    told = {"host": broker.host, "port": broker.tls_port, "stream": STREAM}
    return told | {"credentials": {"secretName": SECRET}} | changes


def dataset_of(broker: RabbitMq, **stream: Any) -> Object:
    return {
        "source": {"persistentVolumeClaim": {"claimName": CLAIM}},
        "annotationStream": stream_of(broker, **stream),
        "classes": {"inline": list(CLASS_NAMES)},
        "includeSeed": True,
        "allowEmptyClasses": True,
    }


def header_of(team: Team, run: str) -> Object:
    with (team.volume(f"{run}-workspace") / "dataset/manifest.jsonl").open() as file:
        header: Object = json.loads(file.readline())
    return header


def test_what_is_published_is_trained_on_and_the_manifest_names_the_offset(
    team: Team, broker: RabbitMq, source: Path
) -> None:
    publish_annotations(address_of(broker), generate_annotations(120, seed=3), create=True)
    team.apply(team.manifest("streamed", "shapes", dataset=dataset_of(broker)))
    status = team.wait_for_phase("streamed", "Succeeded")
    first = status["dataset"]["streamOffset"]
    assert first >= 119
    assert header_of(team, "streamed")["streamOffset"] == first
    images = sum(len(list((source / tree / "images").iterdir())) for tree in ("data", "data-seed"))
    assert sum(status["dataset"]["images"].values()) == images > 50

    publish_annotations(address_of(broker), generate_annotations(60, seed=4))
    team.apply(team.manifest("again", "shapes", dataset=dataset_of(broker), dryRun=True))
    status = team.wait_for_phase("again", "Succeeded")
    assert status["dataset"]["streamOffset"] >= first + 60
    assert sum(status["dataset"]["images"].values()) > images


def test_a_password_that_the_broker_refuses_ends_the_run_and_is_told_nowhere(
    team: Team, broker: RabbitMq, source: Path
) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "wrong-account", "labels": {"trainwright.dev/use": "stream"}},
        "stringData": {
            "RABBITMQ_USER": "annotations",
            "RABBITMQ_PASSWORD": "swordfish-of-old",
            "ca.crt": (broker.folder / "pki/ca.crt").read_text(),
        },
    }
    team.kubectl("apply", "-f", "-", manifest=secret)
    dataset = dataset_of(broker, credentials={"secretName": "wrong-account"})
    team.apply(team.manifest("refused", "shapes", dataset=dataset, dryRun=True))
    status = team.wait_for_phase("refused", "Failed")
    failure = status["failure"]
    assert (failure["cause"], failure["stage"]) == ("UserConfig", "Dataset")
    assert "refuses user 'annotations'" in failure["message"]
    assert "RABBITMQ_PASSWORD" in failure["hint"]
    assert condition(status, "Failed")["reason"] == "NotRetryable"
    told = json.dumps(team.get("trun", "refused")) + json.dumps(team.get("events"))
    assert "swordfish-of-old" not in told
    log = team.kubectl("logs", "-l", "trainwright.dev/run=refused")
    assert "refuses user 'annotations'" in log
    assert "swordfish-of-old" not in log
