"""Dataset: annotations in, checked, split and copied; what is unfit is listed, the source never touched."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from trainwright.artifacts import Dataset
from trainwright.contract import (
    ClassMap,
    DatasetReport,
    DatasetSettings,
    ImageCounts,
    RunPlan,
    SampleSource,
    SplitSettings,
)
from trainwright.errors import DataError
from trainwright_trainer.annotations.classes import load_classes
from trainwright_trainer.annotations.folder import find_candidates, find_root
from trainwright_trainer.annotations.images import check_image
from trainwright_trainer.annotations.items import Item, Rule, Rules, UnfitError
from trainwright_trainer.annotations.manifest import ManifestImage, read_images, write_manifest
from trainwright_trainer.annotations.sample import CLASS_NAMES, draw_samples
from trainwright_trainer.annotations.splitting import SPLITS, Entry, Split, split_entries
from trainwright_trainer.files import commit_folder, digest_bytes, digest_file
from trainwright_trainer.places import Places
from trainwright_trainer.watching import Watcher

FOLDER = "dataset"


@dataclass(frozen=True)
class _Record:
    """An accepted item: its bytes are in the pool, only this is kept in memory."""

    name: str
    suffix: str
    media: str
    image_digest: str
    image_size: int
    width: int
    height: int
    label_digest: str
    label_size: int
    boxes: dict[int, int]

    def to_line(self, split: Split) -> ManifestImage:
        return ManifestImage(
            name=self.name + self.suffix,
            split=split,
            media=self.media,
            image=self.image_digest,
            image_size=self.image_size,
            width=self.width,
            height=self.height,
            label=self.label_digest,
            label_size=self.label_size,
            boxes=self.boxes,
        )


@dataclass(frozen=True)
class _Unfit:
    """A name that was left out, and why."""

    name: str
    rule: Rule
    reason: str


@dataclass(frozen=True)
class _Annotations:
    """A source, opened: its classes, how many names it has, and its items one after the other."""

    classes: ClassMap
    total: int
    items: Iterator[Item | _Unfit]
    split: SplitSettings


def build_dataset(plan: RunPlan, places: Places, watcher: Watcher) -> Dataset:
    """Build the dataset in the workspace; the same annotations and settings give the same digest."""
    settings = plan.dataset
    annotations = _open_source(settings, places)
    partial = places.workspace / f"{FOLDER}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    records, unfit = _fill_pool(partial / "pool", annotations, watcher)
    _check_quarantine(unfit, annotations.total, settings.max_corrupt_percent)
    entries = [Entry(record.name, record.media, record.image_digest) for record in records]
    splits = split_entries(entries, annotations.split)
    _move_into_splits(partial, records, splits)
    report = _write_papers(partial, records, splits, unfit, annotations.classes)
    commit_folder(partial, places.workspace / FOLDER)
    return Dataset(
        folder=FOLDER,
        report=report,
        class_map=annotations.classes,
        manifest=f"{FOLDER}/manifest.jsonl",
        summary=f"{FOLDER}/summary.json",
        quarantine=f"{FOLDER}/quarantine.jsonl",
    )


def dataset_is_whole(dataset: Dataset, workspace: Path) -> bool:
    """Return whether the manifest's images are there with their sizes, and its labels as they were."""
    folder = workspace / dataset.folder
    try:
        return all(_is_whole(image, folder) for image in read_images(workspace / dataset.manifest))
    except (OSError, DataError):
        return False


def _is_whole(image: ManifestImage, folder: Path) -> bool:
    label = (folder / "labels" / image.split / image.name).with_suffix(".txt")
    size = (folder / "images" / image.split / image.name).stat().st_size
    return size == image.image_size and digest_file(label) == image.label


def _open_source(settings: DatasetSettings, places: Places) -> _Annotations:
    if settings.source.sample is not None:
        return _open_sample(settings.source.sample, settings.split)
    assert settings.source.folder is not None  # noqa: S101 - the plan has exactly one source
    root = find_root(settings.source.folder.path, places.data)
    candidates = find_candidates(root, settings)
    classes = load_classes(settings.classes, root)
    rules = Rules(frozenset(classes.names_by_id))

    def read_all() -> Iterator[Item | _Unfit]:
        for candidate in candidates:
            try:
                yield candidate.read(rules)
            except UnfitError as error:
                yield _Unfit(candidate.name, error.rule, error.reason)

    return _Annotations(classes, len(candidates), read_all(), settings.split)


