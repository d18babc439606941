"""`trainwright-devstack up`, as people and the demo use it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
import yaml
from prerequisites import require

if TYPE_CHECKING:
    from kubernetes import client

    from trainwright_devstack.binaries import Binaries
    from trainwright_devstack.controlplane import ControlPlane
    from trainwright_devstack.state import StackState


def devstack(
    *arguments: object, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    return subprocess.run(
        [sys.executable, "-m", "trainwright_devstack", *map(str, arguments)],
        env=os.environ | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


def processes_below(folder: Path) -> list[str]:
    """Return the command lines that name the folder."""
    listed = subprocess.run(
        ["ps", "-ww", "-eo", "pid,args"], check=True, capture_output=True, text=True
    ).stdout
    return [line for line in listed.splitlines() if f"{folder}/" in line]


@pytest.fixture(scope="module")
def folder(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a stack that is up."""
    del binaries  # the stack finds them by itself; the fixture skips where there are none
    folder = tmp_path_factory.mktemp("stack")
    done = devstack("up", "--detach", "--nodes", "process", "--folder", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    yield folder
    devstack("down", "--folder", folder)


@pytest.fixture(scope="module")
def state(folder: Path) -> StackState:
    from trainwright_devstack.state import StackState

    found = StackState.read(folder)
    assert found
    return found


def s3_client(state: StackState, role: str) -> Any:
    import boto3

    values = yaml.safe_load(getattr(state.s3, f"{role}_cdn_yaml"))
    return boto3.client(
        "s3",
        endpoint_url=values["host"],
        region_name=values["region"],
        aws_access_key_id=values[f"{role}_access_key"],
        aws_secret_access_key=values[f"{role}_access_secret"],
        verify=str(state.authority),
    )


def test_the_state_is_for_its_owner_only(folder: Path) -> None:
    assert (folder / "devstack.json").stat().st_mode & 0o077 == 0


def test_a_second_stack_in_the_folder_is_refused(folder: Path, state: StackState) -> None:
    del state
    done = devstack("up", "--folder", folder)
    assert done.returncode == 1
    assert "a stack is up" in done.stderr


def test_no_secret_is_on_a_command_line(folder: Path, state: StackState) -> None:
    listed = "\n".join(processes_below(folder))
    assert "versitygw" in listed or not state.s3.checks_credentials
    secrets = [state.resource_api.publisher.password, state.resource_api.reader.password]
    for role in ("uploader", "downloader"):
        secrets.append(yaml.safe_load(getattr(state.s3, f"{role}_cdn_yaml"))[f"{role}_access_secret"])
    assert not [secret for secret in secrets if secret in listed]


def test_the_operator_runs_with_the_rights_of_the_chart(state: StackState) -> None:
    from trainwright_devstack.api import Api

    with Api(state.cluster.kubeconfig) as api:
        path = "/apis/apps/v1/namespaces/trainwright-system/deployments/trainwright-operator"
        assert api.get(path)["status"]["readyReplicas"] == 1
        assert api.get("/apis/trainwright.dev/v1alpha1/trainingruns")["items"] == []


def test_the_uploader_writes_and_the_downloader_only_reads(state: StackState) -> None:
    from botocore.exceptions import ClientError

    require(state.s3.checks_credentials, "needs versitygw: moto accepts any credentials")
    uploader, downloader = s3_client(state, "uploader"), s3_client(state, "downloader")
    uploader.put_object(Bucket=state.s3.bucket, Key="models/a", Body=b"one")
    assert downloader.get_object(Bucket=state.s3.bucket, Key="models/a")["Body"].read() == b"one"
    with pytest.raises(ClientError, match="AccessDenied"):
        downloader.create_multipart_upload(Bucket=state.s3.bucket, Key="models/b")
    with pytest.raises(ClientError, match="AccessDenied"):
        downloader.delete_object(Bucket=state.s3.bucket, Key="models/a")
    with pytest.raises(ClientError, match="AccessDenied"):
        uploader.create_bucket(Bucket="another")


@pytest.mark.parametrize(("role", "pair"), [("publisher", "uploader"), ("reader", "downloader")])
def test_each_account_gets_its_own_cdn_yaml(state: StackState, role: str, pair: str) -> None:
    api = state.resource_api
    account = getattr(api, role)
    login = requests.post(
        f"{api.url}/login",
        json={"email": account.email, "password": account.password},
        verify=str(state.authority),
        timeout=10,
    )
    answer = requests.post(
        f"{api.url}/resources/get/models",
        json={"fileName": "cdn.yaml"},
        headers={"Authorization": f"Bearer {login.json()['token']}"},
        verify=str(state.authority),
        timeout=10,
    )
    assert answer.ok, answer.text
    assert yaml.safe_load(answer.content) == yaml.safe_load(getattr(state.s3, f"{pair}_cdn_yaml"))


def test_annotations_are_published_for_consumers_here_and_for_runs(folder: Path, state: StackState) -> None:
    from trainwright_devstack.api import Api
    from trainwright_devstack.rabbitmq import find_rabbitmq
    from trainwright_devstack.state import StackState

    require(find_rabbitmq(), "needs RabbitMQ (Debian: rabbitmq-server)")
    done = devstack("annotate", "--messages", 200, "--seed", 1, "--poison", 0.02, "--folder", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    ready, published, read, train = done.stdout.splitlines()
    assert ready.startswith("RabbitMQ ready")
    assert published == "published     200 messages on azaion-annotations, 4 of them poison; seed 1"

    program = [sys.executable, "-m", "trainwright_trainer", *read.partition("trainwright-trainer")[2].split()]
    caught_up = subprocess.run(program, capture_output=True, text=True, check=True, timeout=120)
    assert caught_up.stdout.startswith("at offset 199: ")
    assert "4 poison" in caught_up.stdout
    assert len(list((folder / "annotations/trees/data/images").iterdir())) > 20

    claim, run = yaml.safe_load_all(Path(train.rpartition(" ")[2]).read_text())
    stream = run["spec"]["dataset"]["annotationStream"]
    after = StackState.read(folder)
    assert after is not None
    assert after.rabbit_mq is not None
    assert run["spec"]["dataset"]["source"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert (stream["host"], stream["port"]) == (after.rabbit_mq.host, after.rabbit_mq.tls_port)
    with Api(state.cluster.kubeconfig) as api:
        secret = api.get(f"/api/v1/namespaces/default/secrets/{stream['credentials']['secretName']}")
    assert secret["metadata"]["labels"] == {"trainwright.dev/use": "stream"}
    assert set(secret["data"]) == {"RABBITMQ_USER", "RABBITMQ_PASSWORD", "ca.crt"}
    listed = "\n".join(processes_below(folder))
    assert "rabbitmq" in listed
    assert after.rabbit_mq.password not in listed + done.stdout + caught_up.stderr
    assert (folder / "annotations/stream.env").stat().st_mode & 0o077 == 0


def test_without_rabbitmq_it_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainwright_devstack import rabbitmq
    from trainwright_devstack.certificates import Authority
    from trainwright_devstack.processes import ProcessError

    monkeypatch.setattr(rabbitmq, "PLACES", (str(tmp_path),))
    with pytest.raises(ProcessError, match="apt-get install rabbitmq-server"):
        rabbitmq.RabbitMq(tmp_path, Authority(tmp_path)).start()


def test_annotations_need_a_stack(tmp_path: Path) -> None:
    done = devstack("annotate", "--folder", tmp_path / "none")
    assert done.returncode == 1
    assert "trainwright-devstack up --detach" in done.stderr


def test_a_killed_supervisor_leaves_nothing_running(folder: Path, state: StackState) -> None:
    """The last test of the module: it takes the stack down."""
    assert processes_below(folder)
    os.kill(state.supervisor, signal.SIGKILL)
    deadline = time.monotonic() + 15
    while processes_below(folder):
        assert time.monotonic() < deadline, processes_below(folder)
        time.sleep(0.2)
    assert devstack("status", "--folder", folder).returncode == 1
    assert devstack("down", "--folder", folder).returncode == 0
    assert not (folder / "devstack.json").exists()


def test_down_where_nothing_is_up_is_no_error(tmp_path: Path) -> None:
    done = devstack("down", "--folder", tmp_path / "none")
    assert (done.returncode, done.stdout) == (0, "nothing was running\n")


def test_a_folder_of_programs_that_lacks_some_is_named(tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    for name in ("etcd", "kube-apiserver"):
        (tmp_path / "assets" / name).touch(mode=0o755)
    go = tmp_path / "go"
    go.write_text('#!/bin/sh\ntest "$1" = env && echo go1.26.0 || { echo no modules >&2; exit 1; }\n')
    go.chmod(0o755)
    environment = {
        "KUBEBUILDER_ASSETS": str(tmp_path / "assets"),
        "TRAINWRIGHT_CACHE": str(tmp_path / "cache"),
        # No rung below may start a download or a build in this test.
        "TRAINWRIGHT_KUBE_URL": "http://127.0.0.1:9/none",
        "PATH": str(tmp_path),
    }
    done = devstack("up", "--nodes", "process", "--folder", tmp_path / "stack", environment=environment)
    assert done.returncode == 1
    assert "lacks kube-controller-manager, kube-scheduler" in done.stdout
    assert "download: http://127.0.0.1:9/none" in done.stderr
    assert "no modules" in done.stderr


def test_moto_stands_in_where_there_is_no_versitygw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    from trainwright_devstack import objectstore
    from trainwright_devstack.certificates import Authority

    monkeypatch.setattr(objectstore, "find_versitygw", lambda: None)
    authority = Authority(tmp_path / "pki").create()
    store = objectstore.ObjectStore(tmp_path / "s3", authority)
    assert not store.checks_credentials
    store.start()
    try:
        client = boto3.client(
            "s3",
            endpoint_url=store.url,
            region_name="us-east-1",
            aws_access_key_id=store.uploader.key,
            aws_secret_access_key=store.uploader.secret,
            verify=str(authority.certificate),
        )
        client.put_object(Bucket="models", Key="a", Body=b"one")
        assert client.get_object(Bucket="models", Key="a")["Body"].read() == b"one"
    finally:
        store.stop()


def test_a_given_cluster_gets_a_node_and_loses_it_again(
    control_plane: ControlPlane, kube: client.ApiClient, tmp_path: Path
) -> None:
    from kubernetes import client

    from trainwright_devstack.stack import Devstack, StackOptions

    before = control_plane.kubeconfig.read_bytes()
    said: list[str] = []
    options = StackOptions(control_plane.kubeconfig, process_node=True, operator=False)
    with Devstack(tmp_path / "stack", options, said.append) as stack:
        assert "process-node on https://127.0.0.1" in stack.state.cluster.description
        assert stack.state.cluster.operator is None
        nodes = client.CoreV1Api(kube).list_node(label_selector="trainwright.dev/process-node=true")
        assert "trainwright-devstack" in {node.metadata.name for node in nodes.items}
    nodes = client.CoreV1Api(kube).list_node()
    assert "trainwright-devstack" not in {node.metadata.name for node in nodes.items}
    assert control_plane.kubeconfig.read_bytes() == before
    assert processes_below(tmp_path / "stack") == []
