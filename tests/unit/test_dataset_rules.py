"""What a label and an image must be like to come into a dataset."""

from __future__ import annotations

import pickle
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from trainwright_trainer.annotations.images import check_image
from trainwright_trainer.annotations.items import Rule, UnfitError, media_of
from trainwright_trainer.annotations.labels import Box, check_boxes, check_label

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


def edges(line: str) -> list[float]:
    x, y, width, height = map(float, line.split()[1:])
    return [x - width / 2, x + width / 2, y - height / 2, y + height / 2]


shares = st.floats(0, 1)
sizes = st.floats(0.001, 1)
boxes = st.tuples(st.sampled_from(sorted(CLASS_IDS)), shares, shares, sizes, sizes)


@given(st.lists(boxes, max_size=8))
def test_boxes_whose_centre_is_inside_become_what_is_seen_of_them(
    given: list[tuple[float, ...]],
) -> None:
    text = "".join(" ".join(map(str, box)) + "\n" for box in given)
    lines = check_label(text, CLASS_IDS).text.splitlines()
    assert len(lines) <= len(set(given))  # two may look alike once they are cut
    assert {int(line.split()[0]) for line in lines} == {box[0] for box in given}
    assert all(-0.0011 <= edge <= 1.0011 for line in lines for edge in edges(line))


@given(st.lists(boxes, min_size=1, max_size=4), st.sampled_from(["x", "nan", "2", "-1", "1.1"]), st.data())
def test_a_label_with_one_wrong_number_is_refused_whatever_else_is_in_it(
    given: list[tuple[float, ...]], wrong: str, data: st.DataObject
) -> None:
    rows = [[str(number) for number in box] for box in given]
    row = data.draw(st.integers(0, len(rows) - 1))
    column = data.draw(st.integers(0, 4))
    rows[row][column] = wrong
    with pytest.raises(UnfitError, match=f"^line {row + 1}: "):
        check_label("\n".join(map(" ".join, rows)), CLASS_IDS)


@given(st.integers(10, 5000), st.integers(10, 5000), st.data())
def test_a_box_in_pixels_comes_back_from_its_label(width: int, height: int, data: st.DataObject) -> None:
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    right, bottom = data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height))
    box = Box.between(0, (left, top, right, bottom), (width, height))
    found = edges(check_boxes([("box 1", box)], CLASS_IDS).text)
    corners = [found[0] * width, found[1] * width, found[2] * height, found[3] * height]
    assert corners == pytest.approx([left, right, top, bottom], abs=0.01)


def test_a_reason_survives_the_way_between_processes() -> None:
    sent = pickle.dumps(UnfitError(Rule.LABEL_AREA, "the box has no area"))
    error = pickle.loads(sent)  # noqa: S301
    assert (error.rule, str(error)) == (Rule.LABEL_AREA, "the box has no area")


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
