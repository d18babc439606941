"""What must hold for many annotations: memory, processes, what is never done twice, what is told of it."""

from __future__ import annotations

import errno
import gc
import json
import os
import signal
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from annotation_trees import Silent, folder_plan, plan_of, write_tree

from trainwright.artifacts import Dataset
from trainwright.contract import ClassMap, SampleSource
from trainwright.errors import DataError, PreemptedError
from trainwright_trainer.annotations.gathering import Pace, gather_annotations
from trainwright_trainer.annotations.items import Item, Picture, Rule, Rules
from trainwright_trainer.annotations.ledger import open_ledger
from trainwright_trainer.annotations.manifest import read_images
from trainwright_trainer.annotations.readers import read_candidates
from trainwright_trainer.annotations.readings import ObjectStore, Reading
from trainwright_trainer.annotations.sample import DrawnSource, SampleCandidate
from trainwright_trainer.annotations.splitting import SPLITS, divide_entries
from trainwright_trainer.places import Places
from trainwright_trainer.steps.dataset import build_dataset, dataset_is_whole

RULES = Rules(frozenset({0, 1, 2}))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "source", 40)


def build(
    workspace: Path, source: Path, cache: Path | None = None, watcher: Any = None, **dataset: Any
) -> Dataset:
    workspace.mkdir(exist_ok=True)
    places = Places(workspace, data=source, cache=cache)
    return build_dataset(folder_plan(**dataset), places, watcher or Silent())


def spoil_unseen(path: Path) -> None:
    """Change a file's content so that nobody notices who does not read it."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"spoilt")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


class Interrupting(Silent):
    """A watcher that stops the build after so many steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def advance(self, fraction: float) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise PreemptedError("stopped on request")


@dataclass(frozen=True)
class Deadly:
    """A candidate on which the decoder crashes."""

    name: str = "deadly"
    stamp: str = ""

    def read(self, rules: Rules) -> Item:
        os.kill(os.getpid(), signal.SIGSEGV)
        raise AssertionError


def test_processes_read_the_same_as_one_does(tmp_path: Path) -> None:
    candidates = list(DrawnSource(SampleSource(images=80, image_size=32)).candidates(tmp_path))
    alone = list(read_candidates(candidates, 80, RULES, tmp_path / "one", processes=0))
    beside = list(read_candidates(candidates, 80, RULES, tmp_path / "two", processes=2))
    assert [reading.image for reading in beside] == [reading.image for reading in alone]
    assert [reading.name for reading in beside] == [candidate.name for candidate in candidates]
    for reading in beside:
        assert ObjectStore(tmp_path / "two").has(reading.image, reading.image_size, reading.image_time)


def test_an_image_on_which_a_decoder_crashes_is_unfit_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    )
    drawn = [SampleCandidate(SampleSource(images=20, image_size=32), index) for index in range(20)]
    candidates = [*drawn[:5], Deadly(), *drawn[5:]]
    readings = list(read_candidates(candidates, 21, RULES, tmp_path, processes=1))
    assert [reading.rule for reading in readings] == [None] * 5 + [Rule.CRASH] + [None] * 15
    assert readings[5].reason == "reading it ended the process: exit status -11"


def test_an_unchanged_source_is_neither_read_nor_built_again(tmp_path: Path, source: Path) -> None:
    first = build(tmp_path / "work", source)
    built = (tmp_path / "work" / "dataset").stat().st_ino
    for path in source.glob("data/*/*"):
        spoil_unseen(path)
    assert build(tmp_path / "work", source) == first
    assert (tmp_path / "work" / "dataset").stat().st_ino == built


def test_of_a_changed_source_only_what_changed_is_read(tmp_path: Path, source: Path) -> None:
    first = build(tmp_path / "work", source)
    labels, images = source / "data" / "labels", source / "data" / "images"
    for path in images.iterdir():
        if path.stem != "belt3_000":
            spoil_unseen(path)
    (labels / "belt3_000.txt").write_text("2 0.5 0.5 0.125 0.125\n")
    second = build(tmp_path / "work", source)
    assert second.report.digest != first.report.digest
    assert second.report.quarantined == 0
    boxes = {image.name: image.boxes for image in read_images(tmp_path / "work" / second.manifest)}
    assert boxes["belt3_000.png"] == {2: 1}
    assert dataset_is_whole(second, tmp_path / "work")


