"""The split of a dataset: the same annotations and seed always give the same one, and it lasts.

What must not be divided is a family: the frames of one medium, the same image under several names, images
that look the same, and whatever these join. Each family has a number between 0 and 1, drawn by the seed from
the name of its first medium (belt_9 before belt_10), and that number decides: nothing is counted, so a family
stays where it is whatever else is added.

Three things can move a family all the same, and are why a split is whole and sensible for small sets too:

- A split that would get less than half of its share takes the families whose numbers are nearest, one with
  more than twice its share gives some away. Beyond a few hundred families neither happens.
- A family larger than twice the share of a split is not put there.
- When an image joins two families, both go where the one with the first name is.

An earlier dataset that is given prevents the moves: its images stay on their sides.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trainwright.contract import SplitSettings
from trainwright.errors import DataError
from trainwright_trainer.annotations.looks import find_lookalikes

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
_NONE = -1
_PAIRS_AT_ONCE = 65536  # as Python numbers they take much more memory


@dataclass(frozen=True)
class Entry:
    """What the split needs of an image: name, medium, content, look, and its side in an earlier dataset."""

    name: str
    media: str
    image_digest: str
    look: bytes = b""
    earlier: Split | None = None


@dataclass(frozen=True)
class Division:
    """The split and the number of the family of every entry, in the entries' order."""

    sides: NDArray[np.int8]
    families: NDArray[np.int64]

    def split_of(self, position: int) -> Split:
        """Return the split of the entry at this position."""
        return SPLITS[int(self.sides[position])]


@dataclass
class _Families:
    """What counts of every family: its number, how many images it has, and the side it had."""

    numbers: NDArray[np.float64]
    sizes: NDArray[np.int64]
    sides: NDArray[np.int8]


def divide_entries(entries: Iterable[Entry], settings: SplitSettings) -> Division:
    """Return which split each entry belongs to; none is empty.

    Entries come in the order of their media, then of their names. A few bytes are kept of each.
    """
    units, contents, looks, earlier = _gather(entries, settings)
    joined = [_same(units), _same(contents)]
    if settings.near_duplicates == "Together":
        joined.append(find_lookalikes(looks))
    firsts, family_of = np.unique(_join(len(units), joined), return_inverse=True)
    families = _Families(
        # The first of a family is the one with the first name: the entries came in this order.
        numbers=units[firsts] / 2.0**64,
        sizes=np.bincount(family_of, minlength=len(firsts)),
        sides=_earlier_sides(family_of, earlier, len(firsts)),
    )
    if len(firsts) < len(SPLITS):
        raise DataError(
            f"{len(units)} images form {len(firsts)} groups that must not be divided, but a split needs 3",
            hint="Add annotations; or set dataset.split.groupBy: image if they are not frames of a medium,"
            " and nearDuplicates: Apart if images that look the same may be on different sides.",
        )
    _assign(families, settings)
    return Division(families.sides[family_of], family_of.astype(np.int64))


def _gather(
    entries: Iterable[Entry], settings: SplitSettings
) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint8], NDArray[np.int8]]:
    """Return four columns: the numbers drawn for what may not be divided, contents, looks, earlier sides."""
    units, contents, looks, earlier = array("Q"), array("Q"), bytearray(), array("b")
    for entry in entries:
        unit = entry.media if settings.group_by == "media" else entry.image_digest
        units.append(_draw(f"{settings.seed}/{unit}"))
        contents.append(_draw(entry.image_digest))
        looks += entry.look or bytes(72)
        earlier.append(_NONE if entry.earlier is None else SPLITS.index(entry.earlier))
    return (
        np.frombuffer(units, np.uint64),
        np.frombuffer(contents, np.uint64),
        np.frombuffer(looks, np.uint8).reshape(-1, 72),
        np.frombuffer(earlier, np.int8),
    )


def _draw(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _same(values: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return pairs that join all positions of each value."""
    order = np.argsort(values, kind="stable")
    equal = np.flatnonzero(values[order][1:] == values[order][:-1])
    return np.stack((order[equal], order[equal + 1]), axis=1)


def _join(count: int, joined: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return for each position the first one that pairs lead to, directly or through others."""
    root = list(range(count))

    def find(position: int) -> int:
        while root[position] != position:
            root[position] = position = root[root[position]]
        return position

    for pairs in joined:
        for start in range(0, len(pairs), _PAIRS_AT_ONCE):
            for left, right in pairs[start : start + _PAIRS_AT_ONCE].tolist():
                first, second = sorted((find(left), find(right)))
                root[second] = first
    return np.array([find(position) for position in range(count)], np.int64)


def _earlier_sides(family_of: NDArray[np.int64], earlier: NDArray[np.int8], count: int) -> NDArray[np.int8]:
    """Return the side that the first image of each family with one had."""
    sides = np.full(count, _NONE, np.int8)
    known = np.flatnonzero(earlier != _NONE)[::-1]  # the last write, that of the first image, counts
    sides[family_of[known]] = earlier[known]
    return sides


def _assign(families: _Families, settings: SplitSettings) -> None:
    """Give every family without a side one: test and valid by their parts of the numbers, train the rest."""
    test, valid = settings.test / 100, settings.valid / 100
    _fill(families, "test", bound=test, share=test, later=("valid", "train"))
    _fill(families, "valid", bound=test + valid, share=valid, later=("train",))
    families.sides[families.sides == _NONE] = SPLITS.index("train")
    if empty := [split for split in SPLITS if not _count(families, split)]:
        raise DataError(
            f"nothing is left for {', '.join(empty)}: all images were on other sides in the parent's dataset",
            hint="Add annotations, or train without a parent.",
        )


def _fill(families: _Families, split: Split, *, bound: float, share: float, later: Sequence[Split]) -> None:
    """Give a split the free families below the bound, fewer or more where that is far from its share."""
    wanted, had = share * families.sizes.sum(), _count(families, split)
    free = np.flatnonzero(families.sides == _NONE)
    if not len(free):
        return
    free = free[np.lexsort((free, families.numbers[free]))]
    fitting = free[families.sizes[free] <= max(2 * wanted, families.sizes[free].min())]
    sums = had + np.cumsum(families.sizes[fitting])
    count = int(np.searchsorted(families.numbers[fitting], bound))
    count = min(count, int(np.searchsorted(sums, 2 * wanted, side="right")))
    if had < wanted / 2:
        count = max(count, int(np.searchsorted(sums, wanted / 2)) + 1)
    needed = sum(not _count(families, other) for other in later)
    count = max(min(count, len(free) - needed), 0)
    families.sides[fitting[:count]] = SPLITS.index(split)


def _count(families: _Families, split: Split) -> int:
    """Return how many images a split has so far."""
    return int(families.sizes[families.sides == SPLITS.index(split)].sum())
