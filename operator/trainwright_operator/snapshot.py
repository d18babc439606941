"""What a run is carried out with beside its own spec: its profile and the operator's settings, as they were.

A run is started with the snapshot of that moment and keeps it: what is changed later concerns new runs. Pure.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from pydantic import Field

from trainwright.contract import Contract, Document
from trainwright_operator.api import (
    ALLOWED_ENVIRONMENT,
    ProfileLimits,
    ProfileReference,
    ProfileSpec,
    ProfileVersion,
)
from trainwright_operator.names import PROFILE_KIND
from trainwright_operator.plan import merge_sections
from trainwright_operator.settings import OperatorSettings

Object = dict[str, Any]

SNAPSHOT_KEY = "snapshot.json"
"""The key of the plan's ConfigMap that holds it."""


class ProfileIdentity(Contract):
    """Which profile, and which version of it."""

    kind: str
    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r}"


class Snapshot(Document):
    """All of a profile and of the operator's settings that bears on a run; the same for all runs of both."""

    profile: ProfileIdentity | None = None
    image: str
    image_pull_policy: str
    defaults: dict[str, Any] = Field(default={})
    limits: dict[str, Any] = Field(default={})
    allowed_environment: tuple[str, ...] = ALLOWED_ENVIRONMENT
    environment: dict[str, str] = Field(default={})
    pod_template: dict[str, Any] = Field(default={})
    price_per_gpu_hour: float | None = None

    @cached_property
    def bounds(self) -> ProfileLimits:
        """The profile's limits."""
        return ProfileLimits.model_validate(self.limits)

    def to_status(self) -> Object:
        """Return `status.profile` of a run that was started with it."""
        named = self.profile.model_dump(mode="json", by_alias=True) if self.profile else {}
        return {**named, "digest": self.digest}


def take_snapshot(
    settings: OperatorSettings,
    kind: str = "",
    name: str = "",
    spec: ProfileSpec | None = None,
    version: str = "",
) -> Snapshot:
    """Return the snapshot of a profile's version over the operator's settings, or of the settings alone."""
    defaults = {section: value for section, value in settings.defaults.items() if section != "profile"}
    pull_policy = settings.trainer.image_pull_policy
    if spec is None:
        return Snapshot(
            image=settings.trainer.image,
            image_pull_policy=pull_policy,
            defaults=defaults,
            price_per_gpu_hour=settings.price_per_gpu_hour,
        )
    own = _plain(spec.defaults) | ({"delivery": _plain(spec.delivery)} if spec.delivery else {})
    environment, price = spec.environment, spec.price_per_gpu_hour
    allowed = environment.allowed if environment else None
    return Snapshot(
        profile=ProfileIdentity(kind=kind, name=name, version=version),
        image=next(item.image for item in spec.versions if item.name == version),
        image_pull_policy=pull_policy,
        defaults=merge_sections(defaults, own),
        limits=_plain(spec.limits),
        allowed_environment=ALLOWED_ENVIRONMENT if allowed is None else allowed,
        environment=(environment.values or {}) if environment else {},
        pod_template=_plain(spec.pod_template),
        price_per_gpu_hour=settings.price_per_gpu_hour if price is None else price,
    )


def choose_version(spec: ProfileSpec, wanted: str | None) -> ProfileVersion | None:
    """Return the version of this name, or the default one; None where there is none of the name."""
    if wanted is None:
        return next((version for version in spec.versions if version.default), None)
    return next((version for version in spec.versions if version.name == wanted), None)


def find_reference(settings: OperatorSettings, run: Object) -> ProfileReference | None:
    """Return the profile that a run names, else the one that the operator's settings name."""
    named = run["spec"].get("profile") or settings.defaults.get("profile")
    return ProfileReference.model_validate(named) if named else None


def kind_of(reference: ProfileReference) -> str:
    """Return the kind of profile that is meant."""
    return reference.kind or PROFILE_KIND


def _plain(section: Any) -> Object:
    if section is None:
        return {}
    body: Object = section.model_dump(mode="json", by_alias=True, exclude_none=True)
    return body
