"""Properties of every split."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from trainwright.contract import SplitSettings
from trainwright.errors import DataError
from trainwright_trainer.annotations.splitting import SPLITS, Entry, Split, divide_entries

SHARES = [(70, 20, 10), (34, 33, 33), (98, 1, 1), (1, 1, 98), (60, 15, 25)]
percentages = st.sampled_from(SHARES)
# On a busy machine any of these takes longer than Hypothesis expects.
unhurried = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def entry_lists(draw: st.DrawFn, most: int = 60) -> list[Entry]:
    """Images of a few media; some have the same content as one of another medium, some look like another."""
    count, rng = draw(st.integers(3, most)), random.Random(draw(st.integers(0, 2**32)))
    media, digests = draw(st.integers(3, 30)), draw(st.integers(count, 500))
    return [
        entry(
            f"image-{index}",
            f"media-{rng.randrange(media)}",
            f"digest-{rng.randrange(digests)}",
            rng.randrange(2 * digests),
        )
        for index in range(count)
    ]


def entry(name: str, media: str, digest: str, look: int | None = None, earlier: Split | None = None) -> Entry:
    """Return an entry; two with one number of a look look nearly the same, two with different ones do not."""
    if look is None:
        return Entry(name, media, digest, earlier=earlier)
    pixels = np.random.default_rng(look).integers(0, 250, 72, np.uint8)
    noise = hashlib.sha256(name.encode()).digest()[0] % 3
    return Entry(name, media, digest, (pixels + np.uint8(noise)).tobytes(), earlier)


def singles(numbers: Iterable[int]) -> list[Entry]:
    return [entry(f"image-{index}", f"media-{index}", f"digest-{index}") for index in numbers]


def settings_for(
    shares: tuple[int, int, int] = (70, 20, 10),
    seed: int = 0,
    group_by: str = "media",
    near: str = "Together",
) -> SplitSettings:
    train, valid, test = shares
    return SplitSettings.model_validate(
        {
            "train": train,
            "valid": valid,
            "test": test,
            "seed": seed,
            "groupBy": group_by,
            "nearDuplicates": near,
        }
    )


def number_in(name: str) -> int:
    return int(name.rpartition("-")[2])


def divide(entries: list[Entry], how: SplitSettings) -> dict[str, Split]:
    """Return the split of each name; entries are put in the order that the ledger gives them in."""
    ordered = sorted(entries, key=lambda entry: (number_in(entry.media), number_in(entry.name)))
    division = divide_entries(ordered, how)
    return {entry.name: division.split_of(position) for position, entry in enumerate(ordered)}


@unhurried
@given(entry_lists(), percentages, st.integers(0, 5))
def test_every_split_is_disjoint_by_medium_content_and_look_and_not_empty(
    entries: list[Entry], shares: tuple[int, int, int], seed: int
) -> None:
    try:
        splits = divide(entries, settings_for(shares, seed))
    except DataError:
        assume(False)
    assert splits.keys() == {entry.name for entry in entries}
    assert set(splits.values()) == set(SPLITS)
    looks = {entry.name: np.frombuffer(entry.look, np.uint8).astype(int) for entry in entries}
    for one in entries:
        for other in entries:
            same_look = np.abs(looks[one.name] - looks[other.name]).max() <= 2
            if one.media == other.media or one.image_digest == other.image_digest or same_look:
                assert splits[one.name] == splits[other.name]


@unhurried
@given(entry_lists(), st.integers(0, 5))
def test_images_that_look_the_same_may_be_apart_only_when_that_is_asked_for(
    entries: list[Entry], seed: int
) -> None:
    plain = [Entry(entry.name, entry.media, entry.image_digest) for entry in entries]
    try:
        splits = divide(plain, settings_for(seed=seed))
    except DataError:
        assume(False)
    assert divide(entries, settings_for(seed=seed, near="Apart")) == splits


@unhurried
@given(st.integers(3, 500), percentages, st.integers(0, 3))
def test_splits_of_single_images_have_between_half_and_twice_their_share(
    count: int, shares: tuple[int, int, int], seed: int
) -> None:
    counts = Counter(divide(singles(range(count)), settings_for(shares, seed, "image")).values())
    assert min(counts[split] for split in SPLITS) >= 1
    for split, share in zip(SPLITS[1:], shares[1:], strict=True):
        assert counts[split] >= count * share // 200 or count - counts[split] <= 2
        assert counts[split] <= max(2 * count * share / 100, 1)


@unhurried
@given(st.sampled_from([(70, 20, 10), (60, 15, 25)]), st.integers(0, 3), st.integers(0, 800))
def test_an_image_keeps_its_side_when_images_are_added(
    shares: tuple[int, int, int], seed: int, added: int
) -> None:
    how = settings_for(shares, seed)
    before = divide(singles(range(1000)), how)
    after = divide(singles(range(1000 + added)), how)
    assert {name: after[name] for name in before} == before


@unhurried
@given(entry_lists(40), st.integers(0, 3))
def test_more_frames_of_the_same_media_leave_a_large_set_as_it_is(entries: list[Entry], seed: int) -> None:
    large = singles(range(100, 1100))
    frames = [
        entry(f"frame-{number_in(e.name)}", f"media-{100 + number_in(e.media)}", e.name) for e in entries
    ]
    before = divide(large, settings_for(seed=seed))
    after = divide(large + frames, settings_for(seed=seed))
    assert {name: after[name] for name in before} == before


@unhurried
@given(st.integers(3, 60), st.integers(0, 3))
def test_one_more_image_moves_at_most_one_other_for_each_split_of_a_small_set(count: int, seed: int) -> None:
    before = divide(singles(range(count)), settings_for(seed=seed))
    after = divide(singles(range(count + 1)), settings_for(seed=seed))
    assert sum(after[name] != split for name, split in before.items()) <= 2


def test_when_an_image_joins_two_media_both_are_where_the_first_of_them_was() -> None:
    before = divide(singles(range(400)), settings_for())
    for first, second in [(3, 4), (10, 200), (7, 399)]:
        link = entry("image-1000", f"media-{second}", f"digest-{first}")
        after = divide([*singles(range(400)), link], settings_for())
        assert after[f"image-{first}"] == after[f"image-{second}"] == before[f"image-{first}"]
        assert {name for name in before if after[name] != before[name]} <= {f"image-{second}"}


@unhurried
@given(entry_lists(), st.data())
def test_images_of_an_earlier_dataset_stay_where_they_were(entries: list[Entry], data: st.DataObject) -> None:
    sides: dict[str, Split] = {f"media-{media}": data.draw(st.sampled_from(SPLITS)) for media in range(30)}
    known = [
        Entry(e.name, e.media, e.name, earlier=sides[e.media] if number_in(e.name) % 2 else None)
        for e in entries
    ]
    try:
        splits = divide(known, settings_for())
    except DataError:
        assume(False)
    assert all(splits[e.name] == e.earlier for e in known if e.earlier is not None)


def test_a_split_that_an_earlier_dataset_leaves_nothing_for_is_an_error() -> None:
    entries = [entry(f"image-{n}", f"media-{n}", f"digest-{n}", earlier="train") for n in range(9)]
    with pytest.raises(DataError, match="nothing is left for valid, test"):
        divide(entries, settings_for())


def test_a_medium_that_is_most_of_the_set_is_trained_on() -> None:
    for seed in range(20):
        long = [entry(f"image-{n}", "media-0", f"frame-{n}") for n in range(100, 150)]
        splits = divide([*singles(range(1, 12)), *long], settings_for(seed=seed))
        assert splits["image-100"] == "train"


def test_another_seed_gives_another_split() -> None:
    first, second = (divide(singles(range(40)), settings_for(seed=seed)) for seed in (0, 1))
    assert first != second


def test_too_few_media_are_refused_with_the_remedy() -> None:
    entries = [entry(f"belt-{index}", "belt-0", f"digest-{index}") for index in range(100)]
    with pytest.raises(DataError, match="100 images form 1 groups") as refused:
        divide(entries, SplitSettings())
    assert "groupBy: image" in refused.value.hint
