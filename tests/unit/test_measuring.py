"""What is wrong on which image, and how sure the difference of two models is."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from trainwright.contract import ConfusedPair
from trainwright_trainer.measuring.mistakes import find_mistakes
from trainwright_trainer.measuring.resampling import RESAMPLES, draw_blocks, drop_interval, resample
from trainwright_trainer.measuring.results import ImageResult, Validation

NAMES = ("apple", "pear", "plum")
Rows = Sequence[tuple[float, ...]]
Box = tuple[float, float, float, float]
LEFT: Box = (0.0, 0.0, 20.0, 20.0)
RIGHT: Box = (50.0, 0.0, 70.0, 20.0)
BELOW: Box = (0.0, 50.0, 20.0, 70.0)


def image(name: str, labels: Rows, detections: Rows, matches: NDArray[np.bool_] | None = None) -> ImageResult:
    found = np.array(detections, dtype=np.float32).reshape(-1, 6)
    right = np.zeros((len(found), 10), dtype=np.bool_) if matches is None else matches
    return ImageResult(name, 100, 100, found, np.array(labels, dtype=np.float32).reshape(-1, 5), right)


def model(images: int, quality: float, seed: int) -> Validation:
    """Return what a model finds that is right with this chance, on always the same labels."""
    labelled, random = np.random.default_rng(7), np.random.default_rng(seed)
    results = []
    for index in range(images):
        classes = labelled.integers(0, 3, labelled.integers(0, 5))
        right = random.random(len(classes)) < quality
        sureness = np.where(right, random.beta(4, 2, len(classes)), random.beta(2, 4, len(classes)))
        overlap = np.where(right, random.integers(1, 11, len(classes)), 0)
        matches = np.arange(10)[None] < overlap[:, None]
        results.append(
            image(
                f"{index}.png",
                [(*LEFT, float(name)) for name in classes],
                [(*LEFT, sure, float(name)) for sure, name in zip(sureness, classes, strict=True)],
                matches,
            )
        )
    return Validation({}, {}, 0.4, 0.0, results)


def average_precision(images: Sequence[ImageResult], class_id: int, overlap: int) -> float:
    """The area below the highest precision at each recall or more, detection by detection."""
    labels = sum(int((one.labels[:, 4] == class_id).sum()) for one in images)
    found = [
        (float(-detection[4]), position, bool(match[overlap]))
        for position, one in enumerate(images)
        for detection, match in zip(one.detections, one.matches, strict=True)
        if detection[5] == class_id
    ]
    right, points = 0, []
    for rank, (_, _, matches) in enumerate(sorted(found), start=1):
        right += matches
        points.append((right, right / rank))
    area = 0.0
    for index, (count, _) in enumerate(points):
        if count > (points[index - 1][0] if index else 0):
            area += max(precision for _, precision in points[index:]) / labels
    return area


@pytest.mark.parametrize(("metric", "overlaps"), [("mAP50", [0]), ("mAP50to95", range(10))])
def test_each_drawing_gets_the_average_precision_of_the_images_it_has(
    metric: str, overlaps: Sequence[int]
) -> None:
    result = model(30, 0.6, seed=1)
    blocks, weights = draw_blocks(30, resamples=4)
    values = resample(result, [0, 1, 2], metric, blocks, weights)
    for drawing, value in zip(weights, values, strict=True):
        drawn = [
            one for block, one in zip(blocks, result.images, strict=True) for _ in range(int(drawing[block]))
        ]
        expected = np.mean(
            [average_precision(drawn, name, overlap) for name in range(3) for overlap in overlaps]
        )
        assert value == pytest.approx(expected, abs=0.005)  # of equally sure copies the order is not said


def test_precision_and_recall_are_counted_from_the_threshold_on() -> None:
    found = [(*LEFT, 0.9, 0.0), (*RIGHT, 0.8, 0.0), (*BELOW, 0.2, 0.0)]
    right = np.array([[True] * 10, [False] * 10, [True] * 10])
    labels = [(*LEFT, 0.0), (*BELOW, 0.0), (*RIGHT, 1.0)]
    result = Validation({}, {}, 0.5, 0.0, [image("a.png", labels, found, right)])
    blocks, weights = draw_blocks(1, resamples=1)
    assert resample(result, [0], "precision", blocks, weights) == pytest.approx([0.5])
    assert resample(result, [0], "recall", blocks, weights) == pytest.approx([0.5])
    assert resample(result, [0, 1], "recall", blocks, weights) == pytest.approx([0.25])
    assert resample(result, [0, 1, 2], "recall", blocks, weights) == pytest.approx([0.25])  # 2 does not occur


def test_a_model_is_as_good_as_itself() -> None:
    result = model(50, 0.6, seed=1)
    assert drop_interval(result, result, [0, 1, 2], "mAP50to95") == (0.0, 0.0)


def test_many_images_tell_more_surely_than_few_whether_a_model_is_worse() -> None:
    few = drop_interval(model(12, 0.65, seed=1), model(12, 0.75, seed=2), [0, 1, 2], "mAP50")
    many = drop_interval(model(600, 0.65, seed=1), model(600, 0.75, seed=2), [0, 1, 2], "mAP50")
    assert few[0] < 0 < few[1]
    assert 0 < many[0] < many[1] < few[1]
    assert many[1] - many[0] < (few[1] - few[0]) / 3


def test_images_are_matched_by_name_and_the_same_ones_give_the_same_interval() -> None:
    ours, parents = model(60, 0.6, seed=1), model(60, 0.7, seed=2)
    turned = Validation({}, {}, parents.threshold, 0.0, parents.images[::-1])
    interval = drop_interval(ours, parents, [0, 1, 2], "mAP50")
    assert drop_interval(ours, turned, [0, 1, 2], "mAP50") == interval


def test_a_thousand_drawings_take_seconds() -> None:
    ours, parents = model(1000, 0.6, seed=1), model(1000, 0.7, seed=2)
    start = time.process_time()
    drop_interval(ours, parents, [0, 1, 2], "mAP50to95")
    assert RESAMPLES == 1000
    assert time.process_time() - start < 20


def test_classes_that_are_taken_for_each_other_are_counted() -> None:
    confused = image(
        "b.png",
        [(*LEFT, 0.0), (*RIGHT, 1.0)],
        [(*LEFT, 0.9, 2.0), (*RIGHT, 0.8, 1.0), (*BELOW, 0.7, 1.0), (*BELOW, 0.1, 1.0)],
    )
    missed = image("a.png", [(*LEFT, 0.0)], [])
    confusion, _ = find_mistakes([confused, missed], 0.5, NAMES)
    assert set(confusion) == {
        ConfusedPair(label="apple", found="plum", count=1),
        ConfusedPair(label="pear", found="pear", count=1),
        ConfusedPair(label=None, found="pear", count=1),
        ConfusedPair(label="apple", found=None, count=1),
    }


def test_a_box_goes_to_the_detection_of_its_class_before_a_closer_one() -> None:
    near = (1.0, 1.0, 20.0, 20.0)
    confusion, _ = find_mistakes(
        [image("a.png", [(*LEFT, 0.0)], [(*LEFT, 0.9, 1.0), (*near, 0.8, 0.0)])], 0.5, NAMES
    )
    assert ConfusedPair(label="apple", found="apple", count=1) in confusion
    assert ConfusedPair(label=None, found="pear", count=1) in confusion


def test_the_images_with_the_most_mistakes_come_first_with_their_boxes() -> None:
    good = image("good.png", [(*LEFT, 0.0)], [(*LEFT, 0.9, 0.0)])
    bad = image("bad.png", [(*LEFT, 0.0)], [(*RIGHT, 0.9, 1.0)])
    worse = image("worse.png", [(*LEFT, 0.0), (*RIGHT, 0.0), (*BELOW, 1.0)], [])
    crowded = image("crowded.png", [], [(*LEFT, 0.9, 1.0)] * 60)
    _, worst = find_mistakes([good, bad, worse, crowded], 0.5, NAMES)
    assert [entry.image for entry in worst] == ["crowded.png", "worse.png", "bad.png"]
    assert (worst[0].false_count, len(worst[0].false)) == (60, 40)
    assert (worst[2].missed[0].name, worst[2].missed[0].box) == ("apple", LEFT)
    assert (worst[2].false[0].name, worst[2].false[0].confidence) == ("pear", 0.9)


def test_no_more_images_are_listed_than_a_report_can_show() -> None:
    _, worst = find_mistakes([image(f"{index}.png", [(*LEFT, 0.0)], []) for index in range(100)], 0.5, NAMES)
    assert len(worst) == 24
