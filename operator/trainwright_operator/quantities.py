"""Kubernetes quantities, such as 500m and 64Gi, as numbers that can be compared. Pure."""

from __future__ import annotations

from decimal import Decimal

from trainwright_operator.api import TrainingRunSpec

_DECIMAL = {"m": Decimal("0.001"), "": Decimal(1)} | {
    unit: Decimal(1000) ** power for power, unit in enumerate("kMGTP", 1)
}
_BINARY = {f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTP", 1)}
UNITS = _DECIMAL | _BINARY


def parse_quantity(quantity: int | str) -> Decimal:
    """Return the number that a quantity of the API stands for; the schema has checked its form."""
    text = str(quantity)
    number = text.rstrip("".join(UNITS))
    return Decimal(number) * UNITS[text[len(number) :]]


def memory_limit(spec: TrainingRunSpec) -> Decimal | None:
    """Return the memory limit of the container that trains, in bytes; None where it has none."""
    resources = spec.compute.resources if spec.compute else None
    limit = (resources.limits or {}).get("memory") if resources else None
    return None if limit is None else parse_quantity(limit)
