"""A believable stream of annotations: what operators and validators do to generated images, as messages.

The same seed gives the same messages. Frames of one medium show the same shapes, moving; boxes are right, an
operator's are a little loose until they are edited.
"""

from __future__ import annotations

import gzip
import heapq
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from itertools import count
from typing import Any

import msgpack
from PIL import Image, ImageChops

from trainwright_trainer.annotations.sample import Shape, draw_sample
from trainwright_trainer.ingestion.events import Status
from trainwright_trainer.ingestion.messages import STATUS_PROPERTY

OPERATOR, VALIDATOR = 10, 20
"""Roles, by the numbers that the platform uses."""

IMAGE_SIZE = 128

_START = datetime(2026, 1, 1, tzinfo=UTC)
_FRAMES = 25  # of a medium, on average
_MOST_OPEN = 2000  # annotations that something may still happen to
_MOST_LATE = 200  # messages that come before one that is late

# Of a hundred messages; the bulk ones name dozens each.
_WEIGHTS = {
    "create": 66.0,
    "edit": 18.0,
    "validate": 11.0,
    "validate many": 1.5,
    "delete": 3.0,
    "delete many": 0.5,
}
_BY_VALIDATORS = 0.2
_COMPRESSED, _EXTENDED, _LATE, _REPEATED = 0.2, 0.1, 0.03, 0.03


@dataclass(frozen=True)
class AnnotationMessage:
    """A message as it is published; `poison` is the rule by which it will be refused, else empty."""

    body: bytes
    properties: Mapping[str | bytes, str | bytes]
    poison: str = ""


@dataclass(frozen=True)
class _Annotation:
    name: str
    medium: str
    time: str
    shapes: tuple[Shape, ...]
    validated: bool = False


def encode_annotation(  # noqa: PLR0913 - one parameter per element of the array
    name: str,
    status: Status,
    created: datetime,
    *,
    detections: str,
    medium: str = "medium",
    time: str = "00:00:01",
    suffix: str = ".jpg",
    image: bytes = b"",
    role: int = OPERATOR,
    more: Sequence[Any] = (),
) -> bytes:
    """Return a message about one annotation; `more` are elements that later producers append."""
    body = [created, name, medium, time, suffix, detections, image, role, _email_of(role), 1, int(status)]
    return bytes(msgpack.packb([*body, *more], datetime=True))


def encode_bulk(names: Sequence[str], status: Status, created: datetime) -> bytes:
    """Return a message about many annotations."""
    return bytes(msgpack.packb([list(names), int(status), _email_of(VALIDATOR), created], datetime=True))


def encode_detections(shapes: Iterable[Shape]) -> str:
    """Return the JSON of detections."""
    return json.dumps(
        [
            {
                "an": "",
                "cl": shape.class_id,
                "x": shape.x,
                "y": shape.y,
                "w": shape.size,
                "h": shape.size,
                "p": 1,
            }
            for shape in shapes
        ]
    )


def generate_annotations(
    messages: int, *, seed: int = 0, image_size: int = IMAGE_SIZE, grain: int = 0, poison: float = 0.0
) -> Iterator[AnnotationMessage]:
    """Yield so many messages; a share of them is `poison`, some come late and some twice.

    `grain` is how far a camera's noise changes a level: images have as many bytes as a camera's then. Memory
    stays the same, however many messages there are.
    """
    chance = random.Random(f"annotations/{seed}")  # noqa: S311 - reproducible, not a secret
    made = _Platform(chance, seed, image_size, grain).work()
    poisoned = _poison(f"{seed:x}")
    held: list[tuple[int, int, AnnotationMessage]] = []
    order = count()
    for position in range(messages):
        if held and (held[0][0] <= position or len(held) == messages - position):
            yield heapq.heappop(held)[2]
            continue
        message = next(poisoned) if chance.random() < poison else next(made)
        due = (position + chance.randint(1, _MOST_LATE), next(order))
        if chance.random() < _LATE and len(held) < messages - position - 1:
            heapq.heappush(held, (*due, message))
            message = next(made)
        elif chance.random() < _REPEATED and len(held) < messages - position - 1:
            heapq.heappush(held, (*due, message))
        yield message


