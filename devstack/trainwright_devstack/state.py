"""What the stack tells about itself in `devstack.json`: for people, for the demo, for `down`."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from trainwright_devstack.kubeconfig import write_private

STATE_FILE = "devstack.json"
DEFAULT_FOLDER = Path("build/devstack")


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class ClusterState(_Part):
    """The cluster; `kubeconfig` is an administrator's."""

    description: str
    kubeconfig: Path
    kubectl: str | None
    operator: str | None = Field(description="The operator's image, or nothing where it is not installed.")
    trainer_image: str
    host: str = Field(description="The address of this machine as the cluster's pods see it.")


class S3State(_Part):
    """The S3 server, and a `cdn.yaml` for each role."""

    endpoint: str
    bucket: str
    checks_credentials: bool
    uploader_cdn_yaml: str = Field(repr=False)
    downloader_cdn_yaml: str = Field(repr=False)


class AccountState(_Part):
    """One account of the resource API."""

    email: str
    password: str = Field(repr=False)


class ResourceApiState(_Part):
    """The resource API."""

    url: str
    publisher: AccountState
    reader: AccountState


class RabbitMqState(_Part):
    """The broker with the stream of annotations, and its one account."""

    host: str
    port: int = Field(description="In the clear.")
    tls_port: int = Field(description="Over TLS, with a certificate of the stack's authority.")
    stream: str
    user: str
    password: str = Field(repr=False)


class StackState(_Part):
    """Everything a client of the stack needs; the file is readable by its owner only."""

    supervisor: int = Field(description="Process id of who looks after the stack.")
    authority: Path = Field(
        description="Certificate that the S3 server and the resource API are checked with."
    )
    cluster: ClusterState
    s3: S3State
    resource_api: ResourceApiState
    rabbit_mq: RabbitMqState | None = Field(default=None, description="Absent until it is asked for.")

    @classmethod
    def read(cls, folder: Path = DEFAULT_FOLDER) -> StackState | None:
        """Return the state of the stack in a folder, or None where none is up."""
        try:
            return cls.model_validate_json((folder / STATE_FILE).read_text())
        except FileNotFoundError:
            return None

    def write(self, folder: Path) -> None:
        """Replace the folder's state."""
        write_private(folder / STATE_FILE, self.model_dump_json(by_alias=True, indent=2) + "\n")
