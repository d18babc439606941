"""Altered copies: the same for the same image and settings, with boxes where the objects went."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from trainwright.contract import AugmentationSettings
from trainwright_trainer.annotations.manifest import Variant
from trainwright_trainer.augmentation.boxes import hold_inside, parse_label, write_label
from trainwright_trainer.augmentation.transforms import Picture, alter
from trainwright_trainer.augmentation.variants import FailedVariant, Original, VariantStore, prune
from trainwright_trainer.files import digest_bytes

WIDTH, HEIGHT = 160, 120


def _settings(*transforms: dict[str, Any], **fields: Any) -> AugmentationSettings:
    return AugmentationSettings.model_validate({"transforms": transforms, "copies": 3, **fields})


def _always(kind: str, **fields: Any) -> dict[str, Any]:
    return {kind: {"probability": 1, **fields}}


def _one_bright_box() -> Picture:
    """A dark picture with one bright rectangle: where it is can be seen in the pixels."""
    pixels = np.full((HEIGHT, WIDTH, 3), 10, dtype=np.uint8)
    pixels[30:60, 90:130] = (40, 200, 250)
    return Picture(pixels, np.array([[90.0, 30, 130, 60]]))


def _box_in_pixels(picture: Picture) -> list[float]:
    """Return the box around what is bright."""
    rows, columns = np.nonzero(picture.pixels[:, :, 2] > 180)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


MOVING = [
    _always("flip"),
    _always("flip", direction="Vertical"),
    _always("affine", rotateDegrees=0, shearDegrees=0),
    _always("affine", scaleMin=1, scaleMax=1, rotateDegrees=0, shearDegrees=0, translatePercent=15),
    _always("affine"),
]


@pytest.mark.parametrize("transform", MOVING, ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_a_box_goes_where_its_object_goes(transform: dict[str, Any], seed: int) -> None:
    altered = alter(_one_bright_box(), _settings(transform).steps, random.Random(seed))
    # Half bright pixels at the edges are not counted as the object.
    np.testing.assert_allclose(altered.boxes[0], _box_in_pixels(altered), atol=2.5)


@pytest.mark.parametrize("kind", ["brightnessContrast", "motionBlur", "hueSaturationValue", "noise"])
def test_what_changes_only_colours_leaves_boxes_alone(kind: str) -> None:
    before = _one_bright_box()
    after = alter(before, _settings(_always(kind)).steps, random.Random(4))
    assert (after.boxes == before.boxes).all()
    assert after.pixels.shape == before.pixels.shape
    assert after.pixels.dtype == np.uint8
    assert (after.pixels != before.pixels).any()


def test_colours_change_by_no_more_than_they_may() -> None:
    before = _one_bright_box()
    step = _always("brightnessContrast", brightnessPercent=10, contrastPercent=0)
    for seed in range(20):
        after = alter(before, _settings(step).steps, random.Random(seed))
        assert abs(after.pixels.astype(int) - before.pixels).max() <= 26


def test_motion_blur_keeps_the_brightness_of_a_picture() -> None:
    flat = Picture(np.full((40, 40, 3), 90, dtype=np.uint8), np.zeros((0, 4)))
    for seed in range(20):
        assert (
            alter(flat, _settings(_always("motionBlur", lengthMax=31)).steps, random.Random(seed)).pixels
            == 90
        ).all()


def test_a_probability_is_how_often_a_step_is_taken() -> None:
    picture, rng = _one_bright_box(), random.Random(1)
    steps = _settings({"flip": {"probability": 0.3}}).steps
    flipped = sum(alter(picture, steps, rng).boxes[0][0] != 90 for _ in range(2000))
    assert 520 < flipped < 680
    assert alter(picture, _settings({"flip": {"probability": 0}}).steps, rng) is picture


def test_boxes_are_clipped_and_left_out_when_little_remains() -> None:
    text = "0 0.5 0.5 0.5 0.5\n1 0.0 0.5 0.2 0.2\n2 0.999 0.5 0.1 0.1\n3 0.5 0.5 0.001 0.4\n"
    label = parse_label(text, 100, 100)
    label = label._replace(boxes=label.boxes + np.array([[0.0], [0], [4.6], [0]]))
    held = hold_inside(label, 100, 100, AugmentationSettings())
    assert held.counts() == {0: 1, 1: 1}
    assert write_label(held, 100, 100) == (
        "0 0.500000 0.500000 0.500000 0.500000\n1 0.050000 0.500000 0.100000 0.200000\n"
    )
    strict = hold_inside(label, 100, 100, AugmentationSettings(min_visible_percent=60))
    assert strict.counts() == {0: 1}


def test_a_label_without_boxes_stays_without() -> None:
    label = parse_label("", 100, 100)
    steps = AugmentationSettings().steps
    pixels = np.zeros((100, 100, 3), dtype=np.uint8)
    altered = [alter(Picture(pixels, label.boxes), steps, random.Random(seed)) for seed in range(9)]
    assert all(picture.boxes.shape == (0, 4) for picture in altered)
    assert write_label(hold_inside(label, 100, 100, AugmentationSettings()), 100, 100) == ""


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"copies": 32}, "copies"),
        ({"preset": "strong"}, "preset"),
        ({"transforms": [{"flip": {}, "noise": {}}]}, "exactly one of flip, brightnessContrast"),
        ({"transforms": [{}]}, "exactly one of"),
        ({"transforms": [{"flip": {"probability": 1.1}}]}, "probability"),
        ({"transforms": [{"affine": {"scaleMin": 1.5}}]}, "scaleMin 1.5 is greater than scaleMax 1.2"),
        ({"transforms": [{"blur": {}}]}, "blur"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AugmentationSettings.model_validate(section)


# --- the store -------------------------------------------------------------------------------------------


def _write_original(folder: Path, name: str = "belt_7.jpg", seed: int = 0) -> Original:
    images, labels = folder / "images/train", folder / "labels/train"
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    pixels = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    image, label = images / name, labels / Path(name).with_suffix(".txt")
    image.write_bytes(cv2.imencode(image.suffix, pixels)[1].tobytes())
    label.write_text("2 0.5 0.5 0.25 0.25\n")
    return Original(image, label, digest_bytes(image.read_bytes()), digest_bytes(label.read_bytes()))


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_copies_lie_beside_their_original_and_are_told_by_digest(tmp_path: Path) -> None:
    original = _write_original(tmp_path / "dataset")
    store = VariantStore(tmp_path / "store", AugmentationSettings(copies=7))
    variants = store.add_variants(original)
    assert [item.name for item in variants if isinstance(item, Variant)] == [
        f"belt_7_{number}.jpg" for number in range(1, 8)
    ]
    assert len({item.image for item in variants if isinstance(item, Variant)}) == 7
    for variant in variants:
        assert isinstance(variant, Variant)
        image = original.image.with_name(variant.name)
        label = original.label.with_name(variant.name).with_suffix(".txt")
        assert digest_bytes(image.read_bytes()) == variant.image
        assert digest_bytes(label.read_bytes()) == variant.label
        assert image.stat().st_size == variant.image_size
        assert variant.boxes == {2: 1}


def test_a_copy_depends_on_the_image_the_settings_and_its_number_only(tmp_path: Path) -> None:
    """Not on its name, nor on what was made before it, nor on how many there are."""
    few = VariantStore(tmp_path / "a/store", AugmentationSettings(copies=2))
    few.add_variants(_write_original(tmp_path / "a", "other.jpg", seed=1))
    few.add_variants(_write_original(tmp_path / "a", "belt.jpg"))
    many = VariantStore(tmp_path / "b/store", AugmentationSettings(copies=5))
    many.add_variants(_write_original(tmp_path / "b", "belt2.jpg"))
    for number in (1, 2):
        for folder, suffix in (("images/train", "jpg"), ("labels/train", "txt")):
            ours = tmp_path / "a" / folder / f"belt_{number}.{suffix}"
            assert ours.read_bytes() == (tmp_path / "b" / folder / f"belt2_{number}.{suffix}").read_bytes()


def test_another_seed_or_other_settings_make_other_copies(tmp_path: Path) -> None:
    made = []
    for index, settings in enumerate(
        (AugmentationSettings(copies=1), AugmentationSettings(copies=1, seed=1), _settings(_always("flip")))
    ):
        original = _write_original(tmp_path / str(index))
        made.append(VariantStore(tmp_path / "store", settings).add_variants(original)[0])
    assert len({item.image for item in made if isinstance(item, Variant)}) == 3


def test_what_the_store_has_is_linked_and_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = VariantStore(tmp_path / "store", AugmentationSettings(copies=3))
    first = store.add_variants(_write_original(tmp_path / "first"))
    decodes: list[int] = []
    decode = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda *arguments: decodes.append(1) or decode(*arguments))
    original = _write_original(tmp_path / "second")
    assert store.add_variants(original) == first
    assert decodes == []
    assert original.image.with_name("belt_7_3.jpg").stat().st_nlink == 3  # the store's, the first's, its own
    more = VariantStore(tmp_path / "store", AugmentationSettings(copies=4))
    assert more.add_variants(_write_original(tmp_path / "third"))[:3] == first
    assert decodes == [1]


def test_a_file_that_was_lost_is_made_again(tmp_path: Path) -> None:
    store = VariantStore(tmp_path / "store", AugmentationSettings(copies=3))
    first = store.add_variants(_write_original(tmp_path / "first"))
    for path in (tmp_path / "store").rglob("*_2.jpg"):
        path.unlink()
    for path in (tmp_path / "store").rglob("*_3.jpg"):
        path.unlink()
        path.write_bytes(b"half")
    assert store.add_variants(_write_original(tmp_path / "second")) == first
    assert len(_files(tmp_path / "second")) == 8


def test_a_copy_whose_name_an_original_has_gets_another(tmp_path: Path) -> None:
    taken = _write_original(tmp_path, "belt_1.jpg", seed=3)
    before = taken.image.read_bytes(), taken.label.read_bytes()
    original = _write_original(tmp_path, "belt.jpg")
    variants = VariantStore(tmp_path / "store", AugmentationSettings(copies=2)).add_variants(original)
    names = [item.name for item in variants if isinstance(item, Variant)]
    assert names == [f"belt_{original.image_digest[7:19]}_1.jpg", "belt_2.jpg"]
    assert (taken.image.read_bytes(), taken.label.read_bytes()) == before
    assert len(list(original.image.parent.iterdir())) == 4


def test_a_copy_that_fails_is_told_of_and_the_others_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, calls = cv2.imencode, iter(range(9))

    def fail_once(*arguments: Any) -> Any:
        if next(calls) == 1:
            raise cv2.error("no room for this picture")
        return encode(*arguments)

    original = _write_original(tmp_path)
    monkeypatch.setattr(cv2, "imencode", fail_once)
    store = VariantStore(tmp_path / "store", AugmentationSettings(copies=3))
    first, failed, third = store.add_variants(original)
    assert isinstance(first, Variant)
    assert isinstance(third, Variant)
    assert failed == FailedVariant("belt_7.jpg", 2, "error: no room for this picture")
    assert original.image.is_file()
    assert not original.image.with_name("belt_7_2.jpg").exists()


def test_an_original_that_opencv_cannot_read_is_kept(tmp_path: Path) -> None:
    original = _write_original(tmp_path)
    original.image.write_bytes(b"GIF89a is what Pillow reads and OpenCV may not")
    variants = VariantStore(tmp_path / "store", AugmentationSettings(copies=2)).add_variants(original)
    assert [item.reason for item in variants if isinstance(item, FailedVariant)] == [
        "ValueError: OpenCV can't decode the image"
    ] * 2
    assert original.image.is_file()
    assert original.label.is_file()


def test_what_no_dataset_has_is_removed_from_the_store(tmp_path: Path) -> None:
    store = VariantStore(tmp_path / "store", AugmentationSettings(copies=2))
    for name, seed in (("first", 1), ("second", 2)):
        store.add_variants(_write_original(tmp_path / name, seed=seed))
    for path in (tmp_path / "first/images/train").iterdir():
        path.unlink()
    for path in (tmp_path / "first/labels/train").iterdir():
        path.unlink()
    prune(tmp_path / "store")
    left = _files(tmp_path / "store")
    assert len(left) == 5  # two images, two labels and their record
    assert {content for name, content in left.items() if not name.endswith(".json")} <= set(
        _files(tmp_path / "second").values()
    )


def test_where_there_are_no_hard_links_copies_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    _write_original(tmp_path, "belt_1.jpg", seed=3)
    original = _write_original(tmp_path, "belt.jpg")
    variants = VariantStore(tmp_path / "store", AugmentationSettings(copies=2)).add_variants(original)
    for variant in variants:
        assert isinstance(variant, Variant)
        assert digest_bytes(original.image.with_name(variant.name).read_bytes()) == variant.image
    prune(tmp_path / "store")
    assert _files(tmp_path / "store") == {}
