"""The manifest of a dataset: a header, then a line for each image in the order of names, all by digest.

The digest of the whole covers the names of the classes, and name, split, image, label and variants of each
line: the same for the same content wherever, whenever and in whatever order it was built. Readers and writers
hold a line at a time.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from trainwright.contract import ClassMap, Contract, Digest
from trainwright.errors import DataError
from trainwright_trainer.annotations.splitting import Split

_Line = TypeVar("_Line", bound=Contract)


class ManifestHeader(Contract):
    """The first line: what the dataset is as a whole.

    `stream_offset` is that of the annotation stream up to which the source was caught up with it.
    """

    version: int = 1
    digest: Digest
    class_map: ClassMap
    images: int
    stream_offset: int | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """The name of each class position."""
        return self.class_map.names


class Variant(Contract):
    """An altered copy of a training image, which lies beside it: `boxes` of each class id."""

    name: str
    image: Digest
    image_size: int
    label: Digest
    boxes: dict[int, int]


class ManifestImage(Contract):
    """One image with its label: `boxes` of each class id, and the `media` that it is a frame of.

    `variants` are made here and are no annotations: they go where their original is, and nowhere else.
    """

    name: str
    split: Split
    media: str
    image: Digest
    image_size: int
    width: int
    height: int
    label: Digest
    label_size: int
    boxes: dict[int, int]
    variants: tuple[Variant, ...] = ()


def write_manifest(
    path: Path, classes: ClassMap, images: Iterable[ManifestImage], stream_offset: int | None = None
) -> ManifestHeader:
    """Write the manifest of images that come in the order of their names."""
    lines, count = path.with_name(path.name + ".lines"), 0
    digest = hashlib.sha256(json.dumps(classes.names).encode())
    with lines.open("w", encoding="utf-8") as file:
        for image in images:
            count += 1
            content = [image.name, image.split, image.image, image.label]
            content += [part for variant in image.variants for part in (variant.image, variant.label)]
            digest.update(b"\n" + json.dumps(content).encode())
            file.write(image.model_dump_json(by_alias=True) + "\n")
    header = ManifestHeader(
        digest=f"sha256:{digest.hexdigest()}", class_map=classes, images=count, stream_offset=stream_offset
    )
    with path.open("wb") as whole, lines.open("rb") as part:
        whole.write(header.model_dump_json(by_alias=True).encode() + b"\n")
        shutil.copyfileobj(part, whole)
    lines.unlink()
    return header


def read_header(path: Path) -> ManifestHeader:
    """Return the first line of a manifest."""
    with path.open("rb") as file:
        return _parse(ManifestHeader, file.readline(), path)


def read_images(path: Path) -> Iterator[ManifestImage]:
    """Yield the images of a manifest, in the order of their names."""
    with path.open("rb") as file:
        file.readline()
        for line in file:
            yield _parse(ManifestImage, line, path)


def _parse(kind: type[_Line], line: bytes, path: Path) -> _Line:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        raise DataError(f"{path.name} is not a dataset's manifest: {error.errors()[0]['msg']}") from error
