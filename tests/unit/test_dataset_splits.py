"""Properties of every split."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from trainwright.contract import SplitSettings
from trainwright.errors import DataError
from trainwright_trainer.annotations.splitting import SPLITS, Entry, split_entries

percentages = st.sampled_from([(70, 20, 10), (34, 33, 33), (98, 1, 1), (1, 1, 98), (60, 15, 25)])


@st.composite
def entry_lists(draw: st.DrawFn) -> list[Entry]:
    """Images of a few media; some have the same content as one of another medium."""
    count = draw(st.integers(3, 60))
    return [
        Entry(f"image-{index}", f"media-{draw(st.integers(0, 12))}", f"digest-{draw(st.integers(0, 50))}")
        for index in range(count)
    ]


def settings_for(shares: tuple[int, int, int], seed: int = 0, group_by: str = "media") -> SplitSettings:
    train, valid, test = shares
    return SplitSettings.model_validate(
        {"train": train, "valid": valid, "test": test, "seed": seed, "groupBy": group_by}
    )


@given(entry_lists(), percentages, st.integers(0, 5))
def test_every_split_is_whole_disjoint_by_medium_and_content_and_not_empty(
    entries: list[Entry], shares: tuple[int, int, int], seed: int
) -> None:
    try:
        splits = split_entries(entries, settings_for(shares, seed))
    except DataError:
        assume(False)
    assert splits.keys() == {entry.name for entry in entries}
    assert set(splits.values()) == set(SPLITS)
    for attribute in ("media", "image_digest"):
        sides: dict[str, set[str]] = {}
        for entry in entries:
            sides.setdefault(getattr(entry, attribute), set()).add(splits[entry.name])
        assert all(len(side) == 1 for side in sides.values())


@given(entry_lists(), st.integers(0, 2**32))
def test_the_order_of_the_annotations_does_not_matter(entries: list[Entry], shuffle: int) -> None:
    shuffled = list(entries)
    random.Random(shuffle).shuffle(shuffled)
    try:
        splits = split_entries(entries, settings_for((70, 20, 10)))
    except DataError:
        assume(False)
    assert split_entries(shuffled, settings_for((70, 20, 10))) == splits


@given(st.integers(3, 500), percentages)
def test_counts_of_single_images_are_within_one_of_the_percentages(
    count: int, shares: tuple[int, int, int]
) -> None:
    entries = [Entry(f"frame_{index}", "one", f"digest-{index}") for index in range(count)]
    counts = Counter(split_entries(entries, settings_for(shares, group_by="image")).values())
    for split, share in zip(SPLITS, shares, strict=True):
        assert abs(counts[split] - count * share / 100) <= 2 or counts[split] == 1
    assert min(counts[split] for split in SPLITS) >= 1


def test_another_seed_gives_another_split() -> None:
    entries = [Entry(f"image-{index}", f"media-{index}", f"digest-{index}") for index in range(40)]
    first, second = (split_entries(entries, settings_for((70, 20, 10), seed)) for seed in (0, 1))
    assert first != second


def test_too_few_media_are_refused_with_the_remedy() -> None:
    entries = [Entry(f"belt_{index}", "belt", f"digest-{index}") for index in range(100)]
    with pytest.raises(DataError, match="100 images form 1 groups") as refused:
        split_entries(entries, SplitSettings())
    assert "groupBy: image" in refused.value.hint
