"""Our dataset against its parent's: what is counted, and how far the classes drifted."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainwright.contract import ClassMap
from trainwright.errors import DataError
from trainwright_trainer.annotations.drift import BoxChanges, DatasetDiff, ImageChanges, diff_manifests
from trainwright_trainer.annotations.manifest import ManifestImage, Variant, write_manifest
from trainwright_trainer.files import digest_bytes

CLASSES = ("bolt", "nut", "washer")


def image(name: str, *, pixels: str = "", label: str = "", **fields: Any) -> ManifestImage:
    known: dict[str, Any] = {
        "split": "train",
        "media": name,
        "image_size": 10,
        "width": 32,
        "height": 32,
        "label_size": 10,
        "boxes": {0: 1},
    }
    return ManifestImage(
        name=name,
        image=digest_bytes(f"{name}{pixels}".encode()),
        label=digest_bytes(f"{name}{label}".encode()),
        **(known | fields),
    )


def diff(
    folder: Path,
    ours: list[ManifestImage],
    parents: list[ManifestImage],
    classes: tuple[str, ...] = CLASSES,
    parent_classes: tuple[str, ...] = CLASSES,
) -> DatasetDiff:
    write_manifest(folder / "ours", ClassMap.of_names(classes), ours)
    write_manifest(folder / "parents", ClassMap.of_names(parent_classes), parents)
    return diff_manifests(folder / "ours", folder / "parents")


def test_the_same_dataset_has_no_difference(tmp_path: Path) -> None:
    images = [image("a.png"), image("b.png", boxes={1: 2})]
    found = diff(tmp_path, images, images)
    assert found.parent == found.ours
    assert found.images == ImageChanges(kept=2)
    assert found.boxes == BoxChanges(parent=3, ours=3)
    assert (found.drift, found.classes_added, found.classes_removed) == (0, (), ())


def test_every_way_an_image_may_change_is_counted(tmp_path: Path) -> None:
    parents = [
        image("gone.png", boxes={0: 4}),
        image("moved.png", split="valid"),
        image("redrawn.png"),
        image("relabelled.png", boxes={0: 2, 1: 1}),
        image("same.png"),
        image("seen.png"),
    ]
    ours = [
        image("moved.png", split="train"),
        image("new.png", boxes={1: 1}),
        image("redrawn.png", pixels="other"),
        image("relabelled.png", label="other", boxes={0: 1, 2: 3}),
        image("same.png"),
        image("seen.png", split="test"),
    ]
    found = diff(tmp_path, ours, parents)
    assert found.images == ImageChanges(
        added=1, removed=1, kept=5, replaced=1, relabelled=1, moved=2, seen_by_parent=1
    )
    assert found.boxes == BoxChanges(parent=11, ours=9, added=1 + 3, removed=4 + 2)


def test_classes_are_compared_by_name_whatever_their_ids(tmp_path: Path) -> None:
    found = diff(
        tmp_path,
        [image("a.png", boxes={0: 2, 1: 6})],
        [image("a.png", boxes={1: 2, 0: 6})],
        classes=("nut", "bolt", "gear"),
        parent_classes=("bolt", "nut", "washer"),
    )
    assert found.drift == 0
    assert (found.classes_added, found.classes_removed) == (("gear",), ("washer",))
    assert found.boxes == BoxChanges(parent=8, ours=8)


def test_altered_copies_are_no_annotations(tmp_path: Path) -> None:
    copy = Variant(
        name="a_1.png", image=digest_bytes(b"1"), image_size=1, label=digest_bytes(b"2"), boxes={1: 9}
    )
    found = diff(tmp_path, [image("a.png", variants=(copy,))], [image("a.png")])
    assert found.ours != found.parent
    assert (found.images, found.drift) == (ImageChanges(kept=1), 0)


def test_drift_is_the_divergence_of_the_shares_with_the_greatest_change_first(tmp_path: Path) -> None:
    found = diff(tmp_path, [image("a.png", boxes={0: 5, 1: 5})], [image("a.png", boxes={0: 90, 1: 9, 2: 1})])
    # By hand, with the parts in the middle .7, .295, .005:
    expected = 0.5 * (
        0.5 * math.log2(0.5 / 0.7)
        + 0.5 * math.log2(0.5 / 0.295)
        + 0.9 * math.log2(0.9 / 0.7)
        + 0.09 * math.log2(0.09 / 0.295)
        + 0.01 * math.log2(0.01 / 0.005)
    )
    assert found.drift == pytest.approx(expected)
    assert [share.name for share in found.shares] == ["nut", "bolt", "washer"]
    assert (found.shares[0].parent_share, found.shares[0].share) == (0.09, 0.5)


def test_no_class_in_common_is_a_drift_of_one(tmp_path: Path) -> None:
    assert diff(tmp_path, [image("a.png", boxes={0: 7})], [image("a.png", boxes={2: 1})]).drift == 1
    assert diff(tmp_path, [image("a.png", boxes={})], [image("a.png", boxes={2: 1})]).drift == 1
    assert diff(tmp_path, [image("a.png", boxes={})], [image("b.png", boxes={})]).drift == 0


HISTOGRAM = st.dictionaries(st.integers(0, 2), st.integers(1, 10**6), max_size=3)


@given(ours=HISTOGRAM, parents=HISTOGRAM)
def test_drift_is_between_none_and_one_and_the_same_either_way(
    tmp_path_factory: pytest.TempPathFactory, ours: dict[int, int], parents: dict[int, int]
) -> None:
    folder = tmp_path_factory.mktemp("drift")
    there = diff(folder, [image("a", boxes=ours)], [image("a", boxes=parents)]).drift
    back = diff(folder, [image("a", boxes=parents)], [image("a", boxes=ours)]).drift
    assert 0 <= there <= 1
    assert there == pytest.approx(back)


NAMES = st.sets(st.text("ab_.0", min_size=1, max_size=3), max_size=12)


@given(ours=NAMES, parents=NAMES)
def test_every_name_is_counted_once(
    tmp_path_factory: pytest.TempPathFactory, ours: set[str], parents: set[str]
) -> None:
    folder = tmp_path_factory.mktemp("names")
    found = diff(folder, [image(name) for name in sorted(ours)], [image(name) for name in sorted(parents)])
    counted = (found.images.added, found.images.removed, found.images.kept)
    assert counted == (len(ours - parents), len(parents - ours), len(ours & parents))


def test_a_manifest_out_of_order_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not in the order of names: 'a' follows 'b'"):
        diff(tmp_path, [image("b"), image("a")], [image("a")])


def test_memory_does_not_grow_with_the_manifests(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        write_manifest(
            tmp_path / "ours", ClassMap.of_names(CLASSES), (image(f"{index:06}") for index in range(count))
        )
        write_manifest(
            tmp_path / "parents",
            ClassMap.of_names(CLASSES),
            (image(f"{index:06}") for index in range(0, count, 2)),
        )
        tracemalloc.start()
        diff_manifests(tmp_path / "ours", tmp_path / "parents")
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    peak(10)
    # An image takes a kilobyte; pydantic keeps the short strings it saw last, up to a number.
    assert (peak(4000) - peak(1000)) / 3000 < 100
