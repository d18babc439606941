"""Near-duplicates: images that look the same though their bytes differ, found without comparing all pairs.

Each image is known by its look, the whole of it in 9 x 8 grey pixels. Where brightness rises and falls
between neighbours gives 64 bits (a difference hash). Looks whose bits differ in at most three places share at
least three of six bands of bits: for every choice of three bands, those with the same bits in them are put
side by side and compared. A pair whose grey pixels are then the same but for little is a near-duplicate.

What is nearly uniform (sky, water, darkness) says too little of itself and is not judged.
"""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

_COLUMNS, _ROWS = 9, 8
_MARGIN = 2  # levels of grey; less is noise of the encoder
_MIN_EDGES = 8  # of the 64 differences, those that must say something
_MOST_BITS = 3
_BAND_BOUNDS = (0, 11, 22, 33, 44, 54, 64)
_ALL_BITS = np.uint64(2**64 - 1)
_NEXT_OF_THE_SAME = 8  # by brightness: a chain joins them all
_SPEAKERS = 4
_MOST_NEIGHBOURS = 64  # compared with each image among those with the same bits in three bands
_MOST_DIFFERENCE = 2.5  # mean over the grey pixels, brightness of the whole set aside
_MOST_BRIGHTNESS = 16.0


def find_lookalikes(looks: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return pairs of rows that look alike; the rows are looks."""
    hashes, judged = _hash_looks(looks)
    order = judged[np.lexsort((looks[judged].sum(axis=1), hashes[judged]))]
    pairs = [_compare(looks, hashes, order, _ALL_BITS, _NEXT_OF_THE_SAME)]
    # Many may have the very same bits; a few of them stand for all when others are compared with them.
    few = order[_positions_in_runs(hashes[order]) < _SPEAKERS]
    pairs += [_compare(looks, hashes, few, mask, _MOST_NEIGHBOURS) for mask in _masks()]
    return np.unique(np.concatenate(pairs), axis=0)


def _positions_in_runs(values: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return how many of the same value come before each one; the values are sorted."""
    positions = np.arange(len(values))
    starts = np.where(np.append(True, values[1:] != values[:-1])[: len(values)], positions, 0)
    return positions - np.maximum.accumulate(starts)


def _hash_looks(looks: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return the bits of every look, and the rows of those that can be judged by them."""
    hashes = np.zeros(len(looks), np.uint64)
    judged = np.zeros(len(looks), bool)
    for start in range(0, len(looks), 8192):
        grid = looks[start : start + 8192].reshape(-1, _ROWS, _COLUMNS).astype(np.int16)
        steps = (grid[:, :, 1:] - grid[:, :, :-1]).reshape(-1, 64)
        bits = np.packbits(steps > _MARGIN, axis=1)
        hashes[start : start + 8192] = bits.view(">u8").reshape(-1)
        judged[start : start + 8192] = (np.abs(steps) > _MARGIN).sum(axis=1) >= _MIN_EDGES
    return hashes, np.flatnonzero(judged)


def _masks() -> list[np.uint64]:
    bands = [(1 << high) - (1 << low) for low, high in pairwise(_BAND_BOUNDS)]
    return [np.uint64(sum(chosen)) for chosen in combinations(bands, len(bands) - _MOST_BITS)]


def _compare(
    looks: NDArray[np.uint8],
    hashes: NDArray[np.uint64],
    order: NDArray[np.int64],
    mask: np.uint64,
    neighbours: int,
) -> NDArray[np.int64]:
    """Return the near-duplicates among those whose masked bits are the same."""
    keys = hashes[order] & mask
    rows = order[np.argsort(keys, kind="stable")]
    keys = hashes[rows] & mask
    found = [np.empty((0, 2), np.int64)]
    for distance in range(1, neighbours + 1):
        near = np.flatnonzero(keys[distance:] == keys[:-distance])
        if not len(near):
            break
        for start in range(0, len(near), 65536):
            left, right = rows[near[start : start + 65536]], rows[near[start : start + 65536] + distance]
            close = np.bitwise_count(hashes[left] ^ hashes[right]) <= _MOST_BITS
            left, right = left[close], right[close]
            alike = _are_alike(looks[left], looks[right])
            found.append(np.sort(np.stack((left[alike], right[alike]), axis=1), axis=1))
    return np.concatenate(found)


def _are_alike(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.bool_]:
    difference = left.astype(np.float32) - right
    brightness = difference.mean(axis=1, keepdims=True)
    spread = np.abs(difference - brightness).mean(axis=1)
    alike: NDArray[np.bool_] = (spread <= _MOST_DIFFERENCE) & (np.abs(brightness[:, 0]) <= _MOST_BRIGHTNESS)
    return alike
