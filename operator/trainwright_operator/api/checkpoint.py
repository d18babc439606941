"""`spec.checkpoint`: how often the training is saved, how much of it is kept, and where."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from trainwright import contract
from trainwright_operator.api.delivery import SAFE_URL
from trainwright_operator.api.section import (
    ObjectName,
    RelativePath,
    Rule,
    Section,
    built_in_of,
    one_of,
)


class CheckpointSecret(Section):
    """The Secret with the key pair of the bucket."""

    secret_name: ObjectName = Field(
        description="Name of a Secret with the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and ca.crt"
        " where the server's certificate is not publicly trusted. It needs the label trainwright.dev/use:"
        " checkpoint."
    )


class BucketStore(Section):
    """A bucket, reached through the S3 API: the next attempt may run on any node."""

    built_in = {"region": "us-east-1"}  # noqa: RUF012

    endpoint: Annotated[str, Field(min_length=9, max_length=512)] = Field(
        description="Address of the object store. Plain http is accepted for a loopback address only."
    )
    bucket: Annotated[str, Field(max_length=63, pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")] = Field(
        description="Name of the bucket; it must exist."
    )
    prefix: Annotated[str, Field(max_length=256, pattern=r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$")] | None = (
        Field(
            default=None,
            description="What the keys of all objects begin with; each run has folders of its own below it.",
        )
    )
    region: Annotated[str, Field(max_length=63, pattern=r"^[a-z0-9-]+$")] | None = Field(
        default=None, description="Region of the bucket."
    )
    credentials: CheckpointSecret

    rules = (
        Rule(
            f"self.endpoint.matches('{SAFE_URL}')",
            "spec.checkpoint.store.s3.endpoint must be an https:// address without user and password"
            " (http:// only for localhost, 127.0.0.0/8 and [::1])",
        ),
    )


class ClaimStore(Section):
    """A volume that outlives the run's own; the next attempt runs where it can be mounted."""

    claim_name: ObjectName = Field(description="Name of the PersistentVolumeClaim, in the run's namespace.")
    path: RelativePath | None = Field(
        default=None,
        description="Folder on the volume; each run has folders of its own below it. It may start with '/'."
        " Default: the volume's root.",
    )

    rules = (
        Rule(
            "!has(self.path) || !self.path.split('/').exists(part, part == '..')",
            "spec.checkpoint.store.persistentVolumeClaim.path must not contain '..'",
        ),
    )


class CheckpointStore(Section):
    """Where checkpoints are kept beside the workspace. Set exactly one of its fields."""

    persistent_volume_claim: ClaimStore | None = None
    s3: BucketStore | None = None

    rules = (
        Rule(
            one_of("persistentVolumeClaim", "s3"),
            "spec.checkpoint.store must have exactly one of persistentVolumeClaim, s3",
        ),
    )


class Checkpoint(Section):
    """How often the training is saved, and where to.

    Checkpoints are in the workspace; with a store, copies of them are there too, so that another attempt goes
    on from the newest one although the workspace is gone.
    """

    built_in = built_in_of(contract.CheckpointSettings)

    every_epochs: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="Save a checkpoint every so many epochs, and after the last one. Default:"
        " training.savePeriod.",
    )
    keep: int | None = Field(
        default=None,
        ge=1,
        le=contract.MOST_CHECKPOINTS,
        description="How many checkpoints are kept beside the best one; older ones are removed.",
    )
    store: CheckpointStore | None = None
