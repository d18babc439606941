"""What changed from a parent's dataset to ours: images, boxes, classes, and how far their shares drifted.

Both manifests are in the order of names, so they are read beside each other, a line of each at a time. An
image is known by its name. Altered copies are no annotations and do not count.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import Field

from trainwright.contract import ClassMap, Contract, Digest
from trainwright.errors import DataError
from trainwright_trainer.annotations.manifest import ManifestImage, read_header, read_images

_MOST_NAMED = 5


class ImageChanges(Contract):
    """Images by name: those of both datasets may have changed in several ways, or in none."""

    added: int = Field(default=0, description="Only ours.")
    removed: int = Field(default=0, description="Only the parent's.")
    kept: int = Field(default=0, description="In both.")
    replaced: int = Field(default=0, description="Kept, with other pixels.")
    relabelled: int = Field(default=0, description="Kept, with another label.")
    moved: int = Field(default=0, description="Kept, in another split.")
    seen_by_parent: int = Field(
        default=0, description="In our test split, and not in the parent's: it was trained with them."
    )


class BoxChanges(Contract):
    """Boxes by class; one that only moved within its image is neither added nor removed."""

    parent: int = Field(default=0, description="How many the parent's dataset has.")
    ours: int = Field(default=0, description="How many ours has.")
    added: int = 0
    removed: int = 0


class ClassShare(Contract):
    """A class in both datasets: how many boxes, and which part of all."""

    name: str
    parent_boxes: int
    boxes: int
    parent_share: float
    share: float


class DatasetDiff(Contract):
    """Our dataset against the parent's.

    `drift` is the Jensen-Shannon divergence of the two class histograms, to base 2 (J. Lin, Divergence
    measures based on the Shannon entropy, IEEE Transactions on Information Theory 37, 1991): 0 for the same
    shares, 1 where no class has boxes in both. Unlike the population stability index it is finite where a
    class is new or gone.
    """

    parent: Digest
    ours: Digest
    images: ImageChanges
    boxes: BoxChanges
    classes_added: tuple[str, ...]
    classes_removed: tuple[str, ...]
    drift: float
    shares: tuple[ClassShare, ...]  # the one that changed most comes first


def diff_manifests(ours: Path, parents: Path) -> DatasetDiff:
    """Compare two manifests; memory does not grow with them."""
    our_header, parent_header = read_header(ours), read_header(parents)
    our_names, parent_names = our_header.class_map.names_by_id, parent_header.class_map.names_by_id
    tally = _Tally()
    for left, right in _side_by_side(ours, parents):
        tally.count_images(left, right)
        tally.count_boxes(_by_name(left, our_names), _by_name(right, parent_names))
    drift, shares = _compare(tally.parent_boxes, tally.boxes)
    return DatasetDiff(
        parent=parent_header.digest,
        ours=our_header.digest,
        images=ImageChanges(**tally.images),
        boxes=BoxChanges(
            parent=tally.parent_boxes.total(),
            ours=tally.boxes.total(),
            added=tally.added,
            removed=tally.removed,
        ),
        classes_added=_only(our_header.class_map, parent_header.class_map),
        classes_removed=_only(parent_header.class_map, our_header.class_map),
        drift=drift,
        shares=shares,
    )


class DriftSummary(Contract):
    """What the summary of a dataset says of its parent's; the whole is in a file of its own."""

    parent: Digest
    images: ImageChanges
    boxes: BoxChanges
    classes_added: int
    classes_removed: int
    drift: float
    most_changed: tuple[ClassShare, ...]


def summarize_drift(found: DatasetDiff) -> DriftSummary:
    """Return the few lines of it that fit everywhere."""
    return DriftSummary(
        parent=found.parent,
        images=found.images,
        boxes=found.boxes,
        classes_added=len(found.classes_added),
        classes_removed=len(found.classes_removed),
        drift=round(found.drift, 6),
        most_changed=found.shares[:_MOST_NAMED],
    )


class _Tally:
    """What is counted on the way through two manifests."""

    def __init__(self) -> None:
        self.images: Counter[str] = Counter()
        self.boxes: Counter[str] = Counter()
        self.parent_boxes: Counter[str] = Counter()
        self.added = self.removed = 0

    def count_images(self, ours: ManifestImage | None, parents: ManifestImage | None) -> None:
        if ours is None or parents is None:
            self.images["removed" if ours is None else "added"] += 1
            return
        self.images["kept"] += 1
        self.images["replaced"] += ours.image != parents.image
        self.images["relabelled"] += ours.label != parents.label
        self.images["moved"] += ours.split != parents.split
        self.images["seen_by_parent"] += ours.split == "test" != parents.split

    def count_boxes(self, ours: Counter[str], parents: Counter[str]) -> None:
        self.boxes += ours
        self.parent_boxes += parents
        self.added += (ours - parents).total()
        self.removed += (parents - ours).total()

    def box_changes(self) -> BoxChanges:
        return BoxChanges(
            parent=self.parent_boxes.total(),
            ours=self.boxes.total(),
            added=self.added,
            removed=self.removed,
        )


def _side_by_side(ours: Path, parents: Path) -> Iterator[tuple[ManifestImage | None, ManifestImage | None]]:
    """Yield each name once, with the image of either manifest or None where it has none."""
    left_images, right_images = _in_order(ours), _in_order(parents)
    left, right = next(left_images, None), next(right_images, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left.name < right.name):
            yield left, None
            left = next(left_images, None)
        elif left is None or right.name < left.name:
            yield None, right
            right = next(right_images, None)
        else:
            yield left, right
            left, right = next(left_images, None), next(right_images, None)


def _in_order(path: Path) -> Iterator[ManifestImage]:
    before = ""
    for image in read_images(path):
        if image.name <= before:
            raise DataError(f"{path.name} is not in the order of names: {image.name!r} follows {before!r}")
        before = image.name
        yield image


def _by_name(image: ManifestImage | None, names: Mapping[int, str]) -> Counter[str]:
    boxes = {} if image is None else image.boxes
    return Counter({names.get(class_id, f"unused-{class_id}"): count for class_id, count in boxes.items()})


def _only(of: ClassMap, other: ClassMap) -> tuple[str, ...]:
    known = set(other.names_by_id.values())
    return tuple(name for name in of.names_by_id.values() if name not in known)


def _compare(parents: Counter[str], ours: Counter[str]) -> tuple[float, tuple[ClassShare, ...]]:
    """Return the drift, and the shares of all classes that have boxes in either."""
    before, after = parents.total() or 1, ours.total() or 1
    shares = [
        ClassShare(
            name=name,
            parent_boxes=parents[name],
            boxes=ours[name],
            parent_share=parents[name] / before,
            share=ours[name] / after,
        )
        for name in sorted(parents.keys() | ours.keys())
    ]
    shares.sort(key=lambda share: -abs(share.share - share.parent_share))
    if not parents or not ours:
        return float(bool(parents) != bool(ours)), tuple(shares)
    middle = {share.name: (share.share + share.parent_share) / 2 for share in shares}
    divergence = sum(
        part * math.log2(part / middle[share.name]) / 2
        for share in shares
        for part in (share.share, share.parent_share)
        if part > 0
    )
    return min(max(divergence, 0.0), 1.0), tuple(shares)
