"""What passes the gate, and what the verdict says."""

from __future__ import annotations

import pytest

from trainwright.contract import Comparison, GateSettings
from trainwright_trainer.measuring.gate import judge

METRICS = {"mAP50": 0.7, "mAP50to95": 0.5}
CLASSES = {"apple": 0.6, "pear": 0.4}


def beside_parent(drop: float, low: float, high: float) -> Comparison:
    return Comparison(
        model="fruit",
        version="2026-11-01-4f2a",
        metric="mAP50to95",
        ours=0.5,
        parents=0.5 + drop,
        drop=drop,
        low=low,
        high=high,
        resamples=1000,
    )


@pytest.mark.parametrize(
    ("gate", "comparison", "passed", "said"),
    [
        ({}, None, True, "mAP50to95 0.500 on the test split reaches gate.minimum 0"),
        ({"minimum": 0.5}, None, True, "reaches gate.minimum 0.5"),
        ({"minimum": 0.501}, None, False, "is below gate.minimum 0.501"),
        ({"metric": "recall"}, None, False, "recall on the test split is not a number"),
        ({"minimum_per_class": 0.4}, None, True, "each of 2 classes reaches gate.minimumPerClass 0.4"),
        ({"minimum_per_class": 0.5}, None, False, "mAP50to95 below gate.minimumPerClass 0.5: pear 0.400"),
        ({}, beside_parent(0.01, -0.01, 0.015), True, "0.010 below its parent 2026-11-01-4f2a on the same"),
        ({}, beside_parent(0.01, -0.01, 0.03), True, "within gate.maxDropFromParent 0.02, but not surely so"),
        ({}, beside_parent(0.05, 0.03, 0.07), False, "more than gate.maxDropFromParent 0.02"),
        ({}, beside_parent(0.05, 0.01, 0.07), False, "more than gate.maxDropFromParent 0.02, but not surely"),
        ({}, beside_parent(-0.1, -0.2, -0.05), True, "0.100 above its parent"),
        ({"max_drop_from_parent": 1}, beside_parent(0.5, 0.4, 0.6), True, "within gate.maxDropFromParent 1"),
    ],
)
def test_the_verdict_and_its_reasons(
    gate: dict[str, object], comparison: Comparison | None, passed: bool, said: str
) -> None:
    verdict = judge(METRICS, CLASSES, comparison, GateSettings.model_validate(gate))
    assert verdict.passed is passed
    assert said in verdict.reason


def test_what_a_model_fails_by_is_said_first_and_everything_is_said() -> None:
    gate = GateSettings(minimum=0.2, minimum_per_class=0.5)
    verdict = judge(METRICS, CLASSES, beside_parent(0.05, 0.03, 0.07), gate)
    assert len(verdict.reasons) == 3
    assert verdict.reasons[-1] == "mAP50to95 0.500 on the test split reaches gate.minimum 0.2"
    assert len(verdict.reason) <= 256


def test_of_many_low_classes_the_lowest_are_named() -> None:
    low = {f"class-{index}": index / 100 for index in range(10)}
    verdict = judge(METRICS, low, None, GateSettings(minimum_per_class=0.5))
    assert "class-0 0.000, class-1 0.010, class-2 0.020 and 7 more" in verdict.reason
