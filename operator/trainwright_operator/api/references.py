"""References to objects of the run's namespace that hold what a run must not hold itself."""

from __future__ import annotations

from pydantic import Field

from trainwright_operator.api.section import DataKey, ObjectName, Section


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
