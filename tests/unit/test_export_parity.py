"""When two models are taken to detect the same, and what is not exported at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from trainwright.contract import OnnxSettings
from trainwright.errors import ConfigurationError, StepError
from trainwright_trainer.steps.export import LARGEST, _check_size
from trainwright_trainer.steps.verification import _compare, _judge, _plan_trials, _Tolerance

TOLERANCE = _Tolerance(overlap=0.9, confidence=0.02)
Rows = NDArray[np.float32]


def rows(*detections: tuple[float, ...]) -> Rows:
    return np.array(detections, dtype=np.float32).reshape(-1, 6)


SURE = (10.0, 10.0, 50.0, 50.0, 0.9, 0.0)
OTHER = (60.0, 60.0, 90.0, 90.0, 0.6, 1.0)


@st.composite
def detections(draw: st.DrawFn) -> Rows:
    found = []
    for _ in range(draw(st.integers(0, 8))):
        x, y = draw(st.integers(0, 90)), draw(st.integers(0, 90))
        width, height = draw(st.integers(1, 40)), draw(st.integers(1, 40))
        found.append((x, y, x + width, y + height, draw(st.floats(0.001, 1)), draw(st.integers(0, 2))))
    return rows(*found)


@given(detections())
def test_a_model_matches_itself_whatever_it_detects(found: Rows) -> None:
    result = _compare(found, found, TOLERANCE)
    assert result.matched == result.wanted
    assert result.max_difference == 0


@given(detections(), detections())
def test_it_does_not_matter_which_model_is_asked_first(first: Rows, second: Rows) -> None:
    assert _compare(first, second, TOLERANCE) == _compare(second, first, TOLERANCE)


@pytest.mark.parametrize(
    ("theirs", "matched"),
    [
        (rows((10.5, 10.0, 50.5, 50.0, 0.91, 0.0), OTHER), 4),
        (rows((10.0, 10.0, 50.0, 50.0, 0.9, 2.0), OTHER), 2),
        (rows((10.0, 10.0, 50.0, 50.0, 0.8, 0.0), OTHER), 2),
        (rows((20.0, 10.0, 60.0, 50.0, 0.9, 0.0), OTHER), 2),
        (rows(OTHER), 2),
        (rows(), 0),
    ],
)
def test_class_place_and_confidence_must_agree(theirs: Rows, matched: int) -> None:
    assert _compare(rows(SURE, OTHER), theirs, TOLERANCE).matched == matched


def test_a_detection_at_the_threshold_is_not_a_difference() -> None:
    """What one model finds at 0.251 and the other at 0.249 is the same detection."""
    many = [(index * 10.0, 0.0, index * 10.0 + 9, 9.0, 0.9, 0.0) for index in range(6)]
    above, below = (0.0, 50.0, 20.0, 70.0, 0.251, 1.0), (0.0, 50.0, 20.0, 70.0, 0.249, 1.0)
    result = _compare(rows(*many, above), rows(*many, below), TOLERANCE)
    assert result.matched == result.wanted


def test_of_unsure_detections_that_tie_either_may_have_been_suppressed() -> None:
    """A model that knows little gives boxes beside each other one confidence; the order decides then."""
    ours, theirs = (0.0, 0.0, 100.0, 100.0, 0.00153, 1.0), (8.0, 8.0, 108.0, 108.0, 0.00153, 1.0)
    result = _compare(rows(ours), rows(theirs), TOLERANCE)
    assert (result.wanted, result.matched) == (2, 2)
    other_class = (*theirs[:5], 2.0)
    assert _compare(rows(ours), rows(other_class), TOLERANCE).matched == 2
    apart = (8.0, 8.0, 108.0, 108.0, 0.00156, 1.0)
    assert _compare(rows(ours), rows(apart), TOLERANCE).matched == 0
    sure = [(*box[:4], 0.8, 1.0) for box in (ours, theirs)]
    assert _compare(rows(sure[0]), rows(sure[1]), TOLERANCE).matched == 0


def test_what_either_model_may_have_dropped_at_its_threshold_is_not_compared() -> None:
    barely = (0.0, 0.0, 100.0, 100.0, 0.0011, 1.0)
    assert _compare(rows(barely), rows(), TOLERANCE).wanted == 0
    assert _compare(rows(SURE, barely), rows(SURE), TOLERANCE) == _compare(rows(SURE), rows(SURE), TOLERANCE)


def test_nothing_to_compare_is_said_and_not_taken_for_a_difference(caplog: pytest.LogCaptureFixture) -> None:
    parity = _judge("onnxruntime", [_compare(rows(), rows(), TOLERANCE)], 99)
    assert parity.compared == 0
    assert "nothing to compare" in caplog.text


def test_too_few_matches_are_an_error_with_the_figures() -> None:
    half = _compare(rows(SURE, OTHER), rows(SURE), TOLERANCE)
    with pytest.raises(StepError, match=r"run by openvino, matches 66\.7 % of 3 detections .* on 1 test"):
        _judge("openvino", [half], 99)
    parity = _judge("openvino", [half], 60)
    assert (parity.engine, parity.compared, parity.match_percent) == ("openvino", 3, 66.67)


def tried(images: int, image_size: int = 64, **settings: object) -> list[tuple[int, tuple[int, int]]]:
    paths = [Path(f"{index}.png") for index in range(images)]
    trials = _plan_trials(paths, OnnxSettings.model_validate(settings), image_size)
    assert {path for trial in trials for path in trial.paths} == set(paths)
    return [(len(trial.paths), trial.size) for trial in trials]


def test_every_image_is_given_in_batches_of_one_three_and_the_most() -> None:
    square = (64, 64)
    assert tried(16) == [(1, square), (3, square), (8, square), (1, square), (3, square)]
    assert tried(2) == [(1, square), (3, square), (8, square)]
    assert tried(4, max_batch=2) == [(1, square), (2, square), (1, square)]


def test_a_model_with_a_fixed_batch_is_always_given_that() -> None:
    assert tried(10, dynamic_batch=False) == [(8, (64, 64)), (8, (64, 64))]


def test_a_model_with_dynamic_sizes_is_given_other_sizes_and_oblong_images_too() -> None:
    assert tried(12, image_size=640, dynamic_image_size=True)[-2:] == [(8, (320, 320)), (8, (320, 640))]
    assert tried(12, image_size=32, dynamic_image_size=True)[-2:] == [(8, (96, 96)), (8, (96, 32))]


def test_weights_that_do_not_fit_into_one_file_are_refused() -> None:
    _check_size(LARGEST)
    with pytest.raises(ConfigurationError, match=r"take 3\.00 GiB, and an ONNX file holds at most 1\.97 GiB"):
        _check_size(3 * 2**30)
