"""The gate's verdict on a model: whether it passes, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trainwright.contract import Comparison, GateSettings

_MOST_NAMES = 3
_LONGEST_REASON = 256


@dataclass(frozen=True)
class Verdict:
    """Whether a model passes, and a sentence for each thing that was asked of it, what it fails by first."""

    passed: bool
    reasons: tuple[str, ...]

    @property
    def reason(self) -> str:
        """All reasons in one line, as long as a status has room for."""
        text = "; ".join(self.reasons)
        return text if len(text) <= _LONGEST_REASON else text[: _LONGEST_REASON - 1] + "…"


def judge(
    metrics: Mapping[str, float],
    per_class: Mapping[str, float],
    comparison: Comparison | None,
    gate: GateSettings,
) -> Verdict:
    """Judge a model by its metrics, by the gate's metric of each class, and beside its parent."""
    findings = [_judge_whole(metrics, gate)]
    if gate.minimum_per_class > 0:
        findings.append(_judge_classes(per_class, gate))
    if comparison is not None:
        findings.append(_judge_drop(comparison, gate))
    findings.sort(key=lambda finding: finding[0])
    return Verdict(all(passed for passed, _ in findings), tuple(reason for _, reason in findings))


def _judge_whole(metrics: Mapping[str, float], gate: GateSettings) -> tuple[bool, str]:
    value = metrics.get(gate.metric)
    if value is None:
        return False, f"{gate.metric} on the test split is not a number: gate.minimum is {gate.minimum:g}"
    passed = value >= gate.minimum
    relation = "reaches" if passed else "is below"
    return passed, f"{gate.metric} {value:.3f} on the test split {relation} gate.minimum {gate.minimum:g}"


def _judge_classes(per_class: Mapping[str, float], gate: GateSettings) -> tuple[bool, str]:
    asked = f"gate.minimumPerClass {gate.minimum_per_class:g}"
    low = sorted((value, name) for name, value in per_class.items() if value < gate.minimum_per_class)
    if not low:
        return True, f"each of {len(per_class)} classes reaches {asked}"
    named = ", ".join(f"{name} {value:.3f}" for value, name in low[:_MOST_NAMES])
    rest = f" and {len(low) - _MOST_NAMES} more" if len(low) > _MOST_NAMES else ""
    return False, f"{gate.metric} below {asked}: {named}{rest}"


def _judge_drop(comparison: Comparison, gate: GateSettings) -> tuple[bool, str]:
    """The drop itself decides; its interval only says how far to trust that."""
    most, drop = gate.max_drop_from_parent, comparison.drop
    passed = drop <= most
    moved = f"{abs(drop):.3f} {'below' if drop > 0 else 'above'} its parent {comparison.version}"
    interval = f"95 %: a drop of {comparison.low:.3f} to {comparison.high:.3f}"
    allowed = f"{'within' if passed else 'more than'} gate.maxDropFromParent {most:g}"
    unsure = ", but not surely so" if comparison.low <= most < comparison.high else ""
    return passed, f"{comparison.metric} is {moved} on the same images ({interval}): {allowed}{unsure}"
