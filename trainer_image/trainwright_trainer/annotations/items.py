"""One annotated image on its way into a dataset, and the names of the rules it must obey."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from trainwright.contract import ClassMap, DatasetSettings

LOOK_SIZE = (9, 8)  # columns and rows of the small grey picture that near-duplicates are known by

_FRAME_SUFFIX = re.compile(r"[_-](?:f(?:rame)?[_-]?)?\d+$", re.IGNORECASE)


class Rule(StrEnum):
    """What an annotation was left out for; docs/datasets.md explains each of them."""

    IMAGE_MISSING = "ImageMissing"
    IMAGE_AMBIGUOUS = "ImageAmbiguous"
    IMAGE_EMPTY = "ImageEmpty"
    IMAGE_FORMAT = "ImageFormat"
    IMAGE_DAMAGED = "ImageDamaged"
    IMAGE_ANIMATED = "ImageAnimated"
    IMAGE_TOO_SMALL = "ImageTooSmall"
    IMAGE_TOO_LARGE = "ImageTooLarge"
    LABEL_MISSING = "LabelMissing"
    LABEL_ENCODING = "LabelEncoding"
    LABEL_TOO_LARGE = "LabelTooLarge"
    LABEL_COLUMNS = "LabelColumns"
    LABEL_NUMBER = "LabelNumber"
    LABEL_RANGE = "LabelRange"
    LABEL_AREA = "LabelArea"
    LABEL_CLASS = "LabelClass"
    LABEL_FORMAT = "LabelFormat"
    LABEL_OF_ANOTHER_SIZE = "LabelOfAnotherSize"
    NAME = "Name"
    NAME_TWICE = "NameTwice"
    UNREADABLE = "Unreadable"
    CRASH = "Crash"
    NOT_A_FILE = "NotAFile"
    OUTSIDE_THE_SOURCE = "OutsideTheSource"


class Repair(StrEnum):
    """What was put right in the dataset's own copy of an annotation, so that it could stay in."""

    BOX_CLIPPED = "BoxClipped"
    DUPLICATE_DROPPED = "DuplicateDropped"
    IMAGE_RENAMED = "ImageRenamed"
    IMAGE_TRIMMED = "ImageTrimmed"
    IMAGE_TURNED = "ImageTurned"
    IMAGE_CONVERTED = "ImageConverted"
    BACKGROUND_ASSUMED = "BackgroundAssumed"
    CROWD_DROPPED = "CrowdDropped"


class UnfitError(Exception):
    """An image or a label breaks a rule; the text is the reason in the quarantine report."""

    def __init__(self, rule: Rule, reason: str) -> None:
        super().__init__(rule, reason)
        self.rule = rule
        self.reason = reason

    def __str__(self) -> str:
        """Return the reason."""
        return self.reason


@dataclass(frozen=True)
class Rules:
    """What an annotation must obey beyond being well-formed."""

    class_ids: frozenset[int]
    class_names: Mapping[str, int] = field(default_factory=dict)
    """Class ids by name, without capitals: labels of other formats than YOLO's name their classes."""
    allow_missing_labels: bool = False

    @classmethod
    def of(cls, classes: ClassMap, settings: DatasetSettings) -> Rules:
        """Return the rules for annotations of these classes."""
        named = sorted(classes.names_by_id.items(), reverse=True)
        return cls(
            class_ids=frozenset(classes.names_by_id),
            class_names={name.casefold(): class_id for class_id, name in named},
            allow_missing_labels=settings.allow_missing_labels,
        )


@dataclass(frozen=True)
class Picture:
    """A fully decodable image: our own bytes of it, and what its pixels told while they were at hand.

    Whoever reads the bytes sees the same upright picture of eight bits a channel. `suffix` is that of its
    content, whatever its file was called.
    """

    data: bytes
    suffix: str
    width: int
    height: int
    look: bytes  # the whole of it in `LOOK_SIZE` grey pixels
    repairs: tuple[Repair, ...] = ()


@dataclass(frozen=True)
class Label:
    """The boxes of an image as lines of `class x y width height`, centre and size in parts of the image."""

    text: str
    repairs: tuple[Repair, ...] = ()


@dataclass(frozen=True)
class Item:
    """An annotation that obeys the rules: its image, and its label lines."""

    name: str
    suffix: str
    media: str
    image: Picture
    label: str
    repairs: tuple[Repair, ...] = ()


def make_item(name: str, picture: Picture, label: Label) -> Item:
    """Return the item of a checked image and its checked label."""
    return Item(
        name=name,
        suffix=picture.suffix,
        media=media_of(name),
        image=picture,
        label=label.text,
        repairs=picture.repairs + label.repairs,
    )


def media_of(name: str) -> str:
    """Return the medium of a frame: its name without one trailing `_123`, `-123` or `_frame_123`."""
    return _FRAME_SUFFIX.sub("", name) or name
