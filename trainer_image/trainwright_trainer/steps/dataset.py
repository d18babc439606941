"""Dataset: annotations in, checked, split and linked; what is unfit is listed, the source never touched.

Nothing of an image is in memory for longer than it takes to decode it, and nothing is done again that an
earlier build of the same source has done: readings are in a ledger, images in a store by their digest.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from pydantic import ValidationError

from trainwright.artifacts import Dataset
from trainwright.contract import (
    Contract,
    DatasetReport,
    DatasetSettings,
    ImageCounts,
    RunPlan,
    digest_of,
)
from trainwright.errors import DataError
from trainwright_trainer.annotations.folder import find_root
from trainwright_trainer.annotations.gathering import Pace, digest_rules, gather_annotations
from trainwright_trainer.annotations.items import Rules
from trainwright_trainer.annotations.layout import (
    MANIFEST,
    QUARANTINE,
    SUMMARY,
    lay_out,
    write_json,
    write_papers,
)
from trainwright_trainer.annotations.ledger import Ledger, open_ledger
from trainwright_trainer.annotations.listing import Stamp, scan_folder
from trainwright_trainer.annotations.manifest import ManifestImage, read_header, read_images
from trainwright_trainer.annotations.opening import open_folder
from trainwright_trainer.annotations.readings import ObjectStore
from trainwright_trainer.annotations.sample import DrawnSource
from trainwright_trainer.annotations.sources import Source
from trainwright_trainer.annotations.splitting import SPLITS, divide_entries
from trainwright_trainer.annotations.summary import Balance, summarize
from trainwright_trainer.files import commit_folder, digest_file
from trainwright_trainer.places import Places
from trainwright_trainer.watching import Watcher

FOLDER = "dataset"
_CACHE = "dataset-cache"
_ORIGIN = "origin.json"
_READ = 0.85  # of the stage, when every annotation is read


class _Origin(Contract):
    """Beside a built dataset: what it was built from, and the stamp of its own files."""

    inputs: str
    files: str
    dataset: Dataset


@dataclass(frozen=True)
class _Cache:
    """Where readings and images are kept: in the workspace, or in a folder that several runs share."""

    workspace: Path
    shared: Path | None

    @property
    def store(self) -> ObjectStore:
        """Return the images."""
        return ObjectStore((self.shared or self.workspace) / "objects")

    @property
    def ledger(self) -> Path:
        """Return the path of this run's own ledger, which begins as a copy of the shared one."""
        path = self.workspace / "ledger.sqlite"
        if self.shared is not None and not path.exists() and (self.shared / path.name).exists():
            self.workspace.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.shared / path.name, path)
        return path

    def share(self) -> None:
        """Let other runs have what this one knows; the last one to say so is believed."""
        if self.shared is not None:
            partial = self.shared / f".ledger.{uuid4().hex}"
            shutil.copyfile(self.ledger, partial)
            partial.replace(self.shared / "ledger.sqlite")

    def prune(self) -> None:
        """Remove images that no dataset has; of those in a shared folder nobody can say that."""
        if self.shared is None:
            for path in self.store.folder.glob("*/*"):
                if path.stat().st_nlink == 1:
                    path.unlink()


def build_dataset(plan: RunPlan, places: Places, watcher: Watcher, *, earlier: Path | None = None) -> Dataset:
    """Build the dataset in the workspace; the same annotations and settings give the same digest.

    Images in `earlier`, the manifest of a parent's dataset, stay on the sides they were on.
    """
    settings = plan.dataset
    source = _open_source(settings, places)
    rules = Rules.of(source.classes, settings)
    inputs = _describe_inputs(settings, source, rules, earlier)
    built = _recall(places.workspace / FOLDER, inputs)
    if built is not None:
        return built
    cache = _Cache(places.workspace / _CACHE, places.cache)
    partial = places.workspace / f"{FOLDER}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    scratch = partial / "scratch"
    scratch.mkdir(parents=True)
    with open_ledger(cache.ledger) as ledger:
        gather_annotations(source, rules, ledger, cache.store, scratch, Pace(watcher, 0, _READ))
        shutil.rmtree(scratch)
        _check_quarantine(ledger, settings.max_corrupt_percent)
        _divide(ledger, settings, earlier)
        balance = Balance(ledger)
        if not settings.allow_empty_classes:
            balance.require_training_images(source.classes)
        dataset = _assemble(partial, source, ledger, balance, settings, cache.store, Pace(watcher, _READ, 1))
        ledger.forget_unwanted()
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
    label = (folder / "labels" / image.split / image.name).with_suffix(".txt")
    size = (folder / "images" / image.split / image.name).stat().st_size
    return size == image.image_size and digest_file(label) == image.label


def _open_source(settings: DatasetSettings, places: Places) -> Source:
    if settings.source.sample is not None:
        return DrawnSource(settings.source.sample)
    assert settings.source.folder is not None  # noqa: S101 - the plan has exactly one source
    root = find_root(settings.source.folder.path, places.data)
    return open_folder(root, settings)


def _describe_inputs(settings: DatasetSettings, source: Source, rules: Rules, earlier: Path | None) -> str:
    """Return a digest of all that a dataset is made from; empty where the source can't tell."""
    if not source.stamp:
        return ""
    parent = "" if earlier is None else read_header(earlier).digest
    parts = [
        settings.model_dump_json(),
        source.classes.model_dump_json(),
        source.stamp,
        digest_rules(rules),
        parent,
    ]
    return digest_of("\n".join(parts))


def _recall(folder: Path, inputs: str) -> Dataset | None:
    """Return the dataset that was built from the same before, if nothing of it has been changed since."""
    try:
        origin = _Origin.model_validate_json((folder / _ORIGIN).read_bytes())
    except (OSError, ValidationError):
        return None
    return (
        origin.dataset if inputs and origin.inputs == inputs and origin.files == _stamp_of(folder) else None
    )


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


def _assemble(  # noqa: PLR0913, PLR0917 - all that a dataset is put together from
    partial: Path,
    source: Source,
    ledger: Ledger,
    balance: Balance,
    settings: DatasetSettings,
    store: ObjectStore,
    pace: Pace,
) -> Dataset:
    """Link images, write labels and papers, and return the dataset as it will be named."""
    total, unfit = ledger.count()
    lay_out(partial, ledger, store, lambda done: pace.advance(done, total - unfit))
    header = write_papers(partial, ledger, source.classes)
    summary = summarize(ledger, header, balance, settings.split)
    write_json(partial / SUMMARY, summary)
    counts = {split: summary["splits"][split]["images"] for split in SPLITS}
    report = DatasetReport(
        digest=header.digest,
        images=ImageCounts(**counts),
        quarantined=unfit,
        classes=len(source.classes.names),
    )
    return Dataset(
        folder=FOLDER,
        report=report,
        class_map=source.classes,
        manifest=f"{FOLDER}/{MANIFEST}",
        summary=f"{FOLDER}/{SUMMARY}",
        quarantine=f"{FOLDER}/{QUARANTINE}",
    )
