"""A training whose node is lost goes on from the bucket on another one, and is not repeated once done."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from publishing_site import S3_KEY, S3_SECRET, Servers, connect_s3, servers
from training_program import Program, tiny_plan

from trainwright.bucket import BucketAddress
from trainwright.contract import BucketStore, Cause, ExitCode, RunReport, Stage
from trainwright.errors import ConfigurationError
from trainwright_trainer.storage import BucketStorage

__all__ = ["servers"]

EPOCHS = 6


def store_of(servers: Servers, prefix: str) -> dict[str, object]:
    return {"store": {"s3": {"endpoint": servers.s3_url, "bucket": "models", "prefix": prefix}}}


def write_key_pair(folder: Path, key: str = S3_KEY, secret: str = S3_SECRET) -> Path:
    folder.mkdir()
    (folder / "AWS_ACCESS_KEY_ID").write_text(key + "\n")
    (folder / "AWS_SECRET_ACCESS_KEY").write_text(secret + "\n")
    return folder


@dataclass
class Moved:
    """A run that loses its workspace twice: in the middle of its training, and when that is done."""

    reports: list[RunReport] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    stored: int = 0
    left: list[str] = field(default_factory=list)


def read_until(process: subprocess.Popen[str], wanted: str) -> str:
    """Return the output up to the line with these words."""
    assert process.stdout is not None
    read = ""
    for line in process.stdout:
        read += line
        if wanted in line:
            return read
    pytest.fail(f"the trainer ended without {wanted!r}: {read[-2000:]}")


@pytest.fixture(scope="module")
def moved(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Moved:
    folder = tmp_path_factory.mktemp("moved")
    program = Program(folder, tiny_plan(epochs=EPOCHS, checkpoint=store_of(servers, "moved")))
    option = ("--checkpoint-credentials", str(write_key_pair(folder / "keys")))
    found = Moved()

    lost = program.start(1, *option)
    read_until(lost, "epoch 2 is in the store")
    lost.send_signal(signal.SIGKILL)
    lost.communicate(timeout=60)
    shutil.rmtree(program.workspace)
    found.stored = max(epoch for epoch, _ in stored_manifests(servers, "moved"))

    second = program.start(2, *option)
    output = read_until(second, '"event": "epoch"')
    servers.s3.send_signal(signal.SIGSTOP)  # the store hangs for an epoch
    try:
        output += read_until(second, '"event": "epoch"')
    finally:
        servers.s3.send_signal(signal.SIGCONT)
    rest, _ = second.communicate(timeout=300)
    assert second.returncode == 0, rest[-2000:]
    found.outputs.append(output + rest)
    found.reports.append(program.report(2))
    found.left = [key for _, key in stored_manifests(servers, "moved")]
    shutil.rmtree(program.workspace)

    code, output = program.run(3, *option)
    assert code == 0, output[-2000:]
    found.outputs.append(output)
    found.reports.append(program.report(3))
    return found


def stored_manifests(servers: Servers, prefix: str) -> Iterator[tuple[int, str]]:
    listed = connect_s3(servers).list_objects_v2(Bucket="models", Prefix=f"{prefix}/").get("Contents", [])
    for item in listed:
        name = item["Key"].rpartition("/")[2]
        if name.endswith(".json"):
            yield int(name.split("-")[1]), item["Key"]


def trained_epochs(output: str) -> list[int]:
    lines = [json.loads(line) for line in output.splitlines()]
    return [line["epoch"] for line in lines if line.get("event") == "epoch"]


def test_another_node_goes_on_from_the_newest_checkpoint_in_the_bucket(moved: Moved) -> None:
    report = moved.reports[0]
    assert report.resumed_from_epoch == moved.stored >= 2
    assert trained_epochs(moved.outputs[0]) == list(range(moved.stored + 1, EPOCHS + 1))


def test_the_report_tells_of_the_newest_checkpoint_and_the_stored_one(moved: Moved) -> None:
    checkpoint = moved.reports[0].checkpoint
    assert checkpoint is not None
    assert (checkpoint.epoch, checkpoint.stored_epoch, checkpoint.problem) == (EPOCHS, EPOCHS, "")
    assert checkpoint.save_seconds > 0


def test_of_a_finished_training_only_the_last_checkpoint_stays(moved: Moved) -> None:
    (key,) = moved.left
    assert "/0002-" in key
    assert f"epoch-{EPOCHS:06d}" in key


def test_a_finished_training_is_not_repeated_on_a_third_node(moved: Moved) -> None:
    assert trained_epochs(moved.outputs[1]) == []
    first, second = moved.reports
    assert second.resumed_from_epoch == EPOCHS
    assert first.model is not None
    assert second.model is not None
    assert second.model.digest == first.model.digest


def test_a_wrong_key_pair_is_told_before_any_work(servers: Servers, tmp_path: Path) -> None:
    program = Program(tmp_path, tiny_plan(checkpoint=store_of(servers, "wrong")))
    keys = write_key_pair(tmp_path / "keys", secret="not the secret")
    code, output = program.run(1, "--checkpoint-credentials", str(keys))
    report = program.report(1)
    assert code == ExitCode.USER_CONFIG, output
    assert report.failure is not None
    assert (report.failure.cause, report.failure.stage) == (Cause.USER_CONFIG, Stage.DATASET)
    assert "the checkpoint store" in report.failure.message
    assert "secret does not fit" in report.failure.hint
    assert not (program.workspace / "dataset").exists()
    assert "not the secret" not in output


def test_without_a_key_pair_both_keys_are_named(servers: Servers, tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    settings = BucketStore(endpoint=servers.s3_url, bucket="models")
    with pytest.raises(ConfigurationError, match="AWS_ACCESS_KEY_ID and no AWS_SECRET_ACCESS_KEY"):
        BucketStorage(settings, tmp_path / "keys")


def test_large_files_come_back_as_they_went_and_are_listed_below_their_prefix(
    servers: Servers, tmp_path: Path
) -> None:
    settings = BucketStore(endpoint=servers.s3_url, bucket="models", prefix="large")
    storage = BucketStorage(settings, write_key_pair(tmp_path / "keys"))
    content = hashlib.shake_256(b"weights").digest(40 << 20)  # three pieces of a multipart upload
    (tmp_path / "last.pt").write_bytes(content)
    storage.put(tmp_path / "last.pt", "ml/run/last.pt")
    storage.get("ml/run/last.pt", tmp_path / "back.pt")
    assert (tmp_path / "back.pt").read_bytes() == content
    assert storage.list("ml/run/") == ["ml/run/last.pt"]
    storage.delete("ml/run/last.pt")
    assert storage.list("ml/run/") == []


def test_no_representation_shows_the_secret() -> None:
    address = BucketAddress("https://s3.example.com", "checkpoints", "key", "very secret")
    assert "very secret" not in repr(address)
