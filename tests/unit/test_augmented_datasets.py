"""Datasets with altered copies: of training images only, the same again, made once, and never at a loss."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cv2
import pytest
from annotation_trees import Silent, digest_tree, folder_plan, write_tree

from trainwright.artifacts import Dataset
from trainwright.contract import AugmentationSettings
from trainwright_trainer.annotations.ledger import Placed
from trainwright_trainer.annotations.manifest import read_images
from trainwright_trainer.annotations.readings import ObjectStore
from trainwright_trainer.augmentation import making
from trainwright_trainer.augmentation.copies import FailedCopy, open_copies
from trainwright_trainer.augmentation.making import CopyTask, Original
from trainwright_trainer.files import digest_file
from trainwright_trainer.places import Places
from trainwright_trainer.steps.dataset import build_dataset, dataset_is_whole


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("source"), 20)


def build(source: Path, workspace: Path, **augmentation: Any) -> Dataset:
    plan = folder_plan(augmentation=augmentation)
    return build_dataset(plan, Places(workspace, data=source), Silent())


def summary_of(dataset: Dataset, workspace: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((workspace / dataset.summary).read_text())
    return found


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each image that is decoded to be altered; few are altered in this process."""
    calls: list[int] = []
    decode = cv2.imdecode

    def count(*arguments: Any) -> Any:
        calls.append(1)
        return decode(*arguments)

    monkeypatch.setattr(cv2, "imdecode", count)
    return calls


def test_only_training_images_have_copies_and_they_lie_beside_them(source: Path, tmp_path: Path) -> None:
    dataset = build(source, tmp_path, copies=3)
    plain = build(source, tmp_path / "plain")
    assert dataset.report.images == plain.report.images
    assert dataset.report.copies == 3 * dataset.report.images.train
    assert dataset.report.digest != plain.report.digest
    for image in read_images(tmp_path / dataset.manifest):
        stem = Path(image.name).stem
        wanted = [f"{stem}_{number}.png" for number in (1, 2, 3)] if image.split == "train" else []
        assert [variant.name for variant in image.variants] == wanted
        for variant in image.variants:
            file = tmp_path / "dataset/images/train" / variant.name
            label = tmp_path / "dataset/labels/train" / Path(variant.name).with_suffix(".txt")
            assert digest_file(file) == variant.image != image.image
            assert digest_file(label) == variant.label
            assert sum(variant.boxes.values()) == len(label.read_text().splitlines())
    for split in ("valid", "test"):
        for kind in ("images", "labels"):
            folder = f"dataset/{kind}/{split}"
            assert digest_tree(tmp_path / folder) == digest_tree(tmp_path / "plain" / folder)
    assert summary_of(dataset, tmp_path)["augmentation"] == {"copies": dataset.report.copies, "failed": 0}