def test_settings_that_change_make_another_dataset_of_what_was_read(tmp_path: Path, source: Path) -> None:
    first = build(tmp_path / "work", source)
    for path in source.glob("data/*/*"):
        spoil_unseen(path)
    second = build(tmp_path / "work", source, split={"seed": 5})
    assert second.report.quarantined == 0
    assert second.report.digest != first.report.digest


def test_runs_that_share_a_cache_read_a_source_once_and_have_its_images_once(
    tmp_path: Path, source: Path
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    first = build(tmp_path / "one", source, cache)
    for path in source.glob("data/*/*"):
        spoil_unseen(path)
    assert build(tmp_path / "two", source, cache).report == first.report
    for path in (tmp_path / "two" / "dataset" / "images").glob("*/*"):
        assert path.stat().st_nlink == 3


def test_an_image_that_was_written_into_since_is_read_again(tmp_path: Path, source: Path) -> None:
    first = build(tmp_path / "work", source)
    image = next((tmp_path / "work" / "dataset" / "images" / "train").iterdir())
    image.chmod(0o600)
    data = image.read_bytes()
    image.write_bytes(data[:-1] + b"\0")
    assert build(tmp_path / "work", source) == first
    assert (tmp_path / "work" / "dataset" / "images" / "train" / image.name).read_bytes() == data


def test_built_images_can_only_be_read_and_are_no_links_to_the_source(tmp_path: Path, source: Path) -> None:
    build(tmp_path / "work", source)
    sources = {path.stat().st_ino for path in source.rglob("*")}
    for path in (tmp_path / "work" / "dataset" / "images").glob("*/*"):
        assert path.stat().st_mode & 0o777 == 0o444 & path.stat().st_mode
        assert path.stat().st_ino not in sources


def test_images_that_no_dataset_has_any_more_are_removed_from_the_workspace(
    tmp_path: Path, source: Path
) -> None:
    build(tmp_path / "work", source)
    for path in source.glob("data/*/belt3_000.*"):
        path.unlink()
    build(tmp_path / "work", source)
    assert len(list((tmp_path / "work" / "dataset-cache" / "objects").glob("*/*"))) == 39


def test_a_build_that_was_stopped_goes_on_where_it_was(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainwright_trainer.annotations.gathering._SECONDS_BETWEEN_STEPS", 0)
    with pytest.raises(PreemptedError):
        build(tmp_path / "work", source, watcher=Interrupting(40 + 12))  # every name is listed first
    assert not (tmp_path / "work" / "dataset").exists()
    for path in (source / "data" / "images").iterdir():
        spoil_unseen(path)
    second = build(tmp_path / "work", source, maxCorruptPercent=100, allowEmptyClasses=True)
    assert 0 < second.report.quarantined <= 40 - 12


def test_a_damaged_cache_costs_time_only(tmp_path: Path, source: Path) -> None:
    first = build(tmp_path / "work", source)
    (tmp_path / "work" / "dataset-cache" / "ledger.sqlite").write_bytes(b"no database" * 1000)
    (source / "data" / "labels" / "belt3_000.txt").touch()
    assert build(tmp_path / "work", source).report == first.report


def test_a_class_without_an_image_to_train_on_fails_unless_that_is_allowed(
    tmp_path: Path, source: Path
) -> None:
    names = ["circle", "square", "triangle", "star", "moon"]
    with pytest.raises(
        DataError, match=r"2 of 5 classes have no image to train on: 'star' \(3\), 'moon' \(4\)"
    ) as no:
        build(tmp_path / "work", source, classes={"inline": names})
    assert "allowEmptyClasses" in no.value.hint
    allowed = build(tmp_path / "work", source, classes={"inline": names}, allowEmptyClasses=True)
    assert allowed.report.classes == 5


def test_a_single_class_is_a_legitimate_map(tmp_path: Path, source: Path) -> None:
    for label in (source / "data" / "labels").iterdir():
        label.write_text("0 0.5 0.5 0.25 0.25\n")
    assert build(tmp_path / "work", source, classes={"inline": ["part"]}).class_names == ("part",)


def test_the_summary_counts_what_the_manifest_lists(tmp_path: Path, source: Path) -> None:
    (source / "data" / "images" / "belt3_000.png").write_bytes(b"")
    (source / "data" / "labels" / "belt4_000.txt").write_text("")
    dataset = build(tmp_path / "work", source)
    summary = json.loads((tmp_path / "work" / dataset.summary).read_text())
    images = list(read_images(tmp_path / "work" / dataset.manifest))
    assert summary["digest"] == dataset.report.digest
    assert summary["annotations"] == 40
    assert summary["quarantined"] == {"count": 1, "rules": {"ImageEmpty": 1}}
    assert sum(split["backgrounds"] for split in summary["splits"].values()) == 1
    for split in SPLITS:
        there = [image for image in images if image.split == split]
        assert summary["splits"][split]["images"] == len(there)
        for entry in summary["classes"]:
            counts = [image.boxes.get(entry["id"], 0) for image in there]
            assert entry[split]["boxes"] == sum(counts)
            assert entry[split]["images"] == sum(count > 0 for count in counts)
    assert sum(size["images"] for size in summary["imageSizes"]) == 39


def test_images_of_a_parents_dataset_stay_on_their_sides(tmp_path: Path, source: Path) -> None:
    parent = build(tmp_path / "parent", source)
    earlier = tmp_path / "parent" / parent.manifest
    write_tree(source, 30, first=100)
    places = Places(tmp_path / "child", data=source)
    places.workspace.mkdir()
    child = build_dataset(folder_plan(split={"seed": 9}), places, Silent(), earlier=earlier)
    sides = {image.name: image.split for image in read_images(tmp_path / "child" / child.manifest)}
    for image in read_images(earlier):
        assert sides[image.name] == image.split
    assert {sides[name] for name in sides if int(name[4:-8]) >= 100} == set(SPLITS)


@dataclass(frozen=True)
class Bulky:
    """A candidate whose image takes 64 KiB as long as anybody holds it."""

    name: str
    stamp: str = "1"

    def read(self, rules: Rules) -> Item:
        picture = Picture(bytes(65536), ".png", 64, 64, bytes(72))
        return Item(self.name, ".png", self.name, picture, "0 0.5 0.5 0.1 0.1\n" * 5)


@dataclass(frozen=True)
class BulkySource:
    """So many of them."""

    count: int
    stamp: str = "1"

    @property
    def classes(self) -> ClassMap:
        return ClassMap.of_names(["part"])

    def candidates(self, scratch: Path) -> Iterator[Bulky]:
        return (Bulky(f"image-{index:08d}") for index in range(self.count))


def peak_of(count: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return the most bytes that were held while so many candidates were read and divided."""
    monkeypatch.setattr("trainwright_trainer.annotations.readers._WORTH_PROCESSES", count + 1)
    folder.mkdir()
    gc.collect()
    gc.freeze()  # the collector looks the less often the more objects there are, and other tests made many
    tracemalloc.start()
    try:
        with open_ledger(folder / "ledger.sqlite") as ledger:
            store = ObjectStore(folder / "objects")
            gather_annotations(BulkySource(count), RULES, ledger, store, folder, Pace(Silent(), 0, 1))
            with pytest.raises(DataError, match=f"{count} images form 1 groups"):  # all the same
                divide_entries(ledger.entries(), plan_of({"source": {"sample": {}}}).dataset.split)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        gc.unfreeze()


def test_memory_does_not_grow_with_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = peak_of(200, tmp_path / "few", monkeypatch)
    # Twice: the interpreter's table of names is one block of megabytes, and may be made anew at any time.
    many = min(peak_of(2200, tmp_path / name, monkeypatch) for name in ("many", "many again"))
    assert (many - few) / 2000 < 1000  # bytes for each image more, of which it has 65,536


def test_what_could_not_be_read_for_now_is_read_again_and_what_is_unfit_is_not(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "ledger.sqlite") as ledger:
        for rule in (Rule.CRASH, Rule.UNREADABLE, Rule.LABEL_RANGE):
            ledger.record(rule.encode(), Reading(rule, rule, "because"))
        known = [rule for rule in Rule if ledger.find_image(rule.encode()) is not None]
    assert known == [Rule.LABEL_RANGE]


def test_what_an_interrupted_build_left_in_the_store_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, data = ObjectStore(tmp_path), b"an image"
    with monkeypatch.context() as full:
        full.setattr(os, "replace", raise_full)
        full.setattr(Path, "replace", raise_full)
        with pytest.raises(OSError, match="No space left"):
            store.keep(data)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    digest, _ = store.keep(data)
    assert store.path_of(digest).read_bytes() == data


def raise_full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("gone", ["manifest.jsonl", "summary.json", "data.yaml"])
def test_a_dataset_that_lost_a_file_is_built_again(gone: str, tmp_path: Path, source: Path) -> None:
    built = build(tmp_path / "workspace", source)
    (tmp_path / "workspace" / "dataset" / gone).unlink()
    again = build(tmp_path / "workspace", source)
    assert again.report.digest == built.report.digest
    assert (tmp_path / "workspace" / "dataset" / gone).is_file()
