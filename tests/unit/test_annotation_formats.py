"""The same boxes come out of every format, and what a format can hide in it is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from annotation_corpus import encode, picture, turned
from annotation_trees import Silent, folder_plan
from documents import ROOT, read_blocks

from trainwright.artifacts import Dataset
from trainwright.contract import LabelFormat, parse_class_map
from trainwright.errors import ConfigurationError, DataError, StepError
from trainwright_operator.api.dataset import Dataset as DatasetSection
from trainwright_trainer.annotations.images import check_image
from trainwright_trainer.annotations.items import Repair, Rule, Rules, UnfitError
from trainwright_trainer.annotations.oriented import read_oriented
from trainwright_trainer.annotations.pascal_voc import read_pascal_voc
from trainwright_trainer.places import Places
from trainwright_trainer.steps.dataset import build_dataset

CLASSES = ("bolt", "nut")
RULES = Rules(frozenset({0, 1}), {"bolt": 0, "nut": 1})
WIDTH, HEIGHT = 48, 32
PICTURE = check_image(encode(picture(), "PNG"))
BOXES = [(0, 12, 8, 24, 16), (1, 0, 0, 48, 32)]  # class, left, top, right, bottom
LABEL = "0 0.375000 0.375000 0.250000 0.250000\n1 0.500000 0.500000 1.000000 1.000000\n"


def voc(objects: str, size: str = f"<width>{WIDTH}</width><height>{HEIGHT}</height>") -> bytes:
    return f"<annotation><size>{size}<depth>3</depth></size>{objects}</annotation>".encode()


def voc_object(name: str, *corners: object) -> str:
    named = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=False)
    tags = "".join(f"<{tag}>{corner}</{tag}>" for tag, corner in named)
    return f"<object><name>{name}</name><bndbox>{tags}</bndbox></object>"


VOC = voc("".join(voc_object(CLASSES[class_id], *corners) for class_id, *corners in BOXES))


def coco(images: list[Any], annotations: list[Any], **others: Any) -> dict[str, Any]:
    categories = [{"id": 7, "name": "nut"}, {"id": 3, "name": "bolt"}]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories, **others}


def coco_image(number: int, name: str, **fields: Any) -> dict[str, Any]:
    return {"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT, **fields}


def coco_box(number: int, image: int, category: int, bbox: Any, **fields: Any) -> dict[str, Any]:
    outline = [[1.5] * 200]
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "segmentation": outline,
        "bbox": bbox,
        **fields,
    }


def write_images(folder: Path, count: int = 6) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for index in range(count):
        shade = picture().rotate(0, translate=(index, index))
        (folder / f"scene{index}.png").write_bytes(encode(shade, "PNG"))
        names.append(f"scene{index}")
    return names


def build(tmp_path: Path, **dataset: Any) -> Dataset:
    (tmp_path / "work").mkdir(exist_ok=True)
    settings = {"maxCorruptPercent": 100, "allowEmptyClasses": True, **dataset}
    split = {"nearDuplicates": "Apart"}
    return build_dataset(
        folder_plan(split=split, **settings), Places(tmp_path / "work", data=tmp_path / "source"), Silent()
    )


def labels(tmp_path: Path) -> dict[str, str]:
    return {path.stem: path.read_text() for path in (tmp_path / "work/dataset/labels").glob("*/*.txt")}


def quarantined(tmp_path: Path) -> dict[str, tuple[str, str]]:
    lines = (tmp_path / "work" / "dataset" / "quarantine.jsonl").read_text().splitlines()
    return {entry["name"]: (entry["rule"], entry["reason"]) for entry in map(json.loads, lines)}


def write_classes(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / "classes.json").write_text(json.dumps(CLASSES))


# --- Pascal VOC ---------------------------------------------------------------------------------------


def test_boxes_of_pascal_voc_are_those_of_a_yolo_label() -> None:
    assert read_pascal_voc(VOC, PICTURE, RULES).text == LABEL


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"", Rule.LABEL_FORMAT),
        (b"0 0.5 0.5 0.2 0.2", Rule.LABEL_FORMAT),
        (VOC[:-20], Rule.LABEL_FORMAT),
        (b"<html></html>", Rule.LABEL_FORMAT),
        (b'<?xml version="1.0" encoding="klingon"?><annotation/>', Rule.LABEL_FORMAT),
        (b'<!DOCTYPE a [<!ENTITY b "bolt">]><annotation><x>&b;</x></annotation>', Rule.LABEL_FORMAT),
        (
            b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>',
            Rule.LABEL_FORMAT,
        ),
        (voc("<object><name>bolt</name><polygon/></object>"), Rule.LABEL_FORMAT),
        (voc(voc_object("gear", 1, 1, 9, 9)), Rule.LABEL_CLASS),
        (voc(voc_object("", 1, 1, 9, 9)), Rule.LABEL_CLASS),
        (voc(voc_object("bolt", 1, 1, 9)), Rule.LABEL_NUMBER),
        (voc(voc_object("bolt", 1, 1, "nan", 9)), Rule.LABEL_NUMBER),
        (voc(voc_object("bolt", 9, 1, 9, 9)), Rule.LABEL_AREA),
        (voc(voc_object("bolt", 9, 9, 1, 1)), Rule.LABEL_AREA),
        (voc(voc_object("bolt", 60, 1, 90, 9)), Rule.LABEL_RANGE),
        (voc("", "<width>32</width><height>48</height>"), Rule.LABEL_OF_ANOTHER_SIZE),
        (b"<annotation>" + b"x" * 5_000_000, Rule.LABEL_TOO_LARGE),
    ],
)
def test_a_broken_xml_file_is_refused_by_its_rule(data: bytes, rule: Rule) -> None:
    with pytest.raises(UnfitError) as refused:
        read_pascal_voc(data, PICTURE, RULES)
    assert refused.value.rule == rule
    assert "root:" not in str(refused.value)


@pytest.mark.parametrize("size", ["", "<width>0</width><height>0</height>", "<width>?</width>"])
def test_a_size_that_says_nothing_does_not_matter(size: str) -> None:
    assert read_pascal_voc(voc(voc_object(" Bolt ", 12, 8, 24, 16), size), PICTURE, RULES).text == LABEL[:38]


def test_an_xml_file_without_an_object_is_a_background() -> None:
    assert read_pascal_voc(b"<annotation/>", PICTURE, RULES).text == ""


def test_a_box_over_the_border_is_cut() -> None:
    found = read_pascal_voc(voc(voc_object("nut", -2, 0, 49, 33)), PICTURE, RULES)
    assert found.text == LABEL[38:]
    assert found.repairs == (Repair.BOX_CLIPPED,)


def test_boxes_drawn_before_the_camera_turned_the_image_are_refused() -> None:
    upright = check_image(turned("JPEG", 6))
    with pytest.raises(UnfitError, match=r"for an image of 48 x 32 .* is 32 x 48 as viewers turn it"):
        read_pascal_voc(VOC, upright, RULES)


def test_a_tree_of_pascal_voc_is_known_by_its_files(tmp_path: Path) -> None:
    write_classes(tmp_path / "source")
    tree = tmp_path / "source" / "data"
    (tree / "Annotations").mkdir(parents=True)
    for name in write_images(tree / "JPEGImages"):
        (tree / "Annotations" / f"{name}.xml").write_bytes(VOC)
    assert sum(build(tmp_path).report.images.model_dump().values()) == 6
    assert set(labels(tmp_path).values()) == {LABEL}


# --- Oriented boxes -----------------------------------------------------------------------------------


def test_an_oriented_box_becomes_the_upright_one_around_it() -> None:
    diamond = b"0 0.5 0.2 0.7 0.5 0.5 0.8 0.3 0.5\n"
    assert read_oriented(diamond, PICTURE, RULES).text == "0 0.500000 0.500000 0.400000 0.600000\n"


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("0 0.5 0.5 0.2 0.2", Rule.LABEL_COLUMNS),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3", Rule.LABEL_COLUMNS),
        ("2 0.5 0.2 0.7 0.5 0.5 0.8 0.3 0.5", Rule.LABEL_CLASS),
        ("bolt 0.5 0.2 0.7 0.5 0.5 0.8 0.3 0.5", Rule.LABEL_CLASS),
        ("0 0.5 0.2 0.7 0.5 0.5 x 0.3 0.5", Rule.LABEL_NUMBER),
        ("0 0.5 0.2 0.5 0.5 0.5 0.8 0.5 0.5", Rule.LABEL_AREA),
        ("0 50 20 70 50 50 80 30 50", Rule.LABEL_RANGE),
    ],
)
def test_a_line_that_is_no_oriented_box_is_refused_by_its_rule(line: str, rule: Rule) -> None:
    with pytest.raises(UnfitError) as refused:
        read_oriented(line.encode(), PICTURE, RULES)
    assert refused.value.rule == rule


def test_oriented_boxes_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    write_classes(tmp_path / "source")
    tree = tmp_path / "source" / "data"
    (tree / "labels").mkdir(parents=True)
    for name in write_images(tree / "images"):
        (tree / "labels" / f"{name}.txt").write_text("1 0 0 1 0 1 1 0 1\n")
    build(tmp_path, format="YoloObb")
    assert set(labels(tmp_path).values()) == {LABEL[38:]}
    # Read as something else they are something else: what was read before does not count.
    assert "6 of 6" in str(refuse(tmp_path, format="Yolo", maxCorruptPercent=5))


# --- COCO ---------------------------------------------------------------------------------------------


def write_coco(tmp_path: Path, document: dict[str, Any] | str, name: str = "instances.json") -> None:
    folder = tmp_path / "source" / "data" / "annotations"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(document if isinstance(document, str) else json.dumps(document))


def two_boxes(image: int) -> list[dict[str, Any]]:
    return [
        coco_box(10 * image, image, 3, [12, 8, 12, 8]),
        coco_box(10 * image + 1, image, 7, [0, 0, 48, 32.0]),
    ]


def test_boxes_of_coco_are_those_of_a_yolo_label_and_categories_are_the_classes(tmp_path: Path) -> None:
    names = write_images(tmp_path / "source" / "data" / "images")
    images = [coco_image(index, f"{name}.png") for index, name in enumerate(names)]
    write_coco(tmp_path, coco(images, [box for index in range(6) for box in two_boxes(index)]))
    dataset = build(tmp_path)
    assert dataset.class_names == CLASSES
    assert labels(tmp_path) == dict.fromkeys(names, LABEL)


def test_a_class_map_says_which_id_a_category_gets(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "classes.json").write_text('["washer", "Nut", "Bolt"]')
    names = write_images(tmp_path / "source" / "data" / "images")
    images = [coco_image(index, f"{name}.png") for index, name in enumerate(names)]
    write_coco(tmp_path, coco(images, two_boxes(0)))
    build(tmp_path)
    assert [line[0] for line in labels(tmp_path)["scene0"].splitlines()] == ["2", "1"]
    assert labels(tmp_path)["scene1"] == ""  # listed, and nothing on it: a background


def test_what_is_wrong_with_a_coco_file_is_told_image_by_image(tmp_path: Path) -> None:
    images = tmp_path / "source" / "data" / "images"
    write_images(images, 14)
    write_images(images / "cam1", 1)
    (tmp_path / "secret.png").write_bytes(encode(picture(), "PNG"))
    listed = [coco_image(index, f"scene{index}.png") for index in range(12)]
    listed += [
        coco_image(20, "lost.png"),
        coco_image(21, "../../../secret.png"),
        coco_image(22, "scene12.png"),
        coco_image(23, "scene12.png"),
        coco_image(24, "cam1\\scene0.png"),
        coco_image(25, "bad\u0000.png"),
    ]
    listed[11] |= {"width": 32, "height": 48}
    boxes = [
        coco_box(1, 0, 99, [1, 1, 2, 2]),
        coco_box(2, 1, 3, [1, 1, 2]),
        coco_box(3, 2, 3, [1, 1, "2", 2]),
        coco_box(4, 3, 3, None),
        coco_box(5, 4, 3, [1, 1, 0, 2]),
        coco_box(6, 5, 3, [400, 1, 9, 2]),
        coco_box(7, 6, 3, [1, 1, 1e300, 2]),
        coco_box(8, 77, 3, [1, 1, 2, 2]),
        coco_box(9, 7, 3, [1, 1, True, 2]),
        coco_box(10, 8, 7, [0, 0, 48, 32], iscrowd=1),
        *two_boxes(8),
        coco_box(11, 9, 7, [[1], 1, 2, 2]),
        *two_boxes(24),
    ]
    write_classes(tmp_path / "source")
    write_coco(tmp_path, coco(listed, boxes))
    build(tmp_path)
    assert {name: rule for name, (rule, _) in quarantined(tmp_path).items()} == {
        "scene0": "LabelClass",
        "scene1": "LabelNumber",
        "scene2": "LabelNumber",
        "scene3": "LabelNumber",
        "scene4": "LabelArea",
        "scene5": "LabelRange",
        "scene6": "LabelRange",
        "scene7": "LabelNumber",
        "scene9": "LabelNumber",
        "scene11": "LabelOfAnotherSize",
        "scene12": "ImageAmbiguous",
        "scene13": "LabelMissing",
        "lost": "ImageMissing",
        "..-..-..-secret": "OutsideTheSource",
        "bad\u0000": "Name",
        "instances-image-77": "ImageMissing",
    }
    assert quarantined(tmp_path)["scene0"][1].startswith("annotation 1: its category_id")
    assert labels(tmp_path) == {"scene8": LABEL, "scene10": "", "cam1-scene0": LABEL}


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ("", "not JSON"),
        ('{"images": [', "not JSON"),
        ('{"images": [{"id": NaN}]}', "not JSON"),
        ('{"images": ' + "[" * 100_000, "nested too deeply"),
        ('{"images": [{"id": 1, "x": ' + "[" * 100_000, "nested too deeply"),
        (json.dumps({"images": [3]}), r"images\.0 is not an object"),
        (json.dumps({"images": [[3]]}), r"images\.0 is not an object"),
        (json.dumps({"images": [{"id": 3}]}), r"images\.0 has no file_name"),
        (json.dumps({"images": [{"file_name": "a.png"}]}), r"images\.0 has no id"),
        (json.dumps({"annotations": [{"bbox": [1, 1, 2, 2]}]}), r"annotations\.0 has no image_id"),
        (json.dumps({"categories": [{"id": 1}]}), r"categories\.0 has no name"),
        (json.dumps({"images": [], "categories": []}), "has no class map"),
    ],
    ids=lambda value: value[:30],
)
def test_a_file_that_is_no_coco_file_is_an_error_that_names_it(
    tmp_path: Path, document: str, problem: str
) -> None:
    write_images(tmp_path / "source" / "data" / "images")
    write_coco(tmp_path, document)
    if "class map" not in problem:
        write_classes(tmp_path / "source")
    with pytest.raises(DataError, match=problem) as refused:
        build(tmp_path)
    assert "instances.json" in str(refused.value)


# --- which format -------------------------------------------------------------------------------------


def refuse(tmp_path: Path, **dataset: Any) -> StepError:
    with pytest.raises(StepError) as refused:
        build(tmp_path, **dataset)
    return refused.value


def test_labels_of_two_formats_are_not_guessed_between(tmp_path: Path) -> None:
    write_classes(tmp_path / "source")
    tree = tmp_path / "source" / "data"
    (tree / "labels").mkdir(parents=True)
    for name in write_images(tree / "images"):
        (tree / "labels" / f"{name}.xml").write_bytes(VOC)
    (tree / "labels" / "classes.txt").write_text("bolt\nnut\n")  # as annotation tools leave it
    assert sum(build(tmp_path).report.images.model_dump().values()) == 6
    (tree / "labels" / "scene0.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    found = refuse(tmp_path)
    assert isinstance(found, ConfigurationError)
    assert "Yolo, PascalVoc" in str(found)
    build(tmp_path, format="PascalVoc")
    assert set(labels(tmp_path).values()) == {LABEL}


def test_coco_without_a_file_says_where_it_belongs(tmp_path: Path) -> None:
    write_images(tmp_path / "source" / "data" / "images")
    assert "no COCO file found in data/annotations" in str(refuse(tmp_path, format="Coco"))


def test_images_without_a_label_are_backgrounds_when_that_is_said(tmp_path: Path) -> None:
    write_classes(tmp_path / "source")
    write_images(tmp_path / "source" / "data" / "images")
    (tmp_path / "source" / "data" / "labels").mkdir()
    (tmp_path / "source" / "data" / "labels" / "scene0.txt").write_text(LABEL)
    build(tmp_path, allowMissingLabels=True)
    assert labels(tmp_path) == {"scene0": LABEL, **{f"scene{index}": "" for index in range(1, 6)}}


# --- the document about it ----------------------------------------------------------------------------

DOCUMENT = (ROOT / "docs" / "datasets.md").read_text()


def test_the_document_explains_every_rule_repair_and_format() -> None:
    tables = DOCUMENT.partition("## What changed since the parent's")[0]
    rows = re.findall(r"^\| `(\w+)` \|", tables, re.MULTILINE)
    formats = {kind for kind in get_args(LabelFormat) if kind != "Auto"}
    assert sorted(rows) == sorted([*Rule, *Repair, *formats])


def test_the_documents_class_maps_and_settings_are_taken() -> None:
    blocks = read_blocks("json", documents=[ROOT / "docs" / "datasets.md"])
    maps = [parse_class_map(block.text) for block in blocks]
    assert [found.names[:2] for found in maps] == [CLASSES] * 3
    (settings,) = read_blocks("yaml", documents=[ROOT / "docs" / "datasets.md"])
    section = DatasetSection.model_validate(yaml.safe_load(settings.text)["dataset"])
    assert section.classes is not None
    assert section.classes.slots == len(maps[2].names) == 80
