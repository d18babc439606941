"""A dataset is a checked copy of its source, the same wherever it is built."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from annotation_trees import Silent, digest_tree, folder_plan, plan_of, write_tree

from trainwright.artifacts import Dataset
from trainwright.contract import RunPlan
from trainwright.errors import ConfigurationError, DataError
from trainwright_trainer.annotations.listing import scan_folder
from trainwright_trainer.annotations.opening import open_folder
from trainwright_trainer.annotations.sample import draw_sample
from trainwright_trainer.pipeline import execute
from trainwright_trainer.places import Places
from trainwright_trainer.steps.dataset import build_dataset, dataset_is_whole


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "source")


def build(plan: RunPlan, workspace: Path, source: Path | None = None) -> Dataset:
    workspace.mkdir(exist_ok=True)
    return build_dataset(plan, Places(workspace, data=source), Silent())


def quarantined(workspace: Path) -> dict[str, str]:
    lines = (workspace / "dataset" / "quarantine.jsonl").read_text().splitlines()
    return {entry["name"]: entry["reason"] for entry in map(json.loads, lines)}


def test_images_and_labels_lie_side_by_side_in_their_splits(tmp_path: Path, source: Path) -> None:
    dataset = build(folder_plan(), tmp_path / "work", source)
    counts = dataset.report.images
    assert counts.train + counts.valid + counts.test == 12
    assert counts.train > counts.valid >= counts.test >= 1
    folder = tmp_path / "work" / "dataset"
    assert sorted(path.stem for path in folder.glob("images/*/*")) == sorted(
        path.stem for path in folder.glob("labels/*/*")
    )
    assert json.loads((folder / "data.yaml").read_text())["names"]["1"] == "square"
    assert dataset.class_names == ("circle", "square", "triangle")
    assert dataset_is_whole(dataset, tmp_path / "work")


def test_the_same_content_elsewhere_gives_the_same_digest(tmp_path: Path, source: Path) -> None:
    shutil.copytree(source, tmp_path / "copy")
    first = build(folder_plan(), tmp_path / "one", source)
    assert build(folder_plan(), tmp_path / "two", tmp_path / "copy").report == first.report
    label = next((tmp_path / "copy" / "data" / "labels").iterdir())
    label.write_text("0 0.5 0.5 0.25 0.25\n")
    assert build(folder_plan(), tmp_path / "three", tmp_path / "copy").report.digest != first.report.digest


def test_what_is_moved_between_listing_and_reading_is_found_where_it_is_then(
    tmp_path: Path, source: Path
) -> None:
    class Mover(Silent):
        """Validates an annotation, and deletes another, when all are listed and none is read."""

        moved = False

        def advance(self, fraction: float) -> None:
            if not self.moved:
                self.moved = True
                for name, target in (("belt0_000", "data"), ("belt1_000", "data_deleted")):
                    for kind in ("images", "labels"):
                        (source / target / kind).mkdir(parents=True, exist_ok=True)
                        (path,) = (source / "data-seed" / kind).glob(f"{name}.*")
                        path.rename(source / target / kind / path.name)

    (source / "data").rename(source / "data-seed")
    work = tmp_path / "work"
    work.mkdir()
    plan = folder_plan(includeSeed=True, maxCorruptPercent=0)
    dataset = build_dataset(plan, Places(work, data=source), Mover())
    assert dataset.report.quarantined == 0
    assert sum(dataset.report.images.model_dump().values()) == 11


def test_what_is_validated_between_the_listings_of_two_trees_is_seen(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "data").rename(source / "data-seed")
    for kind in ("images", "labels"):
        (source / "data" / kind).mkdir(parents=True)
    scanned: list[str] = []

    def scan(folder: Path) -> Iterator[tuple[str, str]]:
        if scanned and scanned[-1] != folder.parent.name:
            for path in (source / "data-seed").rglob("belt0_000.*"):
                path.rename(source / "data" / path.relative_to(source / "data-seed"))
        scanned.append(folder.parent.name)
        yield from scan_folder(folder)

    settings = folder_plan(includeSeed=True).dataset
    opened = open_folder(source, settings)
    monkeypatch.setattr("trainwright_trainer.annotations.folder.scan_folder", scan)
    found = {candidate.name: candidate for candidate in opened.candidates(tmp_path)}
    assert len(found) == 12
    assert str(found["belt0_000"].images[0]).startswith("data/")


def test_unfit_annotations_are_listed_with_reasons_and_the_source_is_untouched(
    tmp_path: Path, source: Path
) -> None:
    images, labels = source / "data" / "images", source / "data" / "labels"
    (images / "belt0_000.png").write_bytes(b"")
    (images / "belt1_000.png").write_bytes((images / "belt1_000.png").read_bytes()[:-30])
    (labels / "belt2_000.txt").write_text("7 0.5 0.5 0.2 0.2\n")
    (labels / "belt3_000.txt").unlink()
    (images / "belt4_000.png").unlink()
    shutil.copy(images / "belt5_000.png", images / "belt5_000.jpg")
    (tmp_path / "secret").write_text("word")
    (labels / "belt6_000.txt").unlink()
    (labels / "belt6_000.txt").symlink_to(tmp_path / "secret")
    before = digest_tree(source)
    dataset = build(folder_plan(maxCorruptPercent=60), tmp_path / "work", source)
    assert quarantined(tmp_path / "work") == {
        "belt0_000": "image is empty",
        "belt1_000": "image can't be decoded: truncated or damaged",
        "belt2_000": "line 1: class id 7 is not in the class map",
        "belt3_000": "label is missing",
        "belt4_000": "image is missing",
        "belt5_000": "several images share the name: belt5_000.jpg, belt5_000.png",
        "belt6_000": "belt6_000.txt is a link out of the source",
    }
    assert dataset.report.quarantined == 7
    assert digest_tree(source) == before


def test_too_many_unfit_annotations_are_an_error_with_counts_and_reasons(
    tmp_path: Path, source: Path
) -> None:
    (source / "data" / "labels" / "belt3_000.txt").write_text("0 2 2 2 2\n")
    with pytest.raises(
        DataError, match=r"1 of 12 .* \(8\.3 %, at most 5 % .*belt3_000: line 1: a coord"
    ) as no:
        build(folder_plan(), tmp_path / "work", source)
    assert "maxCorruptPercent" in no.value.hint
    assert not (tmp_path / "work" / "dataset").exists()


@pytest.mark.parametrize("leave", ["nothing", "labels"])
def test_a_folder_without_images_is_an_error(tmp_path: Path, source: Path, leave: str) -> None:
    shutil.rmtree(source / "data" / "images")
    if leave == "nothing":
        shutil.rmtree(source / "data" / "labels")
    with pytest.raises(DataError, match="no images found in data/images"):
        build(folder_plan(), tmp_path / "work", source)


def test_a_missing_or_escaping_path_is_an_error(tmp_path: Path, source: Path) -> None:
    with pytest.raises(DataError, match="'lost': there is no such folder"):
        build(folder_plan(source={"folder": {"path": "lost"}}), tmp_path / "work", source)
    with pytest.raises(ConfigurationError, match="leads out of the data folder"):
        build(folder_plan(source={"folder": {"path": "../"}}), tmp_path / "work", source)
    with pytest.raises(ConfigurationError, match="needs a data folder"):
        build(folder_plan(), tmp_path / "work")


def test_an_absolute_path_starts_at_the_data_folder(tmp_path: Path, source: Path) -> None:
    plan = folder_plan(source={"folder": {"path": f"/{source.name}"}})
    assert build(plan, tmp_path / "work", source.parent).report.images.train > 0


def test_unvalidated_annotations_come_in_only_when_asked_for(tmp_path: Path, source: Path) -> None:
    write_tree(source, 5, tree="data-seed", first=10)
    plain = build(folder_plan(), tmp_path / "plain", source)
    seeded = build(folder_plan(includeSeed=True), tmp_path / "seeded", source)
    assert sum(plain.report.images.model_dump().values()) == 12
    assert sum(seeded.report.images.model_dump().values()) == 15


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "is not in the source"),
        ("{", "not JSON or YAML"),
        ('[{"Id": -1, "Name": "x"}]', r"classes\.0\.id: .* \(it is -1\)"),
        ('[{"Id": 1, "Name": "x"}, {"Id": 1, "Name": "y"}]', "id 1 is both 'x' and 'y'"),
        ("[]", "names no class"),
    ],
)
def test_a_bad_class_map_is_an_error(tmp_path: Path, source: Path, content: str | None, problem: str) -> None:
    (source / "classes.json").unlink()
    if content is not None:
        (source / "classes.json").write_text(content)
    with pytest.raises(DataError, match=problem):
        build(folder_plan(), tmp_path / "work", source)


def test_class_names_follow_their_ids_and_gaps_keep_their_place(tmp_path: Path, source: Path) -> None:
    entries = [{"Id": 3, "Name": "nut"}, {"Id": 0, "Name": "bolt"}, {"Id": 1, "Name": "washer"}]
    (source / "classes.json").write_text(json.dumps(entries))
    plan = folder_plan(maxCorruptPercent=100, allowEmptyClasses=True)
    assert build(plan, tmp_path / "work", source).class_names == ("bolt", "washer", "unused-2", "nut")


def test_classes_of_the_plan_need_no_file(tmp_path: Path, source: Path) -> None:
    (source / "classes.json").unlink()
    plan = folder_plan(classes={"inline": ["bolt", "nut", "washer"]})
    assert build(plan, tmp_path / "work", source).class_names == ("bolt", "nut", "washer")


def test_a_label_cache_of_the_source_is_never_opened(tmp_path: Path, source: Path) -> None:
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (trap,))  # type: ignore[return-value]

    for place in ("labels.cache", "labels/labels.cache", "images/x.cache"):
        (source / "data" / place).write_bytes(pickle.dumps(Trap()))
    build(folder_plan(), tmp_path / "work", source)
    assert not trap.exists()
    assert not list((tmp_path / "work").rglob("*.cache"))


def test_a_dataset_that_lost_a_file_is_not_whole(tmp_path: Path, source: Path) -> None:
    dataset = build(folder_plan(), tmp_path / "work", source)
    next((tmp_path / "work" / "dataset" / "images" / "train").iterdir()).write_bytes(b"short")
    assert not dataset_is_whole(dataset, tmp_path / "work")


def test_a_dataset_whose_label_was_changed_is_not_whole(tmp_path: Path, source: Path) -> None:
    dataset = build(folder_plan(), tmp_path / "work", source)
    label = next((tmp_path / "work" / "dataset" / "labels" / "train").iterdir())
    label.write_bytes(label.read_bytes().replace(b" 0.", b" .0", 1))
    assert not dataset_is_whole(dataset, tmp_path / "work")


def test_a_dataset_whose_settings_were_changed_is_built_again(tmp_path: Path, source: Path) -> None:
    places = Places(tmp_path / "work", data=source)
    execute(folder_plan(), places)
    settings = tmp_path / "work" / "dataset" / "data.yaml"
    before = settings.read_bytes()
    settings.write_bytes(before.replace(b"images/valid", b"images/train"))
    execute(folder_plan(), places)
    assert settings.read_bytes() == before


def test_the_sample_source_is_the_same_for_the_same_seed_and_index() -> None:
    assert draw_sample(0, 5, 64) == draw_sample(0, 5, 64)
    pictures = {draw_sample(seed, index, 64).png for seed in (0, 1) for index in range(20)}
    assert len(pictures) == 40


def test_sample_shapes_are_inside_the_image_and_apart() -> None:
    for index in range(50):
        shapes = draw_sample(3, index, 32).shapes
        assert 1 <= len(shapes) <= 3
        for position, shape in enumerate(shapes):
            assert shape.size / 2 <= min(shape.x, shape.y, 1 - shape.x, 1 - shape.y) + 1e-9
            assert not any(shape.overlaps(other) for other in shapes[:position])


def test_a_sample_dataset_has_about_the_wanted_shares(tmp_path: Path) -> None:
    source = {"sample": {"images": 320, "imageSize": 32}}
    plan = plan_of({"source": source, "split": {"train": 60, "valid": 15, "test": 25}})
    counts = build(plan, tmp_path / "work").report.images
    assert (counts.train, counts.valid, counts.test) == (194, 41, 85)
