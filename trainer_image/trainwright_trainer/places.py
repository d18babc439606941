"""Where one execution finds and leaves things on disk: all that differs between a laptop and a pod."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainwright.delivery import ApiCredentials
from trainwright.errors import ConfigurationError


@dataclass(frozen=True)
class Places:
    """Folders of one execution; only `workspace`, `checkpoints` and `cache` are written to.

    `data` is the root that a folder source's path is below, and written to where an annotation stream is read
    into it; `weights` holds base models; the others hold one file per key, as a mounted Secret does. A plan
    that does not need one may leave it out.
    """

    workspace: Path
    data: Path | None = None
    weights: Path | None = None
    api_credentials: Path | ApiCredentials | None = (
        None  # AZAION_API_EMAIL, AZAION_API_PASSWORD, perhaps ca.crt
    )
    cdn_credentials: Path | None = None  # cdn.yaml, optionally ca.crt
    recipients: Path | None = None  # one public key per file, named by its key id
    signing_key: Path | None = None  # publisher.key
    bundle_recipients: Path | None = None  # the same, of those who may train a version further
    bundle_key: Path | None = None  # bundle.key, which opens the bundles of parents
    publishers: Path | None = None  # one verify key per file: who may have signed a parent
    checkpoints: Path | None = None  # the root that the path of a checkpoint folder is below; written to
    checkpoint_credentials: Path | None = None  # AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, optionally ca.crt
    stream_credentials: Path | None = None  # RABBITMQ_USER, RABBITMQ_PASSWORD, optionally ca.crt
    cache: Path | None = None  # what was read of annotations, where several runs share it

    def read_account(self) -> ApiCredentials:
        """Return the account of the resource API."""
        if self.api_credentials is None:
            raise ConfigurationError(
                "no folder of API credentials is given",
                hint="name a Secret with AZAION_API_EMAIL and AZAION_API_PASSWORD: delivery.api.credentials",
            )
        if isinstance(self.api_credentials, ApiCredentials):
            return self.api_credentials
        return ApiCredentials.from_folder(self.api_credentials)
