"""`dataset` of a plan: where annotations are, and how a dataset is made of them."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from trainwright.contract.augmentation import AugmentationSettings
from trainwright.contract.classes import MOST_SLOTS, ClassMap, ClassVariant
from trainwright.contract.words import Contract


class FolderSource(Contract):
    """A tree of annotations, as a path below the data folder of the execution."""

    path: str = "."


class SampleSource(Contract):
    """Generated shapes; image i of seed s is always the same, and no two indexes share a seed."""

    images: int = Field(default=320, ge=10)
    image_size: int = Field(default=160, ge=32, le=2048)
    seed: int = Field(default=0, ge=0)


class DatasetSource(Contract):
    """Where annotations come from: exactly one member is set."""

    folder: FolderSource | None = None
    sample: SampleSource | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.folder is None) == (self.sample is None):
            raise ValueError("set exactly one of folder, sample")
        return self


class Directories(Contract):
    """The three trees below the source's root."""

    data: str = "data"
    seed: str = "data-seed"
    deleted: str = "data_deleted"

    def __str__(self) -> str:
        return f"{self.data}, {self.seed}, {self.deleted}"


class ClassesSettings(Contract):
    """The class map: names in the order of their ids, a whole map, or else a file of the source.

    `variants` and `slots` hold for any of them, and replace those that a map has.
    """

    inline: tuple[str, ...] | None = None
    map: ClassMap | None = None
    from_source: str | None = "classes.json"
    variants: tuple[ClassVariant, ...] | None = None
    slots: int | None = Field(default=None, ge=1, le=MOST_SLOTS)

    @property
    def given(self) -> ClassMap | None:
        """The class map, unless a file of the source has it."""
        if self.inline is not None:
            return ClassMap.of_names(self.inline, self.variants or (), self.slots)
        return self.map and self.map.replace_layout(self.variants, self.slots)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _ = self.given  # its own rules
        return self


class SplitSettings(Contract):
    """Percentages of the split, their seed, and what may never be on both sides of it."""

    train: int = Field(default=70, ge=1, le=100)
    valid: int = Field(default=20, ge=1, le=100)
    test: int = Field(default=10, ge=1, le=100)
    seed: int = 0
    group_by: Literal["media", "image"] = "media"
    near_duplicates: Literal["Together", "Apart"] = "Together"

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.train + self.valid + self.test != 100:
            raise ValueError(f"train + valid + test is {self.train + self.valid + self.test}, not 100")
        return self


class AnnotationStream(Contract):
    """A stream of RabbitMQ that the source's trees are brought up to date from, before they are read."""

    host: str
    port: int | None = Field(default=None, ge=1, le=65535)
    stream: str
    tls: bool = True

    @property
    def listening_port(self) -> int:
        """The port, or else the usual one of RabbitMQ's stream plug-in."""
        return self.port or (5551 if self.tls else 5552)


LabelFormat = Literal["Auto", "Yolo", "YoloObb", "PascalVoc", "Coco"]


class DatasetSettings(Contract):
    """How the dataset is built from the annotations."""

    source: DatasetSource
    format: LabelFormat = "Auto"
    directories: Directories = Directories()
    annotation_stream: AnnotationStream | None = None
    classes: ClassesSettings = ClassesSettings()
    include_seed: bool = False
    split: SplitSettings = SplitSettings()
    augmentation: AugmentationSettings = AugmentationSettings()
    max_corrupt_percent: float = Field(default=5, ge=0, le=100)
    allow_empty_classes: bool = False
    allow_missing_labels: bool = False

    @model_validator(mode="after")
    def _has_trees(self) -> Self:
        if self.annotation_stream is not None and self.source.folder is None:
            raise ValueError(
                "annotationStream needs a source with trees to be read into: set"
                " spec.dataset.source.persistentVolumeClaim, or in a plan dataset.source.folder"
            )
        return self
