"""The page and the card: figures in, text out; whatever comes from the data is escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from trainwright.contract import Stage
from trainwright_trainer.report.charts import draw_balance, draw_confusion, draw_curves, draw_lines
from trainwright_trainer.report.findings import Findings
from trainwright_trainer.report.pictures import draw_errors

_MOST_CLASSES = 100
_LOSSES = {
    "train/box_loss": "box, training",
    "val/box_loss": "box, validation",
    "train/cls_loss": "class, training",
    "val/cls_loss": "class, validation",
}
_METRICS = {
    "metrics/mAP50(B)": "mAP50",
    "metrics/mAP50-95(B)": "mAP50-95",
    "metrics/precision(B)": "precision",
    "metrics/recall(B)": "recall",
}
_RATES = {"lr/pg0": "learning rate"}


def render_page(findings: Findings) -> str:
    """Return the report: one HTML file that asks nothing of any server."""
    charts = {
        "training_charts": _charts(
            draw_lines("Losses", findings.history, _LOSSES),
            draw_lines("Metrics on the validation split", findings.history, _METRICS, shares=True),
            draw_lines("Learning rate", findings.history, _RATES),
        ),
        "test_charts": _charts(
            draw_curves(findings.details.classes), draw_confusion(findings.details.confusion)
        ),
        "balance_chart": Markup(draw_balance(findings.summary["classes"])),  # noqa: S704 - matplotlib escapes
        "pictures": draw_errors(findings.details.worst, findings.test_images),
    }
    return _templates().get_template("report.html.j2").render(**_describe(findings), **charts)


def render_card(findings: Findings) -> str:
    """Return the model card, in Markdown."""
    return _templates().get_template("model_card.md.j2").render(**_describe(findings))


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("trainwright_trainer.report"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(figure=_figure, signed=_signed, line=_line, cell=_cell)
    return environment


def _charts(*drawn: str) -> list[Markup]:
    return [Markup(chart) for chart in drawn if chart]  # noqa: S704 - SVG of matplotlib, which escapes its texts


def _describe(findings: Findings) -> dict[str, Any]:
    plan, made, details = findings.plan, findings.made, findings.details
    return {
        "model": plan.model,
        "run": f"{plan.run.namespace}/{plan.run.name}",
        "description": plan.model.description,
        "tiles": _tiles(findings),
        "gate": {"passed": made.evaluation.gate_passed, "reasons": details.gate_reasons},
        "classes": details.classes[:_MOST_CLASSES],
        "more_classes": max(len(details.classes) - _MOST_CLASSES, 0),
        "comparison": details.comparison,
        "threshold": details.threshold,
        "f1": details.f1,
        "test_image_count": details.images,
        "image_size": plan.export_image_size,
        "splits": _splits(findings.summary),
        "quarantined": findings.summary["quarantined"],
        "annotations": findings.summary["annotations"],
        "drift": [(_words(name), value) for name, value in _flatten(findings.drift)],
        "stages": _stages(findings.seconds),
        "gpu_use": _gpu_use(findings),
        "provenance": _provenance(findings),
    }


def _splits(summary: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        side: {**split, "boxes": sum(each[side]["boxes"] for each in summary["classes"])}
        for side, split in summary["splits"].items()
    }


def _tiles(findings: Findings) -> list[dict[str, str]]:
    details, made = findings.details, findings.made
    names = {"mAP50": "mAP50", "mAP50to95": "mAP50-95", "precision": "precision", "recall": "recall"}
    tiles = [{"name": name, "value": _figure(details.metrics.get(key))} for key, name in names.items()]
    latency = details.latency
    return [
        *tiles,
        {"name": f"ms an image on {latency.device}, p95 {latency.p95:.1f}", "value": f"{latency.median:.1f}"},
        {"name": "epochs", "value": str(made.weights.epochs)},
        {"name": "size of the model", "value": f"{made.onnx.size / 1e6:.1f} MB"},
    ]


def _stages(seconds: Mapping[Stage, float]) -> list[tuple[str, str, str]]:
    total = sum(seconds.values()) or 1.0
    return [
        (str(stage), _duration(value), f"{100 * value / total:.0f} %") for stage, value in seconds.items()
    ]


def _gpu_use(findings: Findings) -> str:
    gpus = findings.plan.gpus
    if gpus == 0:
        return "No GPU was used."
    busy = sum(findings.seconds.get(stage, 0.0) for stage in (Stage.TRAINING, Stage.EVALUATION))
    return (
        f"{gpus} × {findings.details.latency.device}: {gpus * busy:.0f} GPU-seconds in training and"
        " evaluation, of the attempts that finished them."
    )


def _provenance(findings: Findings) -> list[tuple[str, str]]:
    plan, made = findings.plan, findings.made
    parities = [
        (
            f"{parity.engine} against weights",
            f"{parity.match_percent:g} % of {parity.compared} detections match",
        )
        for parity in made.verified.parities
    ]
    return [
        ("run", f"{plan.run.namespace}/{plan.run.name} {plan.run.uid}".strip()),
        ("plan", plan.digest),
        ("dataset", made.dataset.report.digest),
        ("base model", plan.training.base_model),
        ("weights", made.weights.digest),
        ("ONNX", f"{made.onnx.digest} (opset {made.onnx.opset})"),
        *parities,
        ("seed", f"training {plan.training.seed}, split {plan.dataset.split.seed}"),
        ("made with", ", ".join(f"{name} {version}" for name, version in findings.versions.items())),
    ]


def _flatten(value: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Return the single figures of a nested mapping; lists are told by their length."""
    found: list[tuple[str, str]] = []
    for name, inner in value.items():
        path = f"{above} {name}".strip()
        if isinstance(inner, Mapping):
            found += _flatten(inner, path)
        elif isinstance(inner, list | tuple):
            found.append((path, str(len(inner))))
        else:
            found.append((path, f"{inner:.4g}" if isinstance(inner, float) else str(inner)))
    return found


def _words(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _signed(value: float) -> str:
    return f"{value:+.3f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def _line(text: object) -> str:
    """Return text on one line that is no markup, and does not end a code span."""
    return " ".join(str(text).split()).replace("`", "'").replace("<", "&lt;")


def _cell(text: object) -> str:
    """Return text for a cell of a Markdown table."""
    return re.sub(r"([\\|*_\[\]])", r"\\\1", _line(text))
