"""Everything a server is started with."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

MIB = 1024 * 1024


class Settings(BaseModel):
    """The settings of one server: files, limits and lifetimes; immutable."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path = Field(description="Folder of the stored files; the signing keys are in `.keys.json` in it.")
    users: Path = Field(description="File of the accounts, written by `user add`.")
    cdn: Path | None = Field(default=None, description="File with both key pairs of the CDN, or nothing.")
    token_seconds: int = Field(default=900, ge=10, le=86_400, description="How long a login is good for.")
    max_upload_bytes: int = Field(default=8 * 1024 * MIB, ge=1, description="Largest file taken.")
    idle_seconds: float = Field(default=60, gt=0, description="Longest silence of a sending client.")
    login_attempts: int = Field(
        default=10, ge=1, description="Failed logins of one account from one address within the window."
    )
    login_window_seconds: float = Field(default=60, gt=0, description="How far back failed logins count.")
    group_readable: bool = Field(
        default=False,
        description="Take secret files their group may read, as Kubernetes mounts them with fsGroup.",
    )
