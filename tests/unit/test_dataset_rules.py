"""What a label and an image must be like to come into a dataset."""

from __future__ import annotations

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from trainwright_trainer.annotations.images import check_image
from trainwright_trainer.annotations.items import UnfitError, media_of
from trainwright_trainer.annotations.labels import check_label

CLASS_IDS = frozenset({0, 1, 21})


def encode(size: tuple[int, int] = (32, 24), kind: str = "JPEG") -> bytes:
    file = BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(file, format=kind)
    return file.getvalue()


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0 0.5 0.5 0.2 0.2\n", "0 0.5 0.5 0.2 0.2\n"),
        (
            "\ufeff1 0.5  0.5\t0.2 0.2\r\n\r\n21 0 1 1 1",
            "1 0.5 0.5 0.2 0.2\n21 0.250000 0.750000 0.500000 0.500000\n",
        ),
        ("", ""),
        ("\n \n", ""),
    ],
)
def test_a_good_label_is_kept_and_an_empty_one_is_a_background(text: str, canonical: str) -> None:
    assert check_label(text, CLASS_IDS).text == canonical


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 0.5 0.5 0.2", "4 columns, not 5"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3", "7 columns, not 5 (is it a polygon?)"),
        ("0 0.5 half 0.2 0.2", "a coordinate is not a number"),
        ("0 nan 0.5 0.2 0.2", "a coordinate is not finite"),
        ("0 0.5 0.5 inf 0.2", "a coordinate is not finite"),
        ("0 1.01 0.5 0.2 0.2", "a coordinate is outside 0..1"),
        ("0 0.5 -0.1 0.2 0.2", "a coordinate is outside 0..1"),
        ("0 0.5 0.5 0 0.2", "the box has no area"),
        ("2 0.5 0.5 0.2 0.2", "class id 2 is not in the class map"),
        ("-1 0.5 0.5 0.2 0.2", "class id '-1' is not a whole number"),
        ("1.5 0.5 0.5 0.2 0.2", "class id '1.5' is not a whole number"),
        ("circle 0.5 0.5 0.2 0.2", "class id 'circle' is not a whole number"),
    ],
)
def test_a_bad_line_is_refused_with_its_number_and_reason(line: str, reason: str) -> None:
    with pytest.raises(UnfitError) as refused:
        check_label(f"0 0.5 0.5 0.2 0.2\n{line}\n", CLASS_IDS)
    assert str(refused.value) == f"line 2: {reason}"


def test_all_that_is_wrong_is_told_at_once_but_bounded() -> None:
    with pytest.raises(UnfitError, match=r"line 1: .*; line 1: .*; line 2: .* \(and 8 more\)"):
        check_label("9 0.5 0.5 0 2\n" + "0 1 1\n" * 9, CLASS_IDS)


@given(st.text(max_size=200))
def test_any_text_is_either_refused_or_valid(text: str) -> None:
    try:
        canonical = check_label(text, CLASS_IDS).text
    except UnfitError:
        return
    assert check_label(canonical, CLASS_IDS).text == canonical


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP"])
def test_a_whole_image_is_kept_byte_for_byte(kind: str) -> None:
    data = encode(kind=kind)
    assert check_image(data).data == data


def test_bytes_after_the_end_of_a_jpeg_are_cut_off() -> None:
    data = encode()
    assert check_image(data + b"camera trailer").data == data


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "image is empty"),
        (b"not an image", "can't be decoded"),
        (encode()[:200], "can't be decoded"),
        (encode(kind="PNG")[:-40], "can't be decoded"),
        (encode((32, 9)), "32 x 9 pixels"),
    ],
)
def test_an_unreadable_image_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(UnfitError, match=reason):
        check_image(data)


@pytest.mark.parametrize("replaced", ["PIL.Image.open", "trainwright_trainer.annotations.images.open_image"])
def test_an_unreadable_image_is_refused_also_when_ultralytics_has_replaced_pillows_open(
    monkeypatch: pytest.MonkeyPatch, replaced: str
) -> None:
    def look_for_a_package(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'pi_heif'")

    monkeypatch.setattr(replaced, look_for_a_package)
    with pytest.raises(UnfitError, match="can't be decoded"):
        check_image(b"not an image")


@pytest.mark.parametrize(
    ("name", "media"),
    [
        ("line3_000120", "line3"),
        ("line3-frame-7", "line3"),
        ("line3_f00012", "line3"),
        ("line3", "line3"),
        ("2026-11-21_belt", "2026-11-21_belt"),
        ("_12", "_12"),
    ],
)
def test_the_medium_is_the_name_without_its_frame(name: str, media: str) -> None:
    assert media_of(name) == media
