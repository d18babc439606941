"""The operator's settings: one YAML file, written by the chart."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, field_validator
from pydantic.alias_generators import to_camel

from trainwright_operator.plan import merge_spec
from trainwright_operator.verdicts import Patience

SMALLEST_SPEC = {"model": {"name": "any"}, "dataset": {"source": {"sample": {}}}}


class SettingsSection(BaseModel):
    """Base of the sections: camelCase in YAML, unknown keys refused."""

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, extra="forbid", frozen=True
    )


class TrainerSettings(SettingsSection):
    """The image that trainer pods run."""

    image: str
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"


class NotificationSettings(SettingsSection):
    """Where notifications may go beside public addresses, and how long an address is tried."""

    allowed_networks: tuple[IPvAnyNetwork, ...] = ()
    refused_networks: tuple[IPvAnyNetwork, ...] = ()
    retry_seconds: float = Field(default=5, gt=0)
    give_up_seconds: float = Field(default=21600, ge=0)


class OperatorSettings(SettingsSection):
    """What the platform decides for all runs; `defaults` is a partial TrainingRun spec that runs override."""

    trainer: TrainerSettings
    notifications: NotificationSettings = NotificationSettings()
    namespaces: tuple[str, ...] = ()
    defaults: dict[str, Any] = {}
    secret_access: bool = True
    require_fence: bool = True
    price_per_gpu_hour: float | None = Field(default=None, ge=0, alias="pricePerGPUHour")
    health_port: int = Field(default=8080, ge=0, le=65535)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    retry_backoff_seconds: float = Field(default=10, ge=0)
    node_lost_seconds: float = Field(default=60, ge=0)
    image_pull_seconds: float = Field(default=600, ge=0)
    relist_seconds: float = Field(default=300, gt=0)
    lease_seconds: float = Field(default=12, ge=3, le=300)
    workers: int = Field(default=8, ge=1)

    @property
    def patience(self) -> Patience:
        """How long something may be wrong before an attempt is given up for it."""
        return Patience(timedelta(seconds=self.node_lost_seconds), timedelta(seconds=self.image_pull_seconds))

    @field_validator("defaults")
    @classmethod
    def _check_defaults(cls, defaults: dict[str, Any]) -> dict[str, Any]:
        """Refuse to start with defaults that no run could be merged with: each would end without a word."""
        merge_spec(defaults, SMALLEST_SPEC)
        return defaults


def read_settings(path: Path) -> OperatorSettings:
    """Read and validate the file; a `ValidationError` lists everything that is wrong with it."""
    return OperatorSettings.model_validate(yaml.safe_load(path.read_text()) or {})
