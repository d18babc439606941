"""The split of a dataset: the same items and seed always give the same one, and no medium is on two sides."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from trainwright.contract import SplitSettings
from trainwright.errors import DataError

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")


@dataclass(frozen=True)
class Entry:
    """What the split needs to know of an image: its name, its medium, and its content."""

    name: str
    media: str
    image_digest: str


def split_entries(entries: Sequence[Entry], settings: SplitSettings) -> dict[str, Split]:
    """Return the split of each name; counts follow the percentages as far as groups allow, none is empty."""
    groups = _group_entries(entries, by_media=settings.group_by == "media")
    if len(groups) < len(SPLITS):
        raise DataError(
            f"{len(entries)} images form {len(groups)} groups that must not be divided, but a split needs 3",
            hint="Add annotations, or set dataset.split.groupBy: image if they are not frames of a medium.",
        )
    return _assign_groups(_order_groups(groups, settings.seed), len(entries), settings)


def _group_entries(entries: Sequence[Entry], *, by_media: bool) -> list[list[Entry]]:
    """Unite what shares a medium, and what is the same image under two names."""
    root: dict[str, str] = {}

    def find(key: str) -> str:
        while root.setdefault(key, key) != key:
            root[key] = key = root[root[key]]
        return key

    for entry in entries:
        group = f"media:{entry.media}" if by_media else f"name:{entry.name}"
        root[find(group)] = find(f"image:{entry.image_digest}")
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[find(f"image:{entry.image_digest}")].append(entry)
    return list(groups.values())


def _order_groups(groups: Sequence[list[Entry]], seed: int) -> list[list[Entry]]:
    """Return the largest first, as they are hardest to place; the seed draws the order of equal ones."""

    def draw(group: list[Entry]) -> str:
        content = min(entry.image_digest for entry in group)
        return hashlib.sha256(f"{seed}/{content}".encode()).hexdigest()

    return sorted(groups, key=lambda group: (-len(group), draw(group)))


def _assign_groups(groups: Sequence[list[Entry]], total: int, settings: SplitSettings) -> dict[str, Split]:
    missing: dict[Split, float] = {
        "train": settings.train * total / 100,
        "valid": settings.valid * total / 100,
        "test": settings.test * total / 100,
    }
    empty: set[Split] = set(SPLITS)
    assigned: dict[str, Split] = {}
    for position, group in enumerate(groups):
        must_fill = len(groups) - position <= len(empty)
        split = _most_wanting(missing, empty if must_fill else set(SPLITS))
        missing[split] -= len(group)
        empty.discard(split)
        assigned.update({entry.name: split for entry in group})
    return assigned


def _most_wanting(missing: Mapping[Split, float], candidates: set[Split]) -> Split:
    return max((split for split in SPLITS if split in candidates), key=lambda split: missing[split])
