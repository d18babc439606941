"""Evaluation: what the weights reach on images that neither training nor the choice of an epoch has seen."""

from __future__ import annotations

from collections.abc import Mapping

from trainwright.artifacts import Dataset, Evaluation, Weights
from trainwright.contract import GateSettings, RunPlan
from trainwright_trainer import yolo
from trainwright_trainer.devices import device_of
from trainwright_trainer.places import Places
from trainwright_trainer.watching import Watcher


def evaluate_weights(
    weights: Weights, dataset: Dataset, plan: RunPlan, places: Places, watcher: Watcher
) -> Evaluation:
    """Measure the weights on the test split; a model that misses the gate is still delivered, but says so."""
    yolo.prepare(places.workspace / "ultralytics")
    path = places.workspace / weights.path
    result = yolo.validate(
        path,
        places.workspace / dataset.folder / "data.yaml",
        split="test",
        image_size=plan.training.image_size,
        batch_size=weights.batch_size,
        device=device_of(plan),
        folder=places.workspace / "evaluation",
        end_to_end=plan.export.onnx.nms and yolo.is_end_to_end(path),  # the head that is delivered
        on_batch=watcher.advance,
    )
    passed, reason = check_gate(result.metrics, plan.gate)
    return Evaluation(
        metrics=result.metrics,
        per_class=result.per_class,
        images=dataset.report.images.test,
        gate_passed=passed,
        gate_reason=reason,
    )


def check_gate(metrics: Mapping[str, float], gate: GateSettings) -> tuple[bool, str]:
    """Return whether the metrics pass the gate, and a sentence that says why."""
    value = metrics.get(gate.metric)
    if value is None:
        return False, f"{gate.metric} on the test split is not a number: gate.minimum is {gate.minimum:g}"
    passed = value >= gate.minimum
    relation = "reaches" if passed else "is below"
    return passed, f"{gate.metric} {value:.3f} on the test split {relation} gate.minimum {gate.minimum:g}"
