"""`spec.dataset`: where the annotations are and how a dataset is made of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainwright import contract
from trainwright_operator.api.augmentation import Augmentation
from trainwright_operator.api.references import ConfigMapKey
from trainwright_operator.api.section import (
    ObjectName,
    RelativePath,
    Rule,
    Section,
    at_most_one_of,
    built_in_of,
    one_of,
)

_HOST = r"^[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)*$"
_INSIDE = r"!self.startsWith('/') && !self.split('/').exists(part, part == '..')"


class ClaimSource(Section):
    """A tree of images and labels on a volume. It is mounted read-only, but for an annotationStream."""

    claim_name: ObjectName = Field(description="Name of the PersistentVolumeClaim, in the run's namespace.")
    path: RelativePath | None = Field(
        default=None,
        description="Folder on the volume below which the directories are found; it may start with '/'."
        " Default: the volume's root.",
    )

    rules = (
        Rule(
            "!has(self.path) || !self.path.split('/').exists(part, part == '..')",
            "spec.dataset.source.persistentVolumeClaim.path must not contain '..'",
        ),
    )


class SampleSource(Section):
    """Generated shapes with labels, for demonstrations and smoke tests; nothing is read."""

    built_in = built_in_of(contract.SampleSource)

    images: int | None = Field(default=None, ge=10, le=100_000, description="How many images are generated.")
    image_size: int | None = Field(
        default=None, ge=32, le=2048, description="Width and height of the images, in pixels."
    )
    seed: int | None = Field(
        default=None, ge=0, le=2**31 - 1, description="The same seed always gives the same images."
    )


class Source(Section):
    """Where the annotations come from. Set exactly one of its fields."""

    persistent_volume_claim: ClaimSource | None = None
    sample: SampleSource | None = None

    rules = (
        Rule(
            one_of("persistentVolumeClaim", "sample"),
            "spec.dataset.source must have exactly one of persistentVolumeClaim, sample",
        ),
    )


class Directories(Section):
    """Folders below the source's path, each with images/ and labels/."""

    built_in = built_in_of(contract.Directories)

    data: RelativePath | None = Field(
        default=None, description="Folder of the validated annotations: what is trained on."
    )
    seed: RelativePath | None = Field(
        default=None,
        description="Folder of the annotations nobody has validated yet; used only with includeSeed.",
    )
    deleted: RelativePath | None = Field(
        default=None, description="Folder of the annotations that were taken out; never used."
    )

    rules = tuple(
        Rule(
            f"!has(self.{name}) || ({_INSIDE.replace('self', f'self.{name}')})",
            f"spec.dataset.directories.{name} must be a folder below the source's path:"
            " it must not start with '/' nor contain '..'",
        )
        for name in ("data", "seed", "deleted")
    )


ClassName = Annotated[str, Field(min_length=1, max_length=contract.LONGEST_CLASS_NAME)]


class ClassVariant(Section):
    """One more form of every class, as a season or a mode of the camera: its ids are the classes', moved."""

    name: ClassName = Field(description="Stands behind the class in its name, as in: bolt (wet).")
    offset: int = Field(
        ge=1,
        le=contract.MOST_SLOTS - 1,
        description="What is added to a class's id: with 20, class 3 is 23 in this form.",
    )


class Classes(Section):
    """The classes of the labels. Set at most one of configMapKeyRef, inline, fromSource.

    Default: the source's classes.json.
    """

    config_map_key_ref: ConfigMapKey | None = Field(
        default=None,
        description="The class map is a key of a ConfigMap, in any form that a class file may have: a"
        " JSON or YAML list of names, or of objects with Id, Name, ShortName and Color.",
    )
    inline: tuple[ClassName, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=256,
        description="The names of the classes: the first one is number 0 in the labels.",
    )
    from_source: RelativePath | None = Field(
        default=None,
        description="The class map is a file of the source: a JSON or YAML list of names, or of objects with"
        " Id, Name, ShortName and Color. Default: classes.json.",
    )
    variants: tuple[ClassVariant, ...] | None = Field(
        default=None,
        max_length=64,
        description="Further forms of every class, with ids of their own."
        " They replace those of the class map.",
    )
    slots: int | None = Field(
        default=None,
        ge=1,
        le=contract.MOST_SLOTS,
        description="How many classes the model counts; those beyond the map are free for classes to come."
        " Default: as many as the map has.",
    )

    rules = (
        Rule(
            at_most_one_of("configMapKeyRef", "inline", "fromSource"),
            "spec.dataset.classes must have at most one of configMapKeyRef, inline, fromSource",
        ),
        Rule(
            f"!has(self.fromSource) || ({_INSIDE.replace('self', 'self.fromSource')})",
            "spec.dataset.classes.fromSource must be a file below the source's path:"
            " it must not start with '/' nor contain '..'",
        ),
    )


