"""Messages that nobody means well with: each is a dead letter with its reason, and costs little."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import annotation_corpus as corpus
import msgpack
import pytest
from annotation_stream import START, draw, single
from hypothesis import given, settings
from hypothesis import strategies as st

from trainwright_trainer.annotations.items import Rule
from trainwright_trainer.ingestion.events import Status
from trainwright_trainer.ingestion.messages import Message, PoisonError, read_message

CREATED = Status.CREATED
BY_HEADER = {
    Rule.IMAGE_EMPTY,
    Rule.IMAGE_FORMAT,
    Rule.IMAGE_TOO_SMALL,
    Rule.IMAGE_TOO_LARGE,
    Rule.IMAGE_ANIMATED,
}


def read(body: bytes, properties: Mapping[Any, Any] | None = None) -> Message:
    return read_message(body, properties or {}, broker_time=START * 2)


def array(*elements: bytes) -> bytes:
    return b"\xdc" + struct.pack(">H", len(elements)) + b"".join(elements)


MANY = struct.pack(">I", 900_000)
BOMBS = {
    "lists in a list": array(b"\xc0", *[b"\xdd" + MANY + b"\x90" * 900_000] * 9),
    "maps in a list": array(b"\xc0", *[b"\xdd" + MANY + b"\x80" * 900_000] * 9),
    "short strings": array(b"\xc0", *[b"\xdd" + MANY + b"\xa2ab" * 900_000] * 9),
    "a list in a list in a list": b"\x91" * 2000,
    "a list that says it is long": array(b"\xc0", b"\xdd\xff\xff\xff\xff"),
    "an extension": array(*[b"\xc7\x05\x07abcde"] * 5),
    "a date beyond all": array(b"\xd7\xff" + b"\xff" * 8, b"\xa1a", b"\xc0", b"\xc0"),
    "a map for a message": msgpack.packb({str(n): n for n in range(20)}),
    "a list for a key": array(b"\x81\x90\xc0", b"\xa1a", b"\xc0", b"\xc0"),
    "detections in detections": single("a", CREATED, 1, image=draw(1), detections="[" * 100_000),
    "a million detections": single(
        "a", CREATED, 1, image=draw(1), detections="[" + "[],".join([""] * 3_000_000) + "[]]"
    ),
}


@pytest.mark.parametrize("what", BOMBS)
def test_a_message_that_unpacks_to_much_is_refused_before_it_has(what: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(PoisonError):
            read(BOMBS[what])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 180_000_000 + 2 * len(BOMBS[what])


anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63), st.floats(), st.text(), st.binary()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(st.lists(anything, max_size=14), st.dictionaries(st.text() | st.binary() | st.integers(), anything))
def test_any_fields_are_a_message_or_a_reason(fields: list[Any], properties: dict[Any, Any]) -> None:
    try:
        body = msgpack.packb(fields)
    except OverflowError:
        return
    for hostile in ({}, properties, {"AnnotationStatus": next(iter(properties.values()), 30)}):
        with suppress(PoisonError):
            message = read(body, hostile)
            assert all("/" not in name and name not in {"", ".", ".."} for name in message.names)


@pytest.mark.parametrize("case", list(corpus.good_images()), ids=lambda case: case.name)
def test_an_image_that_a_dataset_takes_is_taken(case: corpus.Case) -> None:
    suffix = case.suffix or ".png"
    assert read(single("a", CREATED, 1, image=case.data, suffix=suffix)).image == case.data


@pytest.mark.parametrize(
    "case", [case for case in corpus.broken_images() if case.verdict in BY_HEADER], ids=lambda case: case.name
)
def test_an_image_that_a_dataset_refuses_by_its_header_is_a_dead_letter(case: corpus.Case) -> None:
    with pytest.raises(PoisonError) as refused:
        read(single("a", CREATED, 1, image=case.data, suffix=case.suffix or ".png"))
    assert refused.value.rule == "image"


def test_an_image_in_a_file_of_another_formats_name_is_taken_as_the_dataset_takes_it() -> None:
    assert read(single("a", CREATED, 1, image=draw(1, "JPEG"), suffix="PNG")).event.suffix == ".png"


@pytest.mark.parametrize("detections", ["null", "[]", ""])
def test_an_annotation_without_detections_is_an_empty_background(detections: str) -> None:
    if detections:
        assert read(single("a", CREATED, 1, image=draw(1), detections=detections)).event.labels == ""
    else:
        with pytest.raises(PoisonError, match="no JSON"):
            read(single("a", CREATED, 1, image=draw(1), detections=detections))
    fields = msgpack.unpackb(single("a", CREATED, 1, image=draw(1)), timestamp=3)
    assert read(msgpack.packb([*fields[:5], None, *fields[6:]], datetime=True)).event.labels == ""


def test_no_reason_tells_of_an_email_or_of_what_an_image_holds() -> None:
    with pytest.raises(PoisonError) as refused:
        read(single("a", CREATED, 1, image=b"secret bytes of an image"))
    assert "someone@example.com" not in str(refused.value)
    assert "of an image" not in str(refused.value)
