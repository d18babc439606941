"""Sealed parts go to real servers, an S3 server and the resource API, and come back as the model."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import boto3
import pytest
import yaml
from botocore.config import Config

from trainwright.artifacts import OnnxModel, Published, SealedModel
from trainwright.contract import RunPlan
from trainwright.delivery import Cdn, CdnCredentials, Destination
from trainwright.delivery.orphans import remove_orphans
from trainwright.errors import ConfigurationError, PublishingError, SupersededError
from trainwright.sealing import PrivateKey, PublisherKey, write_public_key
from trainwright_trainer.places import Places
from trainwright_trainer.steps.publishing import connect_destination, publish_model
from trainwright_trainer.steps.sealing import seal_model

EMAIL, PASSWORD = "trainer@example.com", "correct horse battery"
READER_EMAIL, READER_PASSWORD = "reader@example.com", "another long password"
S3_KEY, S3_SECRET = "uploader-key", "uploader-secret-value"
MODEL_BYTES = b"a model of parts" * 400_000  # 6.4 MB: several chunks


def find_versitygw() -> Path:
    """Return the S3 server's binary; without it the tests are skipped, and fail in CI."""
    folders = [os.environ.get("KUBEBUILDER_ASSETS", ""), str(Path.home() / ".cache/trainwright-kube/bin")]
    found = shutil.which("versitygw", path=os.pathsep.join(folders)) or shutil.which("versitygw")
    if found is None:
        message = "versitygw is neither in KUBEBUILDER_ASSETS, nor in the cache, nor on PATH"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return Path(found)


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


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    binary = find_versitygw()
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
        yield Servers(s3_url, f"http://127.0.0.1:{api_port}", s3_folder, cdn_file)
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


@dataclass
class Site:
    """One model's workspace with keys and credentials, and a plan to deliver it."""

    places: Places
    plan: RunPlan
    onnx: OnnxModel
    home: Path

    def seal(self) -> SealedModel:
        return seal_model(self.onnx, self.plan, self.places)

    def connect(self) -> Destination:
        assert self.plan.delivery
        return connect_destination(self.plan.delivery, self.places)

    def publish(self, sealed: SealedModel, fence: Callable[[str], None] = lambda _: None) -> Published:
        return publish_model(sealed, self.plan, self.places, fence)

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


def test_a_published_model_is_fetched_and_opened(site: Site) -> None:
    fenced: list[str] = []
    published = site.publish(site.seal(), fenced.append)
    assert fenced == [published.file_id]
    assert published.pointer == f"{site.plan.model.name}.json"
    for wanted in (site.plan.model.name, f"{site.plan.model.name}@v1"):
        done = site.fetch(wanted, "--json")
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert result["digest"] == site.onnx.digest
        assert result["parts"]["big"]["digest"] == published.big.digest
        assert Path(result["path"]).read_bytes() == MODEL_BYTES
        assert [path.name for path in (site.home / "models").iterdir()] == [Path(result["path"]).name]


def test_publishing_again_uploads_nothing_again(site: Site, servers: Servers) -> None:
    sealed = site.seal()
    site.publish(sealed)
    big = servers.s3_folder / "models" / "models" / sealed.big.name
    before = big.stat().st_mtime_ns
    site.publish(sealed)
    assert big.stat().st_mtime_ns == before


def test_a_retry_mends_a_big_part_that_was_damaged_on_the_server(site: Site, servers: Servers) -> None:
    sealed = site.seal()
    site.publish(sealed)
    big = servers.s3_folder / "models" / "models" / sealed.big.name
    damaged = bytearray(big.read_bytes())
    damaged[-1] ^= 1
    big.write_bytes(damaged)
    refused = site.fetch(site.plan.model.name)
    assert refused.returncode == 1
    assert "not the one that was signed" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert list((site.home / "models").iterdir()) == []
    site.publish(sealed)
    assert site.fetch(site.plan.model.name).returncode == 0


def test_a_superseded_pod_commits_nothing(site: Site) -> None:
    def refuse(file_id: str) -> None:
        raise SupersededError(f"another pod publishes, not {file_id}")

    sealed = site.seal()
    with pytest.raises(SupersededError):
        site.publish(sealed, refuse)
    assert not site.connect().api.exists("models", sealed.small.name)
    refused = site.fetch(site.plan.model.name)
    assert refused.returncode == 1
    assert "no such file" in refused.stderr


def test_parts_damaged_on_disk_are_never_committed(site: Site) -> None:
    sealed = site.seal()
    big = site.places.workspace / sealed.big_path
    content = bytearray(big.read_bytes())
    content[100] ^= 1
    big.write_bytes(content)
    with pytest.raises(PublishingError, match="holds something else"):
        site.publish(sealed)
    assert not site.connect().api.exists("models", sealed.small.name)