class Split(Section):
    """How the images are divided into training, validation and test. The three percentages sum to 100."""

    built_in = built_in_of(contract.SplitSettings)

    train: int | None = Field(default=None, ge=1, le=98, description="Percent of the images to train on.")
    valid: int | None = Field(
        default=None, ge=1, le=98, description="Percent of the images that choose the best epoch."
    )
    test: int | None = Field(
        default=None,
        ge=1,
        le=98,
        description="Percent of the images the finished model is measured on; nothing else sees them.",
    )
    seed: int | None = Field(
        default=None, ge=0, le=2**31 - 1, description="The same seed divides the same images alike."
    )
    group_by: Literal["media", "image"] | None = Field(
        default=None,
        description="What never lies on both sides of a split: media keeps all frames of one medium together,"
        " image divides them freely.",
    )
    near_duplicates: Literal["Together", "Apart"] | None = Field(
        default=None,
        description="Whether images that look nearly the same stay on one side of a split, with all that is"
        " kept together with them: a model must not be measured on what it was trained on. Images that are"
        " the same byte for byte always do.",
    )

    rules = (
        Rule(
            "has(self.train) && has(self.valid) && has(self.test)"
            " ? self.train + self.valid + self.test == 100"
            " : (has(self.train) ? self.train : 1) + (has(self.valid) ? self.valid : 1)"
            " + (has(self.test) ? self.test : 1) <= 100",
            "spec.dataset.split: train + valid + test must be 100, each of them at least 1",
        ),
    )


class StreamSecret(Section):
    """The Secret with the account that reads the stream."""

    secret_name: ObjectName = Field(
        description="Name of a Secret with the keys RABBITMQ_USER and RABBITMQ_PASSWORD, and ca.crt where the"
        " broker's certificate is not publicly trusted. It needs the label trainwright.dev/use: stream."
    )


class AnnotationStream(Section):
    """A stream of RabbitMQ that tells of annotations. The claim is brought up to where the stream ends now,
    before the dataset is built; so it is mounted writable.

    Where a consumer follows the stream into the same claim already, the run waits until that is so far.
    """

    built_in = built_in_of(contract.AnnotationStream)

    host: Annotated[str, Field(max_length=253, pattern=_HOST)] = Field(
        description="Name or IPv4 address of the broker, without a port."
    )
    port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="Port of its stream plug-in, which is not the AMQP port. Default: 5551, or 5552"
        " without tls.",
    )
    stream: Annotated[str, Field(min_length=1, max_length=255)] = Field(description="Name of the stream.")
    tls: bool | None = Field(
        default=None,
        description="Whether to speak TLS, and verify the broker's certificate. Without it whoever is on the"
        " way reads the password and the images, so false needs a profile whose limits.endpoints have this"
        " HOST:PORT; but for localhost and 127.0.0.0/8.",
    )
    credentials: StreamSecret


class Dataset(Section):
    """What the model is trained on. The source is never changed, but by an annotationStream; the run builds a
    dataset of its own.
    """

    built_in = built_in_of(contract.DatasetSettings)

    source: Source
    format: contract.LabelFormat | None = Field(
        default=None,
        description="How the labels are written. Yolo: a text file per image with lines of class, centre and"
        " size; YoloObb: lines of class and four corners, of which the upright box around them is learned;"
        " PascalVoc: an XML file per image; Coco: JSON files for many images. Auto tells Yolo, PascalVoc and"
        " Coco by the names of the files.",
    )
    directories: Directories | None = None
    annotation_stream: AnnotationStream | None = None
    classes: Classes | None = None
    include_seed: bool | None = Field(
        default=None, description="Whether annotations that nobody has validated are trained on too."
    )
    split: Split | None = None
    augmentation: Augmentation | None = None
    max_corrupt_percent: float | None = Field(
        default=None,
        ge=0,
        le=100,
        description="The run fails when more percent of the annotations than this are unreadable or"
        " malformed; up to it they are left out and counted in status.dataset.quarantined.",
    )
    allow_empty_classes: bool | None = Field(
        default=None,
        description="Whether classes of the map may be without a single image to train on. The run fails"
        " otherwise, before it asks for a GPU.",
    )
    allow_missing_labels: bool | None = Field(
        default=None,
        description="Whether an image without a label is a background, with nothing on it to detect, and not"
        " one that nobody has annotated. An empty label always means a background.",
    )

    rules = (
        Rule(
            "!has(self.annotationStream) || has(self.source.persistentVolumeClaim)",
            "spec.dataset.annotationStream needs spec.dataset.source.persistentVolumeClaim: it is read into"
            " the directories there",
        ),
    )
