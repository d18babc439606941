"""COCO: JSON files that list the boxes of many images, in pixels and with classes by name."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainwright.contract import ClassMap, DatasetSettings
from trainwright.errors import DataError
from trainwright_trainer.annotations.coco_files import CocoBox, CocoImage, Listing, open_listing
from trainwright_trainer.annotations.folder import no_images, read_inside, trees_of
from trainwright_trainer.annotations.formats import COCO_FOLDER
from trainwright_trainer.annotations.images import IMAGE_SUFFIXES, MOST_IMAGE_BYTES, check_image
from trainwright_trainer.annotations.items import (
    Item,
    Label,
    Picture,
    Repair,
    Rule,
    Rules,
    UnfitError,
    make_item,
)
from trainwright_trainer.annotations.labels import (
    Box,
    Problem,
    Row,
    check_boxes,
    check_frame,
    read_class_name,
)
from trainwright_trainer.annotations.listing import Stamp, scan_folder

_LONGEST_NAME = 200


@dataclass(frozen=True)
class CocoCandidate:
    """An image with its boxes; `listed` is how often a COCO file lists it, its path relative to the root."""

    name: str
    root: Path
    path: str
    listed: int
    size: tuple[str, str]
    boxes: tuple[CocoBox, ...]
    stamp: str = ""

    def read(self, rules: Rules) -> Item:
        """Return the checked item, or raise `UnfitError`."""
        if not self.path.isprintable() or len(self.name) > _LONGEST_NAME:
            raise UnfitError(Rule.NAME, f"the name can't be printed, or is longer than {_LONGEST_NAME}")
        if not self.path or not os.path.lexists(self.root / self.path):
            raise UnfitError(Rule.IMAGE_MISSING, "image is missing")
        if self.listed > 1:
            raise UnfitError(Rule.IMAGE_AMBIGUOUS, f"the image is listed {self.listed} times")
        if not self.listed and not rules.allow_missing_labels:
            raise UnfitError(Rule.LABEL_MISSING, "label is missing: no file lists the image")
        path = Path(self.path)
        picture = check_image(
            read_inside(self.root, path, MOST_IMAGE_BYTES, Rule.IMAGE_TOO_LARGE), path.suffix
        )
        return make_item(self.name, picture, self._check_boxes(picture, rules))

    def _check_boxes(self, picture: Picture, rules: Rules) -> Label:
        if not self.listed:
            return Label("", (Repair.BACKGROUND_ASSUMED,))
        check_frame(picture, *self.size)
        single = [box for box in self.boxes if not box.crowd]
        rows = ((f"annotation {box.id}", _read_box(box, picture, rules)) for box in single)
        label = check_boxes(rows, rules.class_ids)
        crowds = (Repair.CROWD_DROPPED,) if len(single) < len(self.boxes) else ()
        return Label(label.text, label.repairs + crowds)


@dataclass(frozen=True)
class CocoSource:
    """The images that JSON files in `annotations/` of the wanted trees list, and those they do not."""

    root: Path
    settings: DatasetSettings
    classes: ClassMap
    files: tuple[str, ...]

    @property
    def stamp(self) -> str:
        """Sizes, times and inodes of all JSON files and of the images."""
        stamp = Stamp()
        for tree in trees_of(self.settings):
            for folder in (f"{tree}/{COCO_FOLDER}", *self._image_folders(tree)):
                for file, file_stamp in scan_folder(self.root / folder):
                    stamp.add(f"{folder}/{file}", file_stamp)
        return str(stamp)

    def candidates(self, scratch: Path) -> Iterator[CocoCandidate]:
        """Yield every image once: those of the first tree that has the name, of the others none."""
        images, trees = 0, trees_of(self.settings)
        taken: set[bytes] = set()  # a digest of each name, unless there is one tree only
        for tree in trees:
            fresh: set[bytes] = set()
            for candidate in self._candidates_of(tree, scratch):
                key = hashlib.blake2b(os.fsencode(candidate.name), digest_size=12).digest()
                if key not in taken:
                    images += bool(candidate.stamp)
                    fresh |= {key} if tree != trees[-1] else set()
                    yield candidate
            taken |= fresh
        if not images:
            raise no_images(f"{tree}/images" for tree in trees)

    def _candidates_of(self, tree: str, scratch: Path) -> Iterator[CocoCandidate]:
        files = tuple(file for file in self.files if file.startswith(f"{tree}/"))
        with open_listing(self.root, files, scratch) as listing:
            for folder in self._image_folders(tree):
                below = folder.removeprefix(f"{tree}/images").lstrip("/")
                listing.add_found(
                    (f"{below}/{file}".lstrip("/"), stamp)
                    for file, stamp in scan_folder(self.root / folder)
                    if file.lower().endswith(tuple(IMAGE_SUFFIXES))
                )
            for group in listing.images():
                yield self._candidate(tree, listing, group)
            for file, image in listing.orphans():
                name = f"{Path(file).stem}-image-{image}"
                yield CocoCandidate(name, self.root, "", 1, ("", ""), ())

    def _candidate(self, tree: str, listing: Listing, image: CocoImage) -> CocoCandidate:
        boxes = listing.boxes_of(image) if image.listed == 1 else ()
        facts = repr((image.width, image.height, image.listed, boxes))
        digest = hashlib.blake2b(facts.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
        return CocoCandidate(
            name=os.path.splitext(image.path)[0].replace("/", "-"),  # noqa: PTH122 - a million names
            root=self.root,
            path=f"{tree}/images/{image.path}",
            listed=image.listed,
            size=(image.width, image.height),
            boxes=boxes,
            stamp=f"{image.stamp}:{digest}" if image.stamp else "",
        )

    def _image_folders(self, tree: str) -> Iterator[str]:
        """Yield images/ and the folders below it: paths in a COCO file may lead into them."""
        for folder, folders, _ in os.walk(self.root / tree / "images"):
            folders.sort()
            yield str(Path(folder).relative_to(self.root))


def find_coco_files(root: Path, settings: DatasetSettings) -> tuple[str, ...]:
    """Return the JSON files of the wanted trees, relative to the root; there must be one."""
    folders = [f"{tree}/{COCO_FOLDER}" for tree in trees_of(settings)]
    files = tuple(
        f"{folder}/{name}"
        for folder in folders
        for name in sorted(name for name, _ in scan_folder(root / folder))
        if name.endswith(".json")
    )
    if not files:
        raise DataError(
            f"no COCO file found in {', '.join(folders)}",
            hint="COCO files (.json) belong in annotations/, the images in images/ beside it.",
        )
    for file in files:
        if not (root / file).resolve().is_relative_to(root):
            raise DataError(f"{file} is a link out of the source", hint="Put the file itself there.")
    return files


def _read_box(box: CocoBox, picture: Picture, rules: Rules) -> Row:
    if box.category is None:
        return [Problem(Rule.LABEL_CLASS, "its category_id is not among the categories of the file")]
    class_id, problems = read_class_name(box.category, rules)
    numbers = _read_numbers(box.bbox)
    if numbers is None:
        problems.append(Problem(Rule.LABEL_NUMBER, "its bbox is not a list of four numbers"))
    if problems or numbers is None:
        return problems
    left, top, width, height = numbers
    corners = (left, top, left + width, top + height)
    return Box.between(class_id, corners, (picture.width, picture.height))


def _read_numbers(text: str) -> Sequence[float] | None:
    value = json.loads(text)
    if not isinstance(value, list) or len(value) != 4:
        return None
    if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in value):
        return None
    numbers = [float(number) for number in value]
    return numbers if all(map(math.isfinite, numbers)) else None
