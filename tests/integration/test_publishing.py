"""Sealed parts go to real servers, an S3 server and the resource API, and come back as the model."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
from datetime import timedelta
from pathlib import Path

import publishing_site
import pytest
from certificates import write_certificate
from prerequisites import require_program
from publishing_site import (
    MODEL_BYTES,
    PASSED,
    S3_KEY,
    S3_SECRET,
    Servers,
    Site,
    build_site,
    start_unfinished_upload,
    stop,
    stored_keys,
    take_port,
    wait_for,
    write_cdn_file,
)

from trainwright.contract import RunPlan
from trainwright.delivery import Cdn, CdnCredentials
from trainwright.delivery.orphans import remove_orphans
from trainwright.errors import PublishingError

servers, site = publishing_site.servers, publishing_site.site  # fixtures are found by name


def test_a_published_model_is_fetched_and_opened(site: Site) -> None:
    fenced: list[str] = []
    published = site.publish(site.seal(), fenced.append)
    assert fenced == [published.file_id]
    name, version = site.plan.model.name, site.plan.model.version
    assert published.pointers == (f"{name}.{version}.json", f"{name}.json")
    for wanted in (site.plan.model.name, f"{site.plan.model.name}@v1"):
        done = site.fetch(wanted, "--json")
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert result["digest"] == site.onnx.digest
        assert result["parts"]["big"]["digest"] == published.big.digest
        assert Path(result["path"]).read_bytes() == MODEL_BYTES
        assert [path.name for path in (site.home / "models").iterdir()] == [Path(result["path"]).name]


def test_name_and_tag_lead_to_the_newest_version_that_passed_its_gate(site: Site) -> None:
    site.plan = rename(site.plan, tag="nightly")
    site.publish(site.seal())
    site.plan = rename(site.plan, version="v2")
    site.evaluation = PASSED.model_copy(update={"gate_passed": False})
    assert site.publish(site.seal()).pointers == (f"{site.plan.model.name}.v2.json",)
    for wanted, version in (("", "v1"), ("@nightly", "v1"), ("@v2", "v2")):
        done = site.fetch(site.plan.model.name + wanted, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["version"] == version


def rename(plan: RunPlan, **names: str) -> RunPlan:
    return plan.model_copy(update={"model": plan.model.model_copy(update=names)})


def test_publishing_again_uploads_nothing_again(site: Site, servers: Servers) -> None:
    sealed = site.seal()
    site.publish(sealed)
    big = servers.s3_folder / "models" / "models" / sealed.big.name
    before = big.stat().st_mtime_ns
    site.publish(sealed)
    assert big.stat().st_mtime_ns == before


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


def test_a_multipart_upload_is_read_back_whole(site: Site, servers: Servers, tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(1 << 20) * 40)  # above the multipart threshold, and more than one range
    cdn = site.connect().cdn
    cdn.upload(path, "models/large.bin")
    assert cdn.find_size("models/large.bin") == 40 << 20
    assert cdn.hash("models/large.bin", 40 << 20) == (
        "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    )


def test_a_cdn_with_its_own_authority_is_verified(tmp_path: Path) -> None:
    binary, port = require_program("versitygw"), take_port()
    certificate, key = write_certificate(tmp_path)
    (tmp_path / "s3/models").mkdir(parents=True)
    (tmp_path / "part").write_bytes(b"part")
    write_cdn_file(tmp_path / "cdn.yaml", f"https://127.0.0.1:{port}")
    trusting = CdnCredentials.from_folder(tmp_path, "uploader")
    server = subprocess.Popen(
        [
            binary, "--quiet", "--cert", certificate, "--key", key,
            "--port", f"127.0.0.1:{port}", "posix", tmp_path / "s3",
        ],
        env={"ROOT_ACCESS_KEY": S3_KEY, "ROOT_SECRET_KEY": S3_SECRET, "HOME": str(tmp_path)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(port, server, "versitygw")
        cdn = Cdn(trusting, bucket="models")
        cdn.upload(tmp_path / "part", "models/part")
        assert cdn.hash("models/part", 4) == "sha256:" + hashlib.sha256(b"part").hexdigest()
        with pytest.raises(PublishingError, match="certificate"):
            Cdn(dataclasses.replace(trusting, ca=None), bucket="models").find_size("models/part")
    finally:
        stop(server)
