"""A training whose workspace ends with its pod: it goes on from the bucket, and believes nobody else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import boto3
import pytest
import yaml
from botocore.config import Config
from stack_cluster import wait
from whole_stack import Team, trained_epochs

from trainwright_devstack.stack import Devstack

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Object = dict[str, Any]

RUN, MODEL, EPOCHS, PREFIX = "rivets-1", "rivets", 10, "checkpoints/ml"


@pytest.fixture(scope="module")
def bucket(devstack: Devstack) -> S3Client:
    """The bucket as everybody with a key pair for it sees it."""
    pair = yaml.safe_load(devstack.state.s3.uploader_cdn_yaml)
    return boto3.client(
        "s3",
        endpoint_url=devstack.state.s3.endpoint,
        aws_access_key_id=pair["uploader_access_key"],
        aws_secret_access_key=pair["uploader_access_secret"],
        region_name="us-east-1",
        verify=str(devstack.state.authority),
        config=Config(s3={"addressing_style": "path"}),
    )


@pytest.fixture(scope="module")
def status(devstack: Devstack, team: Team, bucket: S3Client) -> Object:
    """The status of a run that lost its pod, and with it its workspace, in the middle of its training."""
    pair = yaml.safe_load(devstack.state.s3.uploader_cdn_yaml)
    team.kubectl("apply", "-f", "-", manifest=secret_of(pair, devstack.state.authority.read_text()))
    store = {
        "endpoint": devstack.state.s3.endpoint,
        "bucket": devstack.state.s3.bucket,
        "prefix": PREFIX,
        "credentials": {"secretName": "checkpoint-store"},
    }
    team.apply(
        team.manifest(
            RUN,
            MODEL,
            training=team.manifest(RUN)["spec"]["training"] | {"epochs": EPOCHS},
            checkpoint={"store": {"s3": store}},
            compute={"gpus": 0, "workspace": {"emptyDir": {}}},
        )
    )
    trainer = team.trainer(RUN, 1)
    wait(lambda: "the checkpoint of epoch 2 is in the store" in trainer.log.read_text(), "it is in the store")
    team.wait(RUN, lambda status: status["trainer"]["checkpoint"]["epoch"] >= 2, "it is reported")
    trainer.freeze()
    plant_a_later_one(bucket, devstack.state.s3.bucket)
    trainer.kill()
    return team.wait_for_phase(RUN, "Succeeded")


def secret_of(pair: dict[str, str], authority: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "checkpoint-store", "labels": {"trainwright.dev/use": "checkpoint"}},
        "stringData": {
            "AWS_ACCESS_KEY_ID": pair["uploader_access_key"],
            "AWS_SECRET_ACCESS_KEY": pair["uploader_access_secret"],
            "ca.crt": authority,
        },
    }


def stored_epoch(status: Object) -> int:
    found: int = status.get("trainer", {}).get("checkpoint", {}).get("storedEpoch") or 0
    return found


def stored_keys(bucket: S3Client, name: str) -> list[str]:
    listed = bucket.list_objects_v2(Bucket=name, Prefix=f"{PREFIX}/").get("Contents", [])
    return sorted(item["Key"] for item in listed)


def plant_a_later_one(bucket: S3Client, name: str) -> None:
    """Leave a checkpoint that says it is the last one, beside those of the run."""
    newest = [key for key in stored_keys(bucket, name) if key.endswith(".json")][-1]
    manifest = json.loads(bucket.get_object(Bucket=name, Key=newest)["Body"].read())
    manifest["last"] |= {"epoch": EPOCHS, "final": True}
    folder = newest.rpartition("/")[0]
    planted = f"{folder}/epoch-{EPOCHS:06d}-{'0' * 16}.json"
    bucket.put_object(Bucket=name, Key=planted, Body=json.dumps(manifest).encode())


def test_the_next_attempt_goes_on_from_the_bucket(team: Team, status: Object) -> None:
    first, second = status["attempts"]
    assert first["exitCode"] == 137
    assert 2 <= second["resumedFromEpoch"] < EPOCHS
    lost = trained_epochs(team.logs(RUN, 1))[-1] - second["resumedFromEpoch"]
    assert lost <= 1  # the checkpoint of the last epoch may still have been on its way
    assert trained_epochs(team.logs(RUN, 2)) == list(range(second["resumedFromEpoch"] + 1, EPOCHS + 1))


def test_a_checkpoint_that_the_run_never_reported_is_not_believed(team: Team, status: Object) -> None:
    assert status["attempts"][1]["resumedFromEpoch"] != EPOCHS
    assert "never reported" in json.dumps(team.logs(RUN, 2))


def test_accepted_says_where_another_attempt_starts(status: Object) -> None:
    (accepted,) = [each for each in status["conditions"] if each["type"] == "Accepted"]
    assert "another attempt starts at the newest checkpoint in checkpoint.store" in accepted["message"]


def test_the_last_checkpoint_is_all_that_stays_in_the_bucket(
    devstack: Devstack, bucket: S3Client, status: Object
) -> None:
    assert stored_epoch(status) == EPOCHS
    manifests = [key for key in stored_keys(bucket, devstack.state.s3.bucket) if key.endswith(".json")]
    assert len(manifests) == 1
    assert f"/{RUN}/" in manifests[0]
    assert "/0002-" in manifests[0]


def test_one_version_was_published(team: Team, status: Object) -> None:
    assert [len(names) for names in team.published(MODEL).values()] == [1, 1]
    assert team.fetch(MODEL)["digest"] == status["model"]["digest"]
