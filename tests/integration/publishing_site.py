"""Both servers of a delivery, and a site that seals for them: what the tests of publishing share."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest
import yaml
from annotation_trees import Silent
from botocore.config import Config
from prerequisites import require_program

from trainwright.artifacts import Evaluation, OnnxModel, Published, SealedModel
from trainwright.contract import RunPlan
from trainwright.delivery import Destination
from trainwright.sealing import PrivateKey, PublisherKey, write_public_key
from trainwright_trainer.places import Places
from trainwright_trainer.steps.publishing import connect_destination, publish_model
from trainwright_trainer.steps.sealing import seal_model

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

EMAIL, PASSWORD = "trainer@parts.test", "correct horse battery"
READER_EMAIL, READER_PASSWORD = "reader@example.com", "another long password"
S3_KEY, S3_SECRET = "uploader-key", "uploader-secret-value"
MODEL_BYTES = b"a model of parts" * 400_000  # 6.4 MB: several chunks


def take_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes], name: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, f"{name} ended with {process.returncode}"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"{name} does not listen on port {port}")


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@dataclass
class Servers:
    """Both servers, and what is needed to speak to them."""

    s3_url: str
    api_url: str
    s3_folder: Path
    cdn_file: Path
    s3: subprocess.Popen[bytes]


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    binary = require_program("versitygw")
    folder = tmp_path_factory.mktemp("servers")
    s3_folder, api_folder, users = folder / "s3", folder / "api", folder / "users.yaml"
    (s3_folder / "models").mkdir(parents=True)
    s3_port, api_port = take_port(), take_port()
    s3_url = f"http://127.0.0.1:{s3_port}"
    cdn_file = write_cdn_file(folder / "cdn.yaml", s3_url)
    for email, role, password in ((EMAIL, "publisher", PASSWORD), (READER_EMAIL, "reader", READER_PASSWORD)):
        add_user(users, email, role, password)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "ROOT_ACCESS_KEY": S3_KEY,
        "ROOT_SECRET_KEY": S3_SECRET,
    }
    s3 = subprocess.Popen(
        [binary, "--quiet", "--port", f"127.0.0.1:{s3_port}", "posix", s3_folder],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    api = subprocess.Popen(
        [
            sys.executable, "-m", "trainwright_resource_api", "serve", "--data", api_folder, "--users", users,
            "--port", str(api_port), "--cdn", cdn_file, "--login-attempts", "1000",
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(s3_port, s3, "versitygw")
        wait_for(api_port, api, "the resource API")
        yield Servers(s3_url, f"http://127.0.0.1:{api_port}", s3_folder, cdn_file, s3)
    finally:
        stop(api)
        stop(s3)


def write_cdn_file(path: Path, s3_url: str) -> Path:
    """Write the server's file; one key pair serves both roles where the S3 server has one account."""
    values = {"host": s3_url, "bucket": "models"}
    for role in ("uploader", "downloader"):
        values |= {f"{role}_access_key": S3_KEY, f"{role}_access_secret": S3_SECRET}
    path.write_text(yaml.safe_dump(values))
    path.chmod(0o600)
    return path


def add_user(users: Path, email: str, role: str, password: str) -> None:
    command = [sys.executable, "-m", "trainwright_resource_api", "user", "add", email, "--role", role]
    subprocess.run([*command, "--users", users], input=password.encode(), check=True, timeout=60)


PASSED = Evaluation(
    metrics={}, per_class={}, images=1, details="", gate_passed=True, gate_reason="mAP50 is enough"
)


@dataclass
class Site:
    """One model's workspace with keys and credentials, and a plan to deliver it."""

    places: Places
    plan: RunPlan
    onnx: OnnxModel
    home: Path
    evaluation: Evaluation = PASSED

    def seal(self) -> SealedModel:
        return seal_model(self.onnx, self.plan, self.places, Silent())

    def connect(self) -> Destination:
        assert self.plan.delivery
        return connect_destination(self.plan.delivery, self.places)

    def publish(self, sealed: SealedModel, fence: Callable[[str], None] = lambda _: None) -> Published:
        return publish_model(sealed, self.evaluation, self.plan, self.places, fence)

    def fetch(self, model: str, *options: str) -> subprocess.CompletedProcess[str]:
        assert self.plan.delivery
        command = [
            sys.executable, "-c", "from trainwright.cli import main; main()", "fetch", model,
            "--to", self.home / "models", "--api-url", self.plan.delivery.api.url,
            "--private-key", self.home / "field.private", "--publisher", self.home / "ci.public", *options,
        ]  # fmt: skip
        environment = {
            "PATH": os.environ["PATH"],
            "AZAION_API_EMAIL": READER_EMAIL,
            "AZAION_API_PASSWORD": READER_PASSWORD,
        }
        return subprocess.run(
            command, env=environment, cwd=self.home, capture_output=True, text=True, timeout=60, check=False
        )


def build_site(home: Path, servers: Servers, model: str, version: str = "v1") -> Site:
    for name in ("workspace", "api", "recipients", "signing"):
        (home / name).mkdir(parents=True)
    (home / "api/AZAION_API_EMAIL").write_text(EMAIL + "\n")
    (home / "api/AZAION_API_PASSWORD").write_text(PASSWORD + "\n")
    reader, publisher = PrivateKey.generate("field"), PublisherKey.generate("ci")
    reader.write(home / "field.private")
    write_public_key(reader.recipient, home / "recipients/field")
    publisher.write(home / "signing/publisher.key")
    write_public_key(publisher.verify_key, home / "ci.public")
    (home / "workspace/model.onnx").write_bytes(MODEL_BYTES)
    plan = RunPlan.model_validate(
        {
            "run": {"name": "parts-nightly"},
            "model": {"name": model, "version": version},
            "dataset": {"source": {"sample": {}}},
            "delivery": {"api": {"url": servers.api_url}, "bucket": "models"},
        }
    )
    digest = "sha256:" + hashlib.sha256(MODEL_BYTES).hexdigest()
    onnx = OnnxModel(path="model.onnx", digest=digest, size=len(MODEL_BYTES), opset=17, end_to_end=True)
    places = Places(
        workspace=home / "workspace",
        api_credentials=home / "api",
        recipients=home / "recipients",
        signing_key=home / "signing",
    )
    return Site(places, plan, onnx, home)


@pytest.fixture
def site(tmp_path: Path, servers: Servers, request: pytest.FixtureRequest) -> Site:
    model = "m" + hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    return build_site(tmp_path / "site", servers, model)


def stored_keys(servers: Servers) -> set[str]:
    return {str(path.relative_to(servers.s3_folder / "models")) for path in servers.s3_folder.rglob("*.big")}


def connect_s3(servers: Servers) -> S3Client:
    return boto3.client(
        "s3", endpoint_url=servers.s3_url, aws_access_key_id=S3_KEY, aws_secret_access_key=S3_SECRET,
        region_name="us-east-1", config=Config(s3={"addressing_style": "path"}),
    )  # fmt: skip


def start_unfinished_upload(servers: Servers, key: str) -> str:
    client = connect_s3(servers)
    upload = client.create_multipart_upload(Bucket="models", Key=key)["UploadId"]
    client.upload_part(Bucket="models", Key=key, UploadId=upload, PartNumber=1, Body=b"x" * 1024)
    return key
