"""Dataset: annotations in, checked, split and linked; what is unfit is listed, the source never touched.

Nothing of an image is in memory for longer than it takes to decode it, and nothing is done again that an
earlier build of the same source has done: readings are in a ledger, images in a store by their digest.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trainwright.artifacts import Dataset
from trainwright.contract import (
    ClassMap,
    Contract,
    DatasetReport,
    DatasetSettings,
    ImageCounts,
    RunPlan,
    digest_of,
)
from trainwright.errors import DataError
from trainwright_trainer.annotations.cache import DatasetCache
from trainwright_trainer.annotations.drift import diff_manifests, summarize_drift
from trainwright_trainer.annotations.folder import find_root
from trainwright_trainer.annotations.gathering import Pace, digest_rules, gather_annotations
from trainwright_trainer.annotations.items import Rules
from trainwright_trainer.annotations.layout import (
    DIFFERENCE,
    FAILED_COPIES,
    MANIFEST,
    QUARANTINE,
    SUMMARY,
    lay_out,
    write_json,
    write_papers,
)
from trainwright_trainer.annotations.ledger import Ledger, Placed, open_ledger
from trainwright_trainer.annotations.listing import Stamp, scan_folder
from trainwright_trainer.annotations.manifest import ManifestImage, Variant, read_header, read_images
from trainwright_trainer.annotations.opening import open_folder
from trainwright_trainer.annotations.readings import ObjectStore
from trainwright_trainer.annotations.sample import DrawnSource
from trainwright_trainer.annotations.sources import Source
from trainwright_trainer.annotations.splitting import SPLITS, divide_entries
from trainwright_trainer.annotations.summary import Balance, summarize
from trainwright_trainer.augmentation.copies import Copies, open_copies
from trainwright_trainer.augmentation.making import Copy
from trainwright_trainer.files import commit_folder, digest_file
from trainwright_trainer.ingestion.catching_up import catch_up_with_stream
from trainwright_trainer.places import Places
from trainwright_trainer.watching import Watcher

FOLDER = "dataset"
_CACHE = "dataset-cache"
_ORIGIN = "origin.json"
_GATHERINGS = 5  # a file that is moved between listing and reading is not one that is missing
_READ = 0.85  # of the stage, when every annotation is read


class _Origin(Contract):
    """Beside a built dataset: what it was built from, and the stamp of its own files."""

    inputs: str
    files: str
    dataset: Dataset


@dataclass(frozen=True)
class _Build:
    """A dataset on its way: what it is made of, and the folder that becomes it."""

    partial: Path
    source: Source
    settings: DatasetSettings
    earlier: Path | None
    store: ObjectStore
    ledger: Ledger
    copies: Copies
    stream_offset: int | None

    def copies_of(self, item: Placed) -> dict[str, Copy]:
        """Return the altered copies of an image, by their names."""
        return self.copies.named(item, self.ledger.has_name)


def build_dataset(plan: RunPlan, places: Places, watcher: Watcher, *, earlier: Path | None = None) -> Dataset:
    """Build the dataset in the workspace; the same annotations and settings give the same digest.

    Images in `earlier`, the manifest of a parent's dataset, stay on the sides they were on.
    """
    settings = plan.dataset
    stream_offset = catch_up_with_stream(settings, places, watcher)
    source = _open_source(settings, places)
    rules = Rules.of(source.classes, settings)
    stamp = source.stamp
    inputs = _describe_inputs(settings, source.classes, stamp, rules, earlier, stream_offset)
    built = _recall(places.workspace / FOLDER, inputs)
    if built is not None:
        return built
    cache = DatasetCache(places.workspace / _CACHE, places.cache)
    partial = places.workspace / f"{FOLDER}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    scratch = partial / "scratch"
    scratch.mkdir(parents=True)
    read = _READ / (1 + settings.augmentation.copies)
    with (
        open_ledger(cache.ledger) as ledger,
        open_copies(cache.copies, settings.augmentation, cache.store) as copies,
    ):
        for _ in range(_GATHERINGS):
            gather_annotations(source, rules, ledger, cache.store, scratch, Pace(watcher, 0, read))
            if not ledger.count()[1]:
                break
            before, stamp = stamp, source.stamp
            if stamp == before:
                break
        shutil.rmtree(scratch)
        _check_quarantine(ledger, settings.max_corrupt_percent)
        _divide(ledger, settings, earlier)
        balance = Balance(ledger)
        if not settings.allow_empty_classes:
            balance.require_training_images(source.classes)
        build = _Build(partial, source, settings, earlier, cache.store, ledger, copies, stream_offset)
        failed = _make_copies(build, Pace(watcher, read, _READ))
        dataset = _assemble(build, balance, failed, Pace(watcher, _READ, 1))
        ledger.forget_unwanted()
        copies.forget_unwanted()
    origin = _Origin(inputs=inputs, files=_stamp_of(partial), dataset=dataset)
    write_json(partial / _ORIGIN, origin.model_dump(mode="json", by_alias=True))
    commit_folder(partial, places.workspace / FOLDER)
    cache.share()
    cache.prune()
    return dataset


def dataset_is_whole(dataset: Dataset, workspace: Path) -> bool:
    """Return whether the manifest's images are there with their sizes, and its labels as they were."""
    folder = workspace / dataset.folder
    try:
        return all(_is_whole(image, folder) for image in read_images(workspace / dataset.manifest))
    except (OSError, DataError):
        return False


