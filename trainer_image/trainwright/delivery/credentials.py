"""Credentials of both servers, read from folders as Secrets are mounted; no representation shows them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml

from trainwright.delivery.endpoints import check_endpoint
from trainwright.errors import ConfigurationError

LOG = logging.getLogger(__name__)

EMAIL, PASSWORD, CA_FILE, CDN_FILE = "AZAION_API_EMAIL", "AZAION_API_PASSWORD", "ca.crt", "cdn.yaml"

Role = Literal["uploader", "downloader"]


@dataclass(frozen=True)
class ApiCredentials:
    """The account of the resource API, and the authority its certificate is checked with."""

    email: str
    password: str = field(repr=False)
    ca: Path | None = None

    @classmethod
    def from_folder(cls, folder: Path) -> ApiCredentials:
        """Read one file per key; all that is missing is told at once."""
        values = {name: read_secret(folder / name) for name in (EMAIL, PASSWORD)}
        return cls._from_values(values, f"the folder {folder}", find_ca(folder))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> ApiCredentials:
        """Read the variables of the same names."""
        values = {name: environment.get(name, "") for name in (EMAIL, PASSWORD)}
        return cls._from_values(values, "the environment", None)

    @classmethod
    def _from_values(cls, values: Mapping[str, str], where: str, ca: Path | None) -> ApiCredentials:
        missing = [name for name, value in values.items() if not value]
        if missing:
            raise ConfigurationError(
                f"{where} has no {' and no '.join(missing)}",
                hint=f"the account of the resource API is {EMAIL} and {PASSWORD}",
            )
        return cls(values[EMAIL], values[PASSWORD], ca)


@dataclass(frozen=True)
class CdnCredentials:
    """One key pair of the CDN. `too_broad` says that the text also had the other role's pair."""

    endpoint: str
    access_key: str = field(repr=False)
    access_secret: str = field(repr=False)
    bucket: str | None = None
    region: str = "us-east-1"
    too_broad: bool = False
    ca: Path | None = None

    @classmethod
    def from_folder(cls, folder: Path, role: Role) -> CdnCredentials:
        """Read `cdn.yaml`, and `ca.crt` where there is one."""
        text = read_secret(folder / CDN_FILE)
        if not text:
            raise ConfigurationError(
                f"the folder {folder} has no {CDN_FILE}", hint="leave the folder out to get it from the API"
            )
        return cls.from_text(text, role, ca=find_ca(folder))

    @classmethod
    def from_text(cls, text: str, role: Role, *, ca: Path | None = None) -> CdnCredentials:
        """Read a `cdn.yaml`, keep the pair of one role, and drop the other's at once."""
        values = _parse_yaml(text)
        needed = ("host", f"{role}_access_key", f"{role}_access_secret")
        missing = [name for name in needed if not values.get(name)]
        if missing:
            raise ConfigurationError(
                f"{CDN_FILE} has no {' and no '.join(missing)}", hint=f"this needs the {role}'s key pair"
            )
        other = "downloader" if role == "uploader" else "uploader"
        too_broad = any(values.get(f"{other}_access_{name}") for name in ("key", "secret"))
        if too_broad:
            LOG.warning("CredentialsTooBroad: %s also has the %s's keys; dropped", CDN_FILE, other)
        host = values["host"]
        return cls(
            endpoint=check_endpoint(host if "://" in host else f"https://{host}", what="the CDN"),
            access_key=values[f"{role}_access_key"],
            access_secret=values[f"{role}_access_secret"],
            bucket=values.get("bucket") or None,
            region=values.get("region") or "us-east-1",
            too_broad=too_broad,
            ca=ca,
        )


def _parse_yaml(text: str) -> dict[str, str]:
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError:
        # The parser's message quotes the text, which holds secrets.
        raise ConfigurationError(f"{CDN_FILE} is not YAML") from None
    if not isinstance(values, dict):
        raise ConfigurationError(f"{CDN_FILE} is not a list of keys and values")
    return {str(key): str(value) for key, value in values.items() if value is not None}


def read_secret(path: Path) -> str:
    """Return what a file of a mounted Secret holds, '' where there is none; what it holds is in no error."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigurationError(f"{path} can't be read: {reason}") from None


def find_ca(folder: Path) -> Path | None:
    """Return the authority's certificate beside the credentials, if there is one."""
    path = folder / CA_FILE
    return path if path.is_file() else None
