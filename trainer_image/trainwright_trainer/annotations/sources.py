"""What every kind of source offers to the build: its classes, and its annotations one after the other.

A source lists candidates without opening an image; the build reads each of them once, in processes beside
each other. So a candidate is small, can be pickled, and knows where its files are; what it was made from is
never written to.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from trainwright.contract import ClassMap
from trainwright_trainer.annotations.items import Item, Rules


class Candidate(Protocol):
    """One annotation of a source that has not been read yet."""

    @property
    def name(self) -> str:
        """What image and label are called in the dataset, without suffix; unique within a source."""

    @property
    def stamp(self) -> str:
        """Sizes, times and inodes of its files: with the same stamp it is not read again.

        Empty where nothing can be said without reading.
        """

    def read(self, rules: Rules) -> Item:
        """Return the checked item, decoding its image once; raise `UnfitError` where it breaks a rule."""


class Source(Protocol):
    """Where annotations come from, opened: what is wrong with the whole of it has been said by now."""

    @property
    def stamp(self) -> str:
        """What tells that nothing of it has changed, without reading; empty where that can't be said."""

    @property
    def classes(self) -> ClassMap:
        """What each class id that a label may have means."""

    def candidates(self, scratch: Path) -> Iterator[Candidate]:
        """Yield every annotation once, in any order.

        `scratch` is an empty folder for what would otherwise fill the memory: 360,000 names must not.
        """
