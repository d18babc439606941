"""Every broken thing is refused by its rule; every odd but good one is trained on as its maker meant it."""

from __future__ import annotations

from pathlib import Path

import annotation_corpus as corpus
import cv2
import numpy as np
import pytest
from annotation_corpus import Case, picture
from PIL import Image, ImageOps

from trainwright.contract import ClassesSettings
from trainwright.errors import DataError
from trainwright_trainer.annotations.classes import load_classes
from trainwright_trainer.annotations.images import check_image
from trainwright_trainer.annotations.items import Label, Rule, UnfitError
from trainwright_trainer.annotations.labels import check_label, decode_text

CLASS_IDS = frozenset({0, 1, 21})

BROKEN_IMAGES, GOOD_IMAGES = list(corpus.broken_images()), list(corpus.good_images())
BROKEN_LABELS, GOOD_LABELS = list(corpus.broken_labels()), list(corpus.good_labels())
CLASS_FILES = list(corpus.class_files())


def name_of(value: object) -> str | None:
    return value.name if isinstance(value, Case) else None


def read_label(case: Case) -> Label:
    return check_label(decode_text(case.data), CLASS_IDS)


@pytest.mark.parametrize("case", BROKEN_IMAGES, ids=name_of)
def test_a_broken_image_is_refused_by_its_rule(case: Case) -> None:
    with pytest.raises(UnfitError) as refused:
        check_image(case.data, case.suffix)
    assert refused.value.rule == case.verdict
    assert str(refused.value).startswith("image ")


@pytest.mark.parametrize("case", GOOD_IMAGES, ids=name_of)
def test_an_odd_image_is_the_same_picture_to_every_reader(case: Case) -> None:
    found = check_image(case.data, case.suffix)
    assert frozenset(found.repairs) == case.verdict
    assert (found.data == case.data) == case.keeps_its_bytes
    by_opencv = cv2.imdecode(np.frombuffer(found.data, np.uint8), cv2.IMREAD_COLOR)
    with Image.open(corpus.BytesIO(found.data)) as image:
        by_pillow = np.asarray(image.convert("RGB"))
    assert by_pillow.shape == (found.height, found.width, 3)
    np.testing.assert_array_equal(by_opencv[:, :, ::-1], by_pillow)


@pytest.mark.parametrize(
    "case", [case for case in GOOD_IMAGES if case.verdict and "orient" in case.name], ids=name_of
)
def test_a_turned_image_lies_as_viewers_show_it(case: Case) -> None:
    """Boxes are drawn on what a viewer shows: width and height are those of the upright picture."""
    with Image.open(corpus.BytesIO(case.data)) as image:
        shown = np.asarray(ImageOps.exif_transpose(image), dtype=int)
    found = check_image(case.data)
    as_stored = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    stored = cv2.imdecode(np.frombuffer(found.data, np.uint8), as_stored)
    assert np.abs(stored[:, :, ::-1] - shown).max() <= 12  # it was encoded anew


def test_sixteen_bits_become_the_eight_high_ones() -> None:
    deep = np.asarray(picture())[:, :, 0].astype(np.uint16) * 256 + 255
    data = cv2.imencode(".png", deep)[1].tobytes()
    found = cv2.imdecode(np.frombuffer(check_image(data).data, np.uint8), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(found, np.asarray(picture())[:, :, 0])


@pytest.mark.parametrize("case", BROKEN_LABELS, ids=name_of)
def test_a_broken_label_is_refused_by_its_rule(case: Case) -> None:
    with pytest.raises(UnfitError) as refused:
        read_label(case)
    assert refused.value.rule == case.verdict
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize(("case", "text"), GOOD_LABELS, ids=name_of)
def test_an_odd_label_says_what_it_was_meant_to(case: Case, text: str) -> None:
    found = read_label(case)
    assert found.text == text
    assert frozenset(found.repairs) == case.verdict


@pytest.mark.parametrize(("name", "data", "problem"), CLASS_FILES, ids=[name for name, *_ in CLASS_FILES])
def test_a_broken_class_file_is_refused_with_a_sentence(
    tmp_path: Path, name: str, data: bytes, problem: str
) -> None:
    (tmp_path / "classes.json").write_bytes(data)
    with pytest.raises(DataError, match=problem) as refused:
        load_classes(ClassesSettings(), tmp_path)
    assert str(refused.value).startswith("the class file 'classes.json'")


def test_every_rule_of_images_and_labels_is_broken_by_something() -> None:
    broken = {case.verdict for case in BROKEN_IMAGES + BROKEN_LABELS}
    of_one_file = {rule for rule in Rule if rule.startswith(("Image", "Label"))}
    of_their_names = {Rule.IMAGE_MISSING, Rule.IMAGE_AMBIGUOUS, Rule.LABEL_MISSING}
    of_importers = {Rule.LABEL_FORMAT, Rule.LABEL_OF_ANOTHER_SIZE}
    assert of_one_file - broken == of_their_names | of_importers