class _Platform:
    """People who annotate: what they do next, and the message about it."""

    def __init__(self, chance: random.Random, seed: int, image_size: int, grain: int) -> None:
        self._chance, self._seed, self._image_size, self._grain = chance, seed, image_size, grain
        self._open: list[_Annotation] = []
        self._now = _START
        self._frames = self._film()

    def work(self) -> Iterator[AnnotationMessage]:
        """Yield what is done, for ever."""
        deeds: dict[str, Callable[[], AnnotationMessage]] = {
            "create": self._create,
            "edit": self._edit,
            "validate": lambda: self._judge(Status.VALIDATED, 1),
            "validate many": lambda: self._judge(Status.VALIDATED, self._chance.randint(5, 60)),
            "delete": lambda: self._judge(Status.DELETED, 1),
            "delete many": lambda: self._judge(Status.DELETED, self._chance.randint(2, 10)),
        }
        while True:
            self._now += timedelta(seconds=self._chance.uniform(0.5, 6))
            (deed,) = self._chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
            yield deeds[deed]() if self._open else self._create()

    def _film(self) -> Iterator[tuple[_Annotation, bytes]]:
        """Yield frames of one medium after the other."""
        for number in count():
            drawn = draw_sample(self._seed, number, self._image_size)
            with Image.open(BytesIO(drawn.png)) as opened:
                scene = self._expose(opened.convert("RGB"))
            medium = f"belt{self._seed:x}x{number:05d}"
            for frame in range(self._chance.randint(_FRAMES // 2, _FRAMES * 3 // 2)):
                picture, shapes = self._move(scene, drawn.shapes)
                name = f"{medium}_{frame:06d}"
                file = BytesIO()
                picture.save(file, format="JPEG", quality=90, comment=name)
                yield _Annotation(name, medium, f"00:00:{frame:02d}", shapes), file.getvalue()

    def _expose(self, scene: Image.Image) -> Image.Image:
        """Return the scene as a camera sees it."""
        if not self._grain:
            return scene
        noise = Image.frombytes("L", scene.size, self._chance.randbytes(scene.width * scene.height))
        noise = noise.point([2 * self._grain * level // 255 for level in range(256)])
        return ImageChops.add(scene, noise.convert("RGB"), offset=-self._grain)

    def _move(self, scene: Image.Image, shapes: tuple[Shape, ...]) -> tuple[Image.Image, tuple[Shape, ...]]:
        """Move all shapes as far as there is room, in other light."""
        size = self._image_size
        steps = []
        for middles in ([shape.x for shape in shapes], [shape.y for shape in shapes]):
            ends = [
                (at - shape.size / 2, at + shape.size / 2) for at, shape in zip(middles, shapes, strict=True)
            ]
            room = (
                -int(min(start for start, _ in ends) * size),
                int((1 - max(end for _, end in ends)) * size),
            )
            steps.append(self._chance.randint(*room))
        light = self._chance.uniform(0.8, 1.0)
        picture = ImageChops.offset(scene, *steps).point([int(level * light) for level in range(256)] * 3)
        right, below = (step / size for step in steps)
        return picture, tuple(replace(each, x=each.x + right, y=each.y + below) for each in shapes)

    def _create(self) -> AnnotationMessage:
        annotation, image = next(self._frames)
        role = self._somebody()
        self._keep(replace(annotation, validated=role == VALIDATOR))
        shapes = annotation.shapes
        if role == OPERATOR:
            shapes = tuple(_loosen(shape, self._chance.uniform(1, 1.06)) for shape in shapes)
        return self._tell_one(annotation, Status.CREATED, role, shapes, image)

    def _edit(self) -> AnnotationMessage:
        """Somebody draws the boxes tighter."""
        place = self._chance.randrange(len(self._open))
        annotation, role = self._open[place], self._somebody()
        if role == VALIDATOR:
            self._open[place] = replace(annotation, validated=True)
        return self._tell_one(annotation, Status.EDITED, role, annotation.shapes)

    def _judge(self, status: Status, number: int) -> AnnotationMessage:
        """A validator validates or deletes one, or many at once."""
        chosen = self._chance.sample(range(len(self._open)), min(number, len(self._open)))
        annotations = [self._open[place] for place in chosen]
        if status is Status.DELETED:
            for place in sorted(chosen, reverse=True):
                self._take(place)
        else:
            for place in chosen:
                self._open[place] = replace(self._open[place], validated=True)
        if number == 1:
            return self._tell_one(annotations[0], status, VALIDATOR, annotations[0].shapes)
        return self._tell(encode_bulk([each.name for each in annotations], status, self._now), status)

    def _keep(self, annotation: _Annotation) -> None:
        if len(self._open) == _MOST_OPEN:
            self._take(self._chance.randrange(_MOST_OPEN))
        self._open.append(annotation)

    def _take(self, place: int) -> None:
        last = self._open.pop()
        if place < len(self._open):
            self._open[place] = last

    def _somebody(self) -> int:
        return VALIDATOR if self._chance.random() < _BY_VALIDATORS else OPERATOR

    def _tell_one(
        self, annotation: _Annotation, status: Status, role: int, shapes: Iterable[Shape], image: bytes = b""
    ) -> AnnotationMessage:
        body = encode_annotation(
            annotation.name,
            status,
            self._now,
            detections=encode_detections(shapes),
            medium=annotation.medium,
            time=annotation.time,
            image=image,
            role=role,
            more=("later", {"producer": 2}) if self._chance.random() < _EXTENDED else (),
        )
        return self._tell(body, status)

    def _tell(self, body: bytes, status: Status) -> AnnotationMessage:
        if self._chance.random() < _COMPRESSED:
            body = gzip.compress(body, compresslevel=1, mtime=0)
        told: tuple[str | bytes, ...] = (status.name.title(), str(int(status)), str(int(status)).encode())
        return AnnotationMessage(body, {STATUS_PROPERTY: self._chance.choice(told)})


def _loosen(shape: Shape, factor: float) -> Shape:
    """Return a box that is larger, as far as it stays in the image."""
    most = 2 * min(shape.x, shape.y, 1 - shape.x, 1 - shape.y)
    return replace(shape, size=max(min(shape.size * factor, most), shape.size))


def _poison(mark: str) -> Iterator[AnnotationMessage]:
    """Yield messages that are refused, each by another rule, again and again."""
    whole = Image.new("RGB", (16, 16))
    file = BytesIO()
    whole.save(file, format="JPEG")
    image = file.getvalue()
    nothing = encode_detections(())
    outside = json.dumps([{"cl": 0, "x": 1.4, "y": 0.5, "w": 0.2, "h": 0.2}])
    for number in count():
        name = f"poison{mark}x{number:05d}"

        def tell(detections: str = nothing, name: str = name, **fields: Any) -> bytes:
            return encode_annotation(
                name, Status.CREATED, _START, detections=detections, **{"image": image, **fields}
            )

        created: Mapping[str | bytes, str | bytes] = {STATUS_PROPERTY: "Created"}
        yield AnnotationMessage(b"\xc1" + name.encode(), created, "encoding")
        yield AnnotationMessage(gzip.compress(tell(), mtime=0)[:-20], created, "compression")
        yield AnnotationMessage(tell(name=f"../{name}"), created, "name")
        yield AnnotationMessage(tell(), {STATUS_PROPERTY: "Lost"}, "status")
        yield AnnotationMessage(tell(suffix=".exe"), created, "extension")
        yield AnnotationMessage(tell(image=b"no image"), created, "image")
        yield AnnotationMessage(tell(detections=outside), created, "detections")
        yield AnnotationMessage(
            encode_bulk([], Status.VALIDATED, _START), {STATUS_PROPERTY: "Validated"}, "names"
        )


def _email_of(role: int) -> str:
    return "validator@example.com" if role == VALIDATOR else "operator@example.com"
