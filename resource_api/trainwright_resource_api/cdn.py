"""The `cdn.yaml` a role may see: the server's file has both key pairs, an answer has one.

host: https://s3.example.com
bucket: models
region: eu-1                  # optional
uploader_access_key: ...
uploader_access_secret: ...
downloader_access_key: ...
downloader_access_secret: ...
"""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainwright_resource_api.accounts import Role
from trainwright_resource_api.problems import describe_validation
from trainwright_resource_api.secret_files import SecretFileError, WatchedSecret

CDN_FILE = "cdn.yaml"
"""The reserved name under which clients get it, in any folder."""


class CdnFile(BaseModel):
    """The server's file; an unknown key is an error, for it may be a secret nobody would filter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(pattern=r"^(https?://)?[^\s/]+/?$")
    bucket: str = Field(min_length=3, max_length=63)
    region: str | None = None
    uploader_access_key: str = Field(repr=False, min_length=1)
    uploader_access_secret: str = Field(repr=False, min_length=1)
    downloader_access_key: str = Field(repr=False, min_length=1)
    downloader_access_secret: str = Field(repr=False, min_length=1)


class Cdn:
    """The CDN's credentials, told apart by role; an edited file is in force with the next request."""

    def __init__(self, path: Path, *, group_readable: bool = False) -> None:
        self._file = WatchedSecret(path, _parse_cdn, group_readable=group_readable)

    def render(self, role: Role) -> bytes:
        """Return the YAML with that role's key pair and no other."""
        withheld = {Role.PUBLISHER: "downloader_", Role.READER: "uploader_"}[role]
        values = self._file.get().model_dump(exclude_none=True)
        shown = {key: value for key, value in values.items() if not key.startswith(withheld)}
        return yaml.safe_dump(shown, sort_keys=False).encode()


def _parse_cdn(content: bytes) -> CdnFile:
    try:
        return CdnFile.model_validate(yaml.safe_load(content))
    except yaml.YAMLError:
        raise SecretFileError(f"the {CDN_FILE} of the server is not YAML") from None
    except ValidationError as error:
        raise SecretFileError(
            f"the {CDN_FILE} of the server is wrong: {describe_validation(error)}"
        ) from None
