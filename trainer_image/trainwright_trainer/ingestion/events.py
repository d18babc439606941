"""What happens to an annotation, and what all of it together makes of its files. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from functools import cached_property
from typing import NamedTuple


class Status(IntEnum):
    """What the platform says of an annotation, by the numbers that it uses."""

    CREATED = 10
    EDITED = 20
    VALIDATED = 30
    DELETED = 40


class Tree(StrEnum):
    """The trees that an annotation can be in."""

    VALIDATED = "validated"
    SEED = "seed"
    DELETED = "deleted"


ADOPTED = "adopted"
"""Stands for the content of an image that was in a tree before there was a ledger."""


@dataclass(frozen=True)
class Event:
    """One thing that happened to one name; `at` is microseconds since 1970.

    `labels` are YOLO lines; None, where the status tells of none. `image` is the digest of the image that
    came with it. `date` is when it happened by a clock that was ahead of the broker's: then `at` is its time.
    """

    name: str
    at: int
    status: Status
    validated: bool = False  # whether whoever did it may validate
    labels: str | None = None
    image: str | None = None
    suffix: str = ""
    date: int | None = None

    @cached_property
    def key(self) -> bytes:
        """The same for the same event, however often it comes."""
        when = self.at if self.date is None else self.date
        parts = (when, int(self.status), self.validated, self.labels, self.image, self.suffix)
        return hashlib.blake2b(repr(parts).encode(), digest_size=12).digest()


class Placement(NamedTuple):
    """Where the files of a name belong, and what is in them; without an image there are none yet.

    `labels` is None where they are what an earlier consumer wrote. `unreviewed` are those of an edit that
    nobody has validated, of an annotation that is.
    """

    tree: Tree | None = None
    image: str | None = None
    suffix: str = ""
    labels: str | None = None
    unreviewed: str | None = None

    @property
    def has_files(self) -> bool:
        """Whether there is anything to be written: a name without an image is parked until that comes."""
        return self.image is not None


NOWHERE = Placement()


def settle(events: Iterable[Event]) -> Placement:
    """Return what all events of one name make of it: the same in whatever order they are given."""
    placement = NOWHERE
    for event in sorted(events, key=lambda event: (event.at, event.status, event.key)):
        placement = _RULES[event.status](placement, event)
    return placement


def _create(placement: Placement, event: Event) -> Placement:
    """A new image is a new annotation; the same image again is an edit."""
    if placement.image in {event.image, ADOPTED}:
        return _edit(placement._replace(image=event.image, suffix=event.suffix), event)
    if placement.image is None and placement.tree in {Tree.VALIDATED, Tree.DELETED}:
        # It was judged by a clock that runs ahead of the one it was made by.
        return placement._replace(
            image=event.image,
            suffix=event.suffix,
            labels=event.labels if placement.labels is None else placement.labels,
        )
    tree = Tree.VALIDATED if event.validated else Tree.SEED
    return Placement(tree, event.image, event.suffix, event.labels)


def _edit(placement: Placement, event: Event) -> Placement:
    """A validator's edit validates; anybody else's of what is validated waits for a validator."""
    if placement.tree is Tree.DELETED:
        return placement._replace(labels=event.labels, unreviewed=None)
    if event.validated:
        return placement._replace(tree=Tree.VALIDATED, labels=event.labels, unreviewed=None)
    if placement.tree is Tree.VALIDATED:
        return placement._replace(unreviewed=event.labels)
    return placement._replace(tree=Tree.SEED, labels=event.labels)


def _validate(placement: Placement, _event: Event) -> Placement:
    if placement.tree is Tree.DELETED:
        return placement
    labels = placement.labels if placement.unreviewed is None else placement.unreviewed
    return placement._replace(tree=Tree.VALIDATED, labels=labels, unreviewed=None)


def _delete(placement: Placement, _event: Event) -> Placement:
    return placement._replace(tree=Tree.DELETED)


_RULES = {
    Status.CREATED: _create,
    Status.EDITED: _edit,
    Status.VALIDATED: _validate,
    Status.DELETED: _delete,
}