def test_the_same_again_anywhere_and_in_processes_beside_each_other(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    here = build(source, tmp_path / "here", copies=2)
    monkeypatch.setattr("trainwright_trainer.augmentation.copies._WORTH_PROCESSES", 1)
    there = build(source, tmp_path / "there", copies=2)
    assert here.report == there.report
    for kind in ("images", "labels"):
        ours = digest_tree(tmp_path / "here/dataset" / kind)
        assert ours == digest_tree(tmp_path / "there/dataset" / kind)
    assert capfd.readouterr() == ("", "")  # processes have nothing to say of themselves


def test_other_copies_come_of_another_seed_or_other_transforms(source: Path, tmp_path: Path) -> None:
    settings: list[dict[str, Any]] = [{}, {"seed": 1}, {"transforms": [{"flip": {"probability": 1}}]}]
    digests = {
        build(source, tmp_path / str(index), copies=1, **each).report.digest
        for index, each in enumerate(settings)
    }
    assert len(digests) == 3


def test_copies_that_are_there_are_not_made_again(source: Path, tmp_path: Path, decodes: list[int]) -> None:
    def trained_on(dataset: Dataset) -> set[str]:
        return {image.image for image in read_images(tmp_path / dataset.manifest) if image.split == "train"}

    known = trained_on(build(source, tmp_path, copies=2))
    images = len(known)
    assert len(decodes) == images
    decodes.clear()
    more = build(write_tree(tmp_path / "more", 22), tmp_path, copies=2)
    assert len(decodes) == len(trained_on(more) - known) <= 4
    decodes.clear()
    again = build(source, tmp_path, copies=3)
    assert len(decodes) == images  # the third ones
    assert again.report.copies == 3 * images
    decodes.clear()
    assert build(source, tmp_path, copies=1).report.copies == images
    assert decodes == []


def test_what_no_dataset_has_any_more_is_removed_from_the_cache(source: Path, tmp_path: Path) -> None:
    build(source, tmp_path, copies=4)
    build(source, tmp_path, copies=0)
    kept = [path for path in (tmp_path / "dataset-cache/objects").rglob("*") if path.is_file()]
    assert len(kept) == 20


def test_a_build_that_is_stopped_goes_on_from_the_copies_it_has(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decodes: list[int]
) -> None:
    class StoppedError(Exception):
        pass

    class Stopping(Silent):
        def advance(self, fraction: float) -> None:
            if len(decodes) == 5:
                raise StoppedError

    monkeypatch.setattr("trainwright_trainer.augmentation.copies._ANSWERS_IN_A_COMMIT", 1)
    monkeypatch.setattr("trainwright_trainer.annotations.gathering._SECONDS_BETWEEN_STEPS", 0)
    plan = folder_plan(augmentation={"copies": 2})
    with pytest.raises(StoppedError):
        build_dataset(plan, Places(tmp_path, data=source), Stopping())
    decodes.clear()
    dataset = build(source, tmp_path, copies=2)
    assert len(decodes) <= dataset.report.images.train - 4


def test_a_copy_that_fails_is_listed_and_loses_nothing_else(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, calls = cv2.imencode, iter(range(999))

    def fail_once(*arguments: Any) -> Any:
        if next(calls) == 3:
            raise cv2.error("no room for this picture")
        return encode(*arguments)

    monkeypatch.setattr(cv2, "imencode", fail_once)
    dataset = build(source, tmp_path, copies=3)
    images = dataset.report.images
    assert images.train + images.valid + images.test == 20
    assert dataset.report.copies == 3 * images.train - 1
    assert summary_of(dataset, tmp_path)["augmentation"]["failed"] == 1
    lines = (tmp_path / "dataset/augmentation-failures.jsonl").read_text().splitlines()
    (failed,) = map(json.loads, lines)
    assert failed["reason"] == "error: no room for this picture"
    (image,) = (image for image in read_images(tmp_path / dataset.manifest) if image.name == failed["name"])
    assert len(image.variants) == 2
    assert (tmp_path / "dataset/images/train" / image.name).is_file()


def test_a_full_volume_is_no_failed_copy(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    build(source, tmp_path)
    monkeypatch.setattr(ObjectStore, "keep", refuse)
    with pytest.raises(OSError, match="No space left"):
        build(source, tmp_path, copies=1)


class CrashingTask(CopyTask):
    """Ends its worker on one image, as a decoder may."""

    def carry_out(self, original: Original) -> dict[str, Any]:
        if original.name == "belt1_000.png":
            os._exit(139)
        return super().carry_out(original)


def test_an_image_on_which_a_decoder_crashes_loses_its_own_copies_only(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", f"{here}{os.pathsep}{here.parent}")
    monkeypatch.setattr("trainwright_trainer.augmentation.copies.CopyTask", CrashingTask)
    build(source, tmp_path)
    placed = [
        Placed(
            name=Path(image.name).stem,
            suffix=".png",
            media=image.media,
            split="train",
            image=image.image.removeprefix("sha256:"),
            image_size=image.image_size,
            width=image.width,
            height=image.height,
            label="0 0.5 0.5 0.2 0.2\n",
            boxes={0: 1},
        )
        for image in read_images(tmp_path / "dataset/manifest.jsonl")
    ]
    settings, store = AugmentationSettings(copies=2), ObjectStore(tmp_path / "dataset-cache/objects")
    with open_copies(tmp_path / "copies.sqlite", settings, store) as copies:
        failed = list(copies.make(lambda: placed, lambda *_: None, processes=2))
        made = sum(len(copies.named(item, lambda _: False)) for item in placed)
    assert failed == [
        FailedCopy("belt1_000.png", number, "altering it ended the process: exit status 139")
        for number in (1, 2)
    ]
    assert made == 2 * 19


def test_a_copy_never_takes_the_name_of_an_annotation(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "source", 12)
    data = source / "data"
    for index in range(12):
        for folder, suffix in (("images", "png"), ("labels", "txt")):
            path = data / folder / f"belt{index}_000.{suffix}"
            path.rename(path.with_stem("belt" if index == 0 else f"belt_{index}"))
    plan = folder_plan(augmentation={"copies": 12}, split={"groupBy": "image"})
    dataset = build_dataset(plan, Places(tmp_path, data=source), Silent())
    names = [path.stem for path in (tmp_path / "dataset/images/train").iterdir()]
    assert len(names) == len(set(names)) == 13 * dataset.report.images.train
    assert dataset_is_whole(dataset, tmp_path)


def test_a_dataset_without_one_of_its_copies_is_not_whole(source: Path, tmp_path: Path) -> None:
    dataset = build(source, tmp_path, copies=1)
    assert dataset_is_whole(dataset, tmp_path)
    next((tmp_path / "dataset/images/train").glob("*_1.png")).unlink()
    assert not dataset_is_whole(dataset, tmp_path)


def test_the_versions_that_made_a_copy_are_part_of_what_it_is_found_by(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decodes: list[int]
) -> None:
    build(source, tmp_path, copies=1)
    decodes.clear()
    monkeypatch.setattr(making, "_VERSIONS", (1, "5.0", "3.0"))
    (tmp_path / "dataset/origin.json").unlink()
    dataset = build(source, tmp_path, copies=1)
    assert len(decodes) == dataset.report.images.train


def test_a_dataset_tells_what_changed_since_its_parents(source: Path, tmp_path: Path) -> None:
    parent = build(source, tmp_path / "parent")
    grown = write_tree(tmp_path / "grown", 24)
    (grown / "data/images/belt3_000.png").unlink()
    (grown / "data/labels/belt3_000.txt").unlink()
    dataset = build_dataset(
        folder_plan(augmentation={"copies": 1}),
        Places(tmp_path, data=grown),
        Silent(),
        earlier=tmp_path / "parent" / parent.manifest,
    )
    found = summary_of(dataset, tmp_path)["parent"]
    assert found["parent"] == parent.report.digest
    assert {key: count for key, count in found["images"].items() if count} == {
        "added": 4,
        "removed": 1,
        "kept": 19,
    }
    assert 0 < found["drift"] < 0.1
    whole = json.loads((tmp_path / "dataset/parent-difference.json").read_text())
    assert whole["ours"] == dataset.report.digest
    assert len(whole["shares"]) == 3
