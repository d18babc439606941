"""References to objects that hold what a run must not, or need not, hold itself."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainwright_operator.api.section import DataKey, ObjectName, Section, VersionName


class SecretReference(Section):
    """A Secret of the run's namespace."""

    secret_name: ObjectName = Field(
        description="Name of the Secret. It needs the label trainwright.dev/use: delivery, so that the right"
        " to create runs is not the right to use any Secret."
    )


class ConfigMapKey(Section):
    """One key of a ConfigMap of the run's namespace."""

    name: ObjectName = Field(description="Name of the ConfigMap.")
    key: DataKey = Field(description="Key of the ConfigMap whose text is taken.")


class ProfileReference(Section):
    """Whose image, defaults and limits the run has. Default: the profile the operator's settings name."""

    built_in = {"kind": "TrainingProfile"}  # noqa: RUF012

    name: ObjectName = Field(description="Name of the profile.")
    kind: Literal["TrainingProfile", "ClusterTrainingProfile"] | None = Field(
        default=None, description="TrainingProfile is one of the run's namespace."
    )
    version: VersionName | None = Field(
        default=None, description="Version of the profile. Default: the one that is marked as the default."
    )
