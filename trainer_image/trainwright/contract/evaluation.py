"""What the evaluation found, whole: a file in the workspace, as it is too much for a status.

All of it is bounded: curves have `CURVE_POINTS` points; of classes, pairs and images the largest are kept.
A file of 80 classes has at most 300 KiB, one of 1,000 classes at most 1 MiB.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, FiniteFloat

from trainwright.contract.report import Metrics
from trainwright.contract.words import Contract

CURVE_POINTS = 51
"""A precision-recall curve is the precision at this many recalls, evenly from 0 to 1."""
MOST_CLASSES = 1000
MOST_CURVES = 100
MOST_PAIRS = 2000
WORST_IMAGES = 24
BOXES_OF_AN_IMAGE = 40

Share = Annotated[float, Field(ge=0, le=1)]


class ClassResult(Contract):
    """What the model reaches on one class; a class without boxes in the test split has no figures.

    Precision and recall are those at `EvaluationDetails.threshold`. `curve` is the precision, at an overlap
    of 0.5, at `CURVE_POINTS` recalls from 0 to 1; only the classes with the most boxes have one.
    """

    name: str
    images: int = Field(ge=0)
    boxes: int = Field(ge=0)
    ap50: Share | None = None
    ap50to95: Share | None = Field(default=None, alias="ap50to95")
    precision: Share | None = None
    recall: Share | None = None
    curve: Annotated[tuple[Share, ...], Field(max_length=CURVE_POINTS)] = ()


class ConfusedPair(Contract):
    """How many boxes of one class were found as another; None is the background: missed, or false."""

    label: str | None
    found: str | None
    count: int = Field(ge=1)


class ErrorBox(Contract):
    """A box, in pixels of the image: x1, y1, x2, y2; a missed one has no confidence."""

    name: str
    box: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]
    confidence: Share | None = None


class ImageErrors(Contract):
    """What went wrong on one image of the test split: `image` is its name there, below images/test.

    The counts are of all, the boxes are the first `BOXES_OF_AN_IMAGE` of each.
    """

    image: str
    width: int
    height: int
    missed_count: int = Field(ge=0)
    false_count: int = Field(ge=0)
    missed: Annotated[tuple[ErrorBox, ...], Field(max_length=BOXES_OF_AN_IMAGE)] = ()
    false: Annotated[tuple[ErrorBox, ...], Field(max_length=BOXES_OF_AN_IMAGE)] = ()


class Latency(Contract):
    """Milliseconds from one image in memory to its detections, one image at a time."""

    device: str
    image_size: int
    images: int
    median: FiniteFloat
    p95: FiniteFloat


class ComparedClass(Contract):
    """The gate's metric of one class, of this model and of its parent."""

    name: str
    ours: Share
    parents: Share


class Comparison(Contract):
    """The gate's metric of this model and of its parent, on the same images.

    `drop` is the parent's less ours; `low` to `high` holds it with 95 % confidence, as found by drawing the
    images `resamples` times anew. `classes` are those both know; the differences of the others do not count.
    """

    model: str
    version: str
    metric: str
    ours: Share
    parents: Share
    drop: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat
    resamples: int
    classes: Annotated[tuple[ComparedClass, ...], Field(max_length=MOST_CLASSES)] = ()


class EvaluationDetails(Contract):
    """Everything the evaluation on the test split found.

    `threshold` is the confidence with the best F1 over all classes, `f1`; 0.25 where nothing is right. At it
    precision and recall, `confusion` and `worst` were counted, with boxes that overlap by half or more.
    """

    metrics: Metrics
    images: int = Field(ge=0)
    boxes: int = Field(ge=0)
    threshold: Share
    f1: Share
    classes: Annotated[tuple[ClassResult, ...], Field(max_length=MOST_CLASSES)]
    confusion: Annotated[tuple[ConfusedPair, ...], Field(max_length=MOST_PAIRS)]
    worst: Annotated[tuple[ImageErrors, ...], Field(max_length=WORST_IMAGES)]
    latency: Latency
    comparison: Comparison | None = None
    gate_passed: bool
    gate_reasons: tuple[str, ...]