def test_orphans_of_a_crashed_run_are_removed_and_others_stay(site: Site, servers: Servers) -> None:
    """A crash is a big part without its small one; an old one goes, what is used or in flight stays."""
    crashed, used = site.seal(), None
    destination = site.connect()
    destination.cdn.upload(site.places.workspace / crashed.big_path, destination.key(crashed.big.name))
    unfinished = start_unfinished_upload(servers, destination.key("x").replace("x", crashed.big.name))
    used = site.seal()
    site.publish(used)
    committed = build_site(site.home / "two", servers, site.plan.model.name, "v2")
    committed_parts = committed.seal()
    small = committed.places.workspace / committed_parts.small_path
    destination.cdn.upload(
        committed.places.workspace / committed_parts.big_path, f"models/{committed_parts.big.name}"
    )
    destination.api.upload("models", committed_parts.small.name, small)
    longer_name = build_site(site.home / "three", servers, site.plan.model.name + "-b")
    foreign = longer_name.seal()
    destination.cdn.upload(longer_name.places.workspace / foreign.big_path, f"models/{foreign.big.name}")

    assert remove_orphans(site.plan.model.name, "models", destination.api, destination.cdn) == []
    removed = remove_orphans(
        site.plan.model.name, "models", destination.api, destination.cdn, in_flight=timedelta(seconds=-5)
    )
    assert sorted(removed) == sorted([f"models/{crashed.big.name}", unfinished])
    left = stored_keys(servers)
    assert {f"models/{part.big.name}" for part in (used, committed_parts, foreign)} <= left


def start_unfinished_upload(servers: Servers, key: str) -> str:
    client = boto3.client(
        "s3", endpoint_url=servers.s3_url, aws_access_key_id=S3_KEY, aws_secret_access_key=S3_SECRET,
        region_name="us-east-1", config=Config(s3={"addressing_style": "path"}),
    )  # fmt: skip
    upload = client.create_multipart_upload(Bucket="models", Key=key)["UploadId"]
    client.upload_part(Bucket="models", Key=key, UploadId=upload, PartNumber=1, Body=b"x" * 1024)
    return key


def test_a_big_part_removed_before_the_commit_is_uploaded_again(site: Site, servers: Servers) -> None:
    sealed = site.seal()
    big = servers.s3_folder / "models" / "models" / sealed.big.name

    def lose_it(_: str) -> None:
        big.unlink()

    site.publish(sealed, lose_it)
    assert hashlib.sha256(big.read_bytes()).hexdigest() == sealed.big.digest.removeprefix("sha256:")


def test_a_multipart_upload_is_read_back_whole(site: Site, servers: Servers, tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(1 << 20) * 40)  # above the multipart threshold, and more than one range
    cdn = site.connect().cdn
    cdn.upload(path, "models/large.bin")
    assert cdn.find_size("models/large.bin") == 40 << 20
    assert cdn.hash("models/large.bin", 40 << 20) == (
        "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    )


def test_a_wrong_api_password_is_a_publishing_error_with_a_hint(site: Site) -> None:
    (site.places.workspace.parent / "api/AZAION_API_PASSWORD").write_text("wrong-password")
    with pytest.raises(PublishingError, match="refuses the account") as raised:
        site.publish(site.seal())
    assert "AZAION_API_PASSWORD" in raised.value.hint
    assert "wrong-password" not in str(raised.value)


def test_an_account_without_rights_is_named_after_one_repetition(site: Site, servers: Servers) -> None:
    (site.home / "api/AZAION_API_EMAIL").write_text(READER_EMAIL)
    (site.home / "api/AZAION_API_PASSWORD").write_text(READER_PASSWORD)
    sealed = site.seal()
    with pytest.raises(PublishingError, match=r"cdn\.yaml has no uploader_access_key") as raised:
        site.publish(sealed)
    assert "account" in raised.value.hint
    write_cdn_file(site.home / "cdn.yaml", servers.s3_url)
    places = dataclasses.replace(site.places, cdn_credentials=site.home)
    with pytest.raises(PublishingError, match=r"refuses the account 'reader@example.com' \(403\)") as raised:
        publish_model(sealed, site.plan, places, lambda _: None)
    assert "rights" in raised.value.hint


def test_a_wrong_key_pair_is_a_publishing_error_with_a_hint(site: Site, servers: Servers) -> None:
    credentials = CdnCredentials(servers.s3_url, S3_KEY, "wrong-secret-value", bucket="models")
    sealed = site.seal()
    with pytest.raises(PublishingError, match="can't upload") as raised:
        Cdn(credentials, bucket="models").upload(site.places.workspace / sealed.big_path, "models/x.big")
    assert "cdn.yaml" in raised.value.hint
    assert "wrong-secret-value" not in str(raised.value) + raised.value.hint


def test_missing_keys_are_told_all_at_once(site: Site) -> None:
    (site.home / "signing/publisher.key").unlink()
    (site.home / "recipients/field").write_text("nonsense")
    with pytest.raises(ConfigurationError, match=r"recipients/field.*publisher\.key"):
        site.seal()