def _open_sample(source: SampleSource, split: SplitSettings) -> _Annotations:
    items = (
        Item(
            name=drawn.name,
            suffix=".png",
            media=drawn.name,  # every drawing is a scene of its own
            image=check_image(drawn.png),
            label="".join(shape.to_line() + "\n" for shape in drawn.shapes),
        )
        for drawn in draw_samples(source)
    )
    return _Annotations(ClassMap.of_names(CLASS_NAMES), source.images, items, split)


def _fill_pool(pool: Path, annotations: _Annotations, watcher: Watcher) -> tuple[list[_Record], list[_Unfit]]:
    """Copy every fit item into one folder, in one pass over the source."""
    pool.mkdir(parents=True)
    records: list[_Record] = []
    unfit: list[_Unfit] = []
    for done, item in enumerate(annotations.items, start=1):
        if isinstance(item, _Unfit):
            unfit.append(item)
        else:
            label = item.label.encode()
            (pool / (item.name + item.suffix)).write_bytes(item.image.data)
            (pool / f"{item.name}.txt").write_bytes(label)
            boxes = Counter(int(line.split()[0]) for line in item.label.splitlines())
            records.append(
                _Record(
                    name=item.name,
                    suffix=item.suffix,
                    media=item.media,
                    image_digest=digest_bytes(item.image.data),
                    image_size=len(item.image.data),
                    width=item.image.width,
                    height=item.image.height,
                    label_digest=digest_bytes(label),
                    label_size=len(label),
                    boxes=dict(sorted(boxes.items())),
                )
            )
        watcher.advance(done / annotations.total)
    return records, unfit


def _check_quarantine(unfit: list[_Unfit], total: int, max_percent: float) -> None:
    percent = 100 * len(unfit) / total
    if percent > max_percent:
        first = "; ".join(f"{item.name}: {item.reason}" for item in unfit[:3])
        raise DataError(
            f"{len(unfit)} of {total} annotations are unfit ({percent:.1f} %, at most {max_percent:g} % are"
            f" allowed). The first: {first}",
            hint="Mend or remove them, or raise dataset.maxCorruptPercent to train without them.",
        )


def _move_into_splits(partial: Path, records: Iterable[_Record], splits: dict[str, Split]) -> None:
    for split in SPLITS:
        (partial / "images" / split).mkdir(parents=True)
        (partial / "labels" / split).mkdir(parents=True)
    for record in records:
        split, image, label = splits[record.name], record.name + record.suffix, f"{record.name}.txt"
        (partial / "pool" / image).rename(partial / "images" / split / image)
        (partial / "pool" / label).rename(partial / "labels" / split / label)
    (partial / "pool").rmdir()


def _write_papers(
    partial: Path,
    records: Iterable[_Record],
    splits: dict[str, Split],
    unfit: Iterable[_Unfit],
    classes: ClassMap,
) -> DatasetReport:
    """Write manifest, quarantine list, data.yaml; the digest covers classes, splits and contents."""
    images = sorted((record.to_line(splits[record.name]) for record in records), key=lambda line: line.name)
    digest = write_manifest(partial / "manifest.jsonl", classes, images).digest
    count = {split: sum(image.split == split for image in images) for split in SPLITS}
    _write_json(
        partial / "summary.json", {"digest": digest, "splits": {s: {"images": n} for s, n in count.items()}}
    )
    quarantined = [
        json.dumps({"name": item.name, "rule": item.rule, "reason": item.reason}) + "\n" for item in unfit
    ]
    (partial / "quarantine.jsonl").write_text("".join(quarantined), encoding="utf-8")
    # JSON is YAML; without `path` Ultralytics looks beside the file, wherever it is mounted.
    split_folders = {"train": "images/train", "val": "images/valid", "test": "images/test"}
    _write_json(partial / "data.yaml", {**split_folders, "names": dict(enumerate(classes.names))})
    return DatasetReport(
        digest=digest, images=ImageCounts(**count), quarantined=len(quarantined), classes=len(classes.names)
    )


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
