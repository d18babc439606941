"""What a finished stage adds to the report of its execution. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from trainwright.artifacts import Evaluation, OnnxModel, Published, Weights
from trainwright.contract import ModelReport, PartsReport, PromotionReport, PublishingReport, RunPlan

Findings = dict[str, object]


def describe_weights(weights: Weights, plan: RunPlan) -> Findings:
    """Return the metrics of the best epoch, and with which batch it was trained if that is not the plan's."""
    metrics = dict(weights.metrics)
    if weights.batch_size != plan.training.batch_size:
        metrics["batchSize"] = float(weights.batch_size)
    return {"metrics": metrics, "resumed_from_epoch": weights.resumed_from_epoch}


def describe_evaluation(evaluation: Evaluation, before: Mapping[str, float]) -> Findings:
    """Return the metrics from here on: those of the test split in place of the training's."""
    gate = {"gatePassed": float(evaluation.gate_passed)}
    return {"metrics": {**before, **evaluation.metrics, **gate}}


def describe_model(onnx: OnnxModel, plan: RunPlan) -> Findings:
    """Return the exported model."""
    name, version = plan.model.name, plan.model.version
    return {"model": ModelReport(name=name, version=version, digest=onnx.digest, size=onnx.size)}


def describe_parts(onnx: OnnxModel, evaluation: Evaluation, published: Published, plan: RunPlan) -> Findings:
    """Return the published model, and whether its name leads to it."""
    model = ModelReport(
        name=plan.model.name,
        version=plan.model.version,
        digest=onnx.digest,
        size=onnx.size,
        parts=PartsReport(small=published.small, big=published.big),
    )
    promotion = PromotionReport(promoted=evaluation.gate_passed, reason=evaluation.gate_reason)
    return {"model": model, "publishing": PublishingReport(file_id=published.file_id), "promotion": promotion}
