"""The generated stream of annotations: the same for the same seed, and all but its poison can be read."""

from __future__ import annotations

from collections import Counter
from io import BytesIO
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainwright_devstack.annotations import AnnotationMessage, generate_annotations
from trainwright_trainer.annotations.images import check_image
from trainwright_trainer.annotations.items import media_of
from trainwright_trainer.ingestion.events import Status
from trainwright_trainer.ingestion.ingestor import Ingestor, Received
from trainwright_trainer.ingestion.messages import Message, PoisonError, read_message

LATER = 2_000_000_000_000_000


def read(message: AnnotationMessage) -> Message:
    return read_message(message.body, message.properties, broker_time=LATER)


def test_the_same_seed_gives_the_same_messages_and_another_one_others() -> None:
    first = list(generate_annotations(300, seed=5, poison=0.05))
    assert first == list(generate_annotations(300, seed=5, poison=0.05))
    assert first != list(generate_annotations(300, seed=6, poison=0.05))
    assert len(first) == 300


def test_grain_makes_images_as_large_as_those_of_a_camera() -> None:
    sizes = []
    for grain in (0, 16):
        images = (read(each).image for each in islice(generate_annotations(10**6, seed=5, grain=grain), 40))
        sizes.append(sum(len(image) for image in images if image))
    assert sizes[1] > 2 * sizes[0]


def test_a_stream_of_any_length_is_made_as_it_is_read() -> None:
    endless = generate_annotations(10**12, seed=1)
    assert [message.poison for message in islice(endless, 50)] == [""] * 50


def test_every_message_but_the_poison_is_read_and_every_kind_comes() -> None:
    kinds: Counter[tuple[Status, bool, bool]] = Counter()
    rules = set()
    for message in generate_annotations(2000, seed=2, poison=0.02, image_size=64):
        if message.poison:
            with pytest.raises(PoisonError) as refused:
                read(message)
            assert refused.value.rule == message.poison
            rules.add(message.poison)
            continue
        told = read(message)
        kinds[told.event.status, told.event.validated, len(told.names) > 1] += 1
    assert rules >= {"encoding", "compression", "name", "status", "extension", "image", "detections", "names"}
    created, edited, validated, deleted = Status
    assert set(kinds) == {
        *((status, by_validator, False) for status in (created, edited) for by_validator in (True, False)),
        *((status, True, many) for status in (validated, deleted) for many in (True, False)),
    }


def test_messages_differ_in_what_real_ones_differ_in() -> None:
    messages = list(generate_annotations(1000, seed=3, image_size=64))
    assert {type(value) for each in messages for value in each.properties.values()} == {str, bytes}
    assert 100 < sum(each.body.startswith(b"\x1f\x8b") for each in messages) < 300
    assert 10 < len(messages) - len({each.body for each in messages}) < 60  # some come twice
    dates = [read(each).event.at for each in messages]
    assert sum(later < earlier for earlier, later in pairwise(dates)) > 10  # or late


def test_images_are_frames_of_media_with_boxes_around_what_is_seen() -> None:
    created = [
        told
        for message in generate_annotations(400, seed=4)
        if (told := read(message)).event.status is Status.CREATED
    ]
    assert len({told.event.image for told in created}) == len({told.names for told in created})
    assert 4 < len({media_of(told.names[0]) for told in created}) < 40
    for told in created:
        assert told.image is not None
        check_image(told.image, ".jpg")
        assert told.event.labels is not None
        assert_boxes_hold_the_shapes(told.image, told.event.labels)


def assert_boxes_hold_the_shapes(data: bytes, labels: str) -> None:
    """What differs from the background is inside the boxes, and reaches into each of them."""
    with Image.open(BytesIO(data)) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    size = len(pixels)
    outside = np.ones((size, size), bool)
    for line in labels.splitlines():
        x, y, width, height = (float(word) * size for word in line.split()[1:])
        left, top, right, bottom = x - width / 2, y - height / 2, x + width / 2, y + height / 2
        outside[int(top) - 4 if top > 4 else 0 : int(bottom) + 5, max(int(left) - 4, 0) : int(right) + 5] = (
            False
        )
    background = np.median(pixels[outside], axis=0)
    differs = np.abs(pixels - background).sum(axis=2) > 60
    assert not (differs & outside).any()
    for line in labels.splitlines():
        x, y = (int(float(word) * size) for word in line.split()[1:3])
        assert differs[y, x]


def test_what_it_makes_of_the_trees_is_mostly_validated(tmp_path: Path) -> None:
    received = [
        Received(offset, LATER, message.body, message.properties)
        for offset, message in enumerate(generate_annotations(1000, seed=1, image_size=64))
    ]
    with Ingestor(tmp_path, sync=False) as ingestor:
        results = ingestor.apply(received)
    assert not results.poison
    numbers = [
        len(list((tmp_path / tree / "images").iterdir())) for tree in ("data", "data-seed", "data_deleted")
    ]
    assert numbers[0] > 300
    assert numbers[1] > 30
    assert numbers[2] > 10