def _is_whole(image: ManifestImage, folder: Path) -> bool:
    items: tuple[ManifestImage | Variant, ...] = (image, *image.variants)
    return all(_has(folder, image.split, item) for item in items)


def _has(folder: Path, split: str, item: ManifestImage | Variant) -> bool:
    label = (folder / "labels" / split / item.name).with_suffix(".txt")
    size = (folder / "images" / split / item.name).stat().st_size
    return size == item.image_size and digest_file(label) == item.label


def _open_source(settings: DatasetSettings, places: Places) -> Source:
    if settings.source.sample is not None:
        return DrawnSource(settings.source.sample)
    assert settings.source.folder is not None  # noqa: S101 - the plan has exactly one source
    root = find_root(settings.source.folder.path, places.data)
    return open_folder(root, settings)


def _describe_inputs(  # noqa: PLR0913, PLR0917 - all that a dataset is made from
    settings: DatasetSettings,
    classes: ClassMap,
    stamp: str,
    rules: Rules,
    earlier: Path | None,
    stream_offset: int | None,
) -> str:
    """Return a digest of all that a dataset is made from; empty where the source can't tell by a stamp."""
    if not stamp:
        return ""
    parent = "" if earlier is None else read_header(earlier).digest
    parts = [
        settings.model_dump_json(),
        classes.model_dump_json(),
        stamp,
        digest_rules(rules),
        parent,
        str(stream_offset),
    ]
    return digest_of("\n".join(parts))


def _recall(folder: Path, inputs: str) -> Dataset | None:
    """Return the dataset that was built from the same before, if nothing of it has been changed since."""
    try:
        origin = _Origin.model_validate_json((folder / _ORIGIN).read_bytes())
        same = bool(inputs) and origin.inputs == inputs and origin.files == _stamp_of(folder)
    except (OSError, ValidationError):  # also where one of its files is gone: it is built anew
        return None
    return origin.dataset if same else None


def _stamp_of(folder: Path) -> str:
    stamp = Stamp()
    for name in (MANIFEST, SUMMARY, QUARANTINE, "data.yaml"):
        stamp.add(name, digest_file(folder / name))
    for kind in ("images", "labels"):
        for split in SPLITS:
            for name, file in scan_folder(folder / kind / split):
                stamp.add(f"{kind}/{split}/{name}", file)
    return str(stamp)


def _check_quarantine(ledger: Ledger, max_percent: float) -> None:
    total, unfit = ledger.count()
    if not total:
        raise DataError("the source has no annotations", hint="Check its path, and that it is filled.")
    percent = 100 * unfit / total
    if percent > max_percent:
        first = "; ".join(f"{name}: {reason}" for name, _, reason in ledger.unfit(3))
        raise DataError(
            f"{unfit} of {total} annotations are unfit ({percent:.1f} %, at most {max_percent:g} % are"
            f" allowed). The first: {first}",
            hint="Mend or remove them, or raise dataset.maxCorruptPercent to train without them.",
        )


def _divide(ledger: Ledger, settings: DatasetSettings, earlier: Path | None) -> None:
    """Decide the split of every fit annotation."""
    if earlier is not None:
        ledger.note_earlier((image.image, image.split) for image in read_images(earlier))
    division = divide_entries(ledger.entries(), settings.split)
    ledger.place(
        (entry.name, division.split_of(position), int(division.families[position]))
        for position, entry in enumerate(ledger.entries())
    )


def _make_copies(build: _Build, pace: Pace) -> int:
    """Make altered copies of training images; write down those that failed, and return how many."""
    failed = 0
    with (build.partial / FAILED_COPIES).open("w", encoding="utf-8") as file:
        for copy in build.copies.make(build.ledger.placed, pace.advance):
            file.write(copy.to_line())
            failed += 1
    return failed


def _assemble(build: _Build, balance: Balance, failed: int, pace: Pace) -> Dataset:
    """Link images, write labels and papers, and return the dataset as it will be named."""
    partial, ledger, classes = build.partial, build.ledger, build.source.classes
    total, unfit = ledger.count()
    lay_out(partial, ledger, build.store, build.copies_of, lambda done: pace.advance(done, total - unfit))
    header = write_papers(partial, ledger, classes, build.copies_of, build.stream_offset)
    summary = summarize(ledger, header, balance, build.settings.split)
    copies = sum(len(image.variants) for image in read_images(partial / MANIFEST))
    summary["augmentation"] = {"copies": copies, "failed": failed}
    summary["parent"] = _compare_with_parent(build)
    write_json(partial / SUMMARY, summary)
    counts = {split: summary["splits"][split]["images"] for split in SPLITS}
    report = DatasetReport(
        digest=header.digest,
        images=ImageCounts(**counts),
        copies=copies,
        quarantined=unfit,
        classes=len(classes.names),
        stream_offset=build.stream_offset,
    )
    return Dataset(
        folder=FOLDER,
        report=report,
        class_map=classes,
        manifest=f"{FOLDER}/{MANIFEST}",
        summary=f"{FOLDER}/{SUMMARY}",
        quarantine=f"{FOLDER}/{QUARANTINE}",
    )


def _compare_with_parent(build: _Build) -> dict[str, Any] | None:
    """Write what changed since the parent's dataset, and return what the summary says of it."""
    if build.earlier is None:
        return None
    found = diff_manifests(build.partial / MANIFEST, build.earlier)
    write_json(build.partial / DIFFERENCE, found.model_dump(mode="json", by_alias=True))
    return summarize_drift(found).model_dump(mode="json", by_alias=True)
