"""A dataset on disk as Ultralytics reads it: images/SPLIT, labels/SPLIT, data.yaml; its papers beside it."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from trainwright.contract import ClassMap
from trainwright_trainer.annotations.ledger import Ledger, Placed
from trainwright_trainer.annotations.manifest import ManifestHeader, ManifestImage, write_manifest
from trainwright_trainer.annotations.readings import ObjectStore
from trainwright_trainer.annotations.splitting import SPLITS
from trainwright_trainer.files import digest_bytes, link_or_copy

MANIFEST, SUMMARY, QUARANTINE, SETTINGS = "manifest.jsonl", "summary.json", "quarantine.jsonl", "data.yaml"
_FILES_AT_ONCE = 256
_THREADS = 4  # they wait for the file system most of the time


def lay_out(folder: Path, ledger: Ledger, store: ObjectStore, advance: Callable[[int], None]) -> None:
    """Link every image from the store to its split, write its label; `advance` hears how many are done."""
    for split in SPLITS:
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)

    def place_all(batch: list[Placed]) -> int:
        for item in batch:
            image = folder / "images" / item.split / (item.name + item.suffix)
            link_or_copy(store.path_of(item.image), image)
            (folder / "labels" / item.split / f"{item.name}.txt").write_bytes(item.label.encode())
        return len(batch)

    done = 0
    with ThreadPoolExecutor(_THREADS) as threads:
        pending: deque[Future[int]] = deque()
        for batch in _in_batches(ledger.placed()):
            pending.append(threads.submit(place_all, batch))
            if len(pending) > 2 * _THREADS:
                done += pending.popleft().result()
                advance(done)
        for future in pending:
            done += future.result()
            advance(done)


def write_papers(folder: Path, ledger: Ledger, classes: ClassMap) -> ManifestHeader:
    """Write manifest, quarantine list and settings, and return the manifest's first line."""
    header = write_manifest(folder / MANIFEST, classes, map(_to_line, ledger.placed()))
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


def _to_line(item: Placed) -> ManifestImage:
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
    )


def _in_batches(items: Iterable[Placed]) -> Iterator[list[Placed]]:
    iterator = iter(items)
    while batch := list(islice(iterator, _FILES_AT_ONCE)):
        yield batch
