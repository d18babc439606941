"""Evaluation: what the weights reach on images that neither training nor the choice of an epoch has seen."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from trainwright.artifacts import Dataset, Evaluation, Parent, Weights
from trainwright.contract import (
    ClassResult,
    ComparedClass,
    Comparison,
    EvaluationDetails,
    Latency,
    RunPlan,
)
from trainwright.contract.evaluation import MOST_CLASSES, MOST_CURVES
from trainwright_trainer import yolo
from trainwright_trainer.devices import device_of, name_device
from trainwright_trainer.files import write_atomically
from trainwright_trainer.measuring.gate import Verdict, judge
from trainwright_trainer.measuring.mistakes import find_mistakes
from trainwright_trainer.measuring.pictures import list_images, load_image
from trainwright_trainer.measuring.resampling import RESAMPLES, drop_interval
from trainwright_trainer.measuring.results import Validation
from trainwright_trainer.places import Places
from trainwright_trainer.watching import Watcher

FOLDER = "evaluation"
DETAILS = f"{FOLDER}/details.json"
_SPLIT = "test"
_TIMED_IMAGES, _WARM_UP = 32, 3
_OURS = 0.5  # of the stage, where there is a parent to measure too


def evaluate_weights(  # noqa: PLR0913, PLR0917 - what is measured, on what, and beside which parent
    weights: Weights,
    dataset: Dataset,
    plan: RunPlan,
    places: Places,
    watcher: Watcher,
    parent: Parent | None = None,
) -> Evaluation:
    """Measure the weights on the test split; a model that misses the gate is still delivered, but says so."""
    yolo.prepare(places.workspace / "ultralytics")
    bench = _Bench(dataset, plan, places, weights.batch_size)
    share = _OURS if parent is not None else 1.0
    model = yolo.Model(places.workspace / weights.path)
    ours = bench.measure(model, lambda done: watcher.advance(0.95 * share * done))
    latency = bench.time(model)
    watcher.advance(share)
    comparison = None
    if parent is not None:
        older = yolo.Model(places.workspace / parent.weights)
        theirs = bench.measure(older, lambda done: watcher.advance(share + 0.95 * (1 - share) * done))
        comparison = _compare(ours, theirs, parent, dataset.class_names, plan.gate.metric)
    per_class = {
        dataset.class_names[class_id]: figures.values[plan.gate.metric]
        for class_id, figures in ours.classes.items()
    }
    verdict = judge(ours.metrics, per_class, comparison, plan.gate)
    details = _describe(ours, dataset, latency, comparison, verdict)
    write_atomically(places.workspace / DETAILS, details.model_dump_json(by_alias=True).encode())
    drop = {} if comparison is None else {"dropFromParent": comparison.drop}
    return Evaluation(
        metrics={**ours.metrics, **drop},
        per_class={
            dataset.class_names[class_id]: figures.values["mAP50to95"]
            for class_id, figures in ours.classes.items()
        },
        images=dataset.report.images.test,
        details=DETAILS,
        gate_passed=verdict.passed,
        gate_reason=verdict.reason,
    )


class _Bench:
    """The test split and the settings with which every model is measured alike."""

    def __init__(self, dataset: Dataset, plan: RunPlan, places: Places, batch_size: int) -> None:
        self._dataset = places.workspace / dataset.folder
        self._scratch = places.workspace / "ultralytics" / FOLDER
        self._plan = plan
        self._batch_size = batch_size
        self._device = device_of(plan)

    def measure(self, model: yolo.Model, on_batch: Callable[[float], None]) -> Validation:
        split = yolo.Split(self._dataset / "data.yaml", _SPLIT, self._scratch)
        settings = yolo.Inference(
            self._plan.training.image_size, self._batch_size, self._device, self._end_to_end(model)
        )
        return model.validate(split, settings, on_batch)

    def time(self, model: yolo.Model) -> Latency:
        """Time one image after the other, from the array to its detections."""
        detect = model.detector(self._device, end_to_end=self._end_to_end(model))
        size = self._plan.training.image_size
        paths = list_images(self._dataset, _SPLIT, _TIMED_IMAGES)
        milliseconds = []
        for path in [*[paths[0]] * _WARM_UP, *paths]:
            image = load_image(path, (size, size))[None]
            start = time.perf_counter()
            detect(image)
            milliseconds.append(1000 * (time.perf_counter() - start))
        median, p95 = np.percentile(milliseconds[_WARM_UP:], (50, 95)).round(3).tolist()
        return Latency(
            device=name_device(self._device), image_size=size, images=len(paths), median=median, p95=p95
        )

    def _end_to_end(self, model: yolo.Model) -> bool:
        """The head that is delivered is the one that is measured."""
        return self._plan.export.onnx.nms and model.end_to_end


def _compare(
    ours: Validation, theirs: Validation, parent: Parent, class_names: tuple[str, ...], metric: str
) -> Comparison | None:
    """Compare over the classes that both models know; None where none of them is in the test split."""
    known = dict(enumerate(parent.class_names))
    common = [class_id for class_id in ours.classes if known.get(class_id) == class_names[class_id]]
    if not common:
        return None
    compared = [
        ComparedClass(
            name=class_names[class_id],
            ours=round(ours.classes[class_id].values[metric], 5),
            parents=round(theirs.classes[class_id].values[metric], 5),
        )
        for class_id in common
    ]
    reached = float(np.mean([entry.ours for entry in compared]))
    before = float(np.mean([entry.parents for entry in compared]))
    low, high = drop_interval(ours, theirs, common, metric)
    return Comparison(
        model=parent.model,
        version=parent.version,
        metric=metric,
        ours=round(reached, 5),
        parents=round(before, 5),
        drop=round(before - reached, 5),
        low=round(low, 5),
        high=round(high, 5),
        resamples=RESAMPLES,
        classes=tuple(compared[:MOST_CLASSES]),
    )


def _describe(
    found: Validation, dataset: Dataset, latency: Latency, comparison: Comparison | None, verdict: Verdict
) -> EvaluationDetails:
    confusion, worst = find_mistakes(found.images, found.threshold, dataset.class_names)
    return EvaluationDetails(
        metrics=found.metrics,
        images=len(found.images),
        boxes=sum(len(image.labels) for image in found.images),
        threshold=round(found.threshold, 4),
        f1=round(found.f1, 5),
        classes=_class_results(found, dataset.class_names),
        confusion=confusion,
        worst=worst,
        latency=latency,
        comparison=comparison,
        gate_passed=verdict.passed,
        gate_reasons=verdict.reasons,
    )


def _class_results(found: Validation, class_names: tuple[str, ...]) -> tuple[ClassResult, ...]:
    by_boxes = sorted(found.classes, key=lambda class_id: -found.classes[class_id].boxes)
    with_curve = set(by_boxes[:MOST_CURVES])
    results = []
    for class_id, name in enumerate(class_names[:MOST_CLASSES]):
        figures = found.classes.get(class_id)
        if figures is None:
            results.append(ClassResult(name=name, images=0, boxes=0))
            continue
        values = {key: round(value, 5) for key, value in figures.values.items()}
        results.append(
            ClassResult(
                name=name,
                images=figures.images,
                boxes=figures.boxes,
                ap50=values["mAP50"],
                ap50to95=values["mAP50to95"],
                precision=values["precision"],
                recall=values["recall"],
                curve=figures.curve if class_id in with_curve else (),
            )
        )
    return tuple(results)
