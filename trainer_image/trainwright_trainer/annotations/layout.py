"""A dataset on disk as Ultralytics reads it: images/SPLIT, labels/SPLIT, data.yaml; its papers beside it."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeVar

from trainwright.contract import ClassMap
from trainwright_trainer.annotations.ledger import Ledger, Placed
from trainwright_trainer.annotations.manifest import ManifestHeader, ManifestImage, Variant, write_manifest
from trainwright_trainer.annotations.readings import ObjectStore
from trainwright_trainer.annotations.splitting import SPLITS
from trainwright_trainer.augmentation.making import Copy
from trainwright_trainer.files import digest_bytes, link_or_copy

FAILED_COPIES, DIFFERENCE = "augmentation-failures.jsonl", "parent-difference.json"
MANIFEST, SUMMARY, QUARANTINE, SETTINGS = "manifest.jsonl", "summary.json", "quarantine.jsonl", "data.yaml"
_FILES_AT_ONCE = 256
_Item = TypeVar("_Item")
_THREADS = 4  # they wait for the file system most of the time


class CopiesOf(Protocol):
    """What the layout needs to know of altered copies."""

    def __call__(self, item: Placed) -> Mapping[str, Copy]:
        """Return the copies of an image by their names without suffix, in the order of their numbers."""


def lay_out(
    folder: Path, ledger: Ledger, store: ObjectStore, copies_of: CopiesOf, advance: Callable[[int], None]
) -> None:
    """Link every image from the store to its split, write its label; `advance` hears how many are done."""
    for split in SPLITS:
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)

    def place(split: str, name: str, item: Placed | Copy) -> None:
        link_or_copy(store.path_of(item.image), folder / "images" / split / (name + item.suffix))
        (folder / "labels" / split / f"{name}.txt").write_bytes(item.label.encode())

    def place_all(batch: list[tuple[Placed, Mapping[str, Copy]]]) -> int:
        for item, copies in batch:
            place(item.split, item.name, item)
            for name, copy in copies.items():
                place(item.split, name, copy)
        return len(batch)

    done = 0
    with ThreadPoolExecutor(_THREADS) as threads:
        pending: deque[Future[int]] = deque()
        for batch in _in_batches((item, copies_of(item)) for item in ledger.placed()):
            pending.append(threads.submit(place_all, batch))
            if len(pending) > 2 * _THREADS:
                done += pending.popleft().result()
                advance(done)
        for future in pending:
            done += future.result()
            advance(done)


def write_papers(
    folder: Path, ledger: Ledger, classes: ClassMap, copies_of: CopiesOf, stream_offset: int | None
) -> ManifestHeader:
    """Write manifest, quarantine list and settings, and return the manifest's first line."""
    images = (_to_line(item, copies_of(item)) for item in ledger.placed())
    header = write_manifest(folder / MANIFEST, classes, images, stream_offset)
    with (folder / QUARANTINE).open("w", encoding="utf-8") as file:
        for name, rule, reason in ledger.unfit():
            file.write(json.dumps({"name": name, "rule": rule, "reason": reason}) + "\n")
    # JSON is YAML; without `path` Ultralytics looks beside the file, wherever it is mounted.
    folders = {"train": "images/train", "val": "images/valid", "test": "images/test"}
    write_json(folder / SETTINGS, {**folders, "names": dict(enumerate(classes.names))})
    return header


def write_json(path: Path, value: object) -> None:
    """Write a value so that people can read it too."""
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _to_line(item: Placed, copies: Mapping[str, Copy]) -> ManifestImage:
    label = item.label.encode()
    return ManifestImage(
        name=item.name + item.suffix,
        split=item.split,
        media=item.media,
        image=f"sha256:{item.image}",
        image_size=item.image_size,
        width=item.width,
        height=item.height,
        label=digest_bytes(label),
        label_size=len(label),
        boxes=item.boxes,
        variants=tuple(_to_variant(name, copy) for name, copy in copies.items()),
    )


def _to_variant(name: str, copy: Copy) -> Variant:
    return Variant(
        name=name + copy.suffix,
        image=f"sha256:{copy.image}",
        image_size=copy.image_size,
        label=digest_bytes(copy.label.encode()),
        boxes={int(class_id): count for class_id, count in copy.boxes.items()},
    )


def _in_batches(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, _FILES_AT_ONCE)):
        yield batch
