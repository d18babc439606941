"""AMQP messages are read as their library writes them, and what claims to be one costs nothing."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rstream import AMQPMessage, amqp_decoder

from trainwright_trainer.ingestion.amqp import read_amqp
from trainwright_trainer.ingestion.broker import Delivery

simple = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**31), 2**31 - 1),
    st.text(max_size=300),
    st.binary(max_size=300),
)


def as_bytes(value: Any) -> Any:
    return value.encode() if isinstance(value, str) else value


@settings(deadline=None)
@given(st.binary(max_size=400), st.dictionaries(st.text(min_size=1, max_size=20), simple, max_size=9))
def test_data_and_properties_are_what_the_library_wrote(body: bytes, properties: dict[str, Any]) -> None:
    data = bytes(AMQPMessage(body=body, application_properties=properties))
    assert read_amqp(data) == (
        body,
        {as_bytes(key): as_bytes(value) for key, value in properties.items()},
    )


def test_sections_that_nobody_asked_for_are_passed_over() -> None:
    message = AMQPMessage(
        body=b"body",
        message_annotations={b"x-opt": [1, 2, {"a": 3}]},
        application_properties={"AnnotationStatus": "Created"},
    )
    assert read_amqp(bytes(message)) == (b"body", {b"AnnotationStatus": b"Created"})


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_data_or_an_error_of_theirs(data: bytes) -> None:
    for start in (b"", b"\x00\x53\x74", b"\x00\x53\x75", b"\x00\x53\x77"):
        received = Delivery(7, 1, start + data).decode()
        assert (received.offset, received.time) == (7, 1000)
        assert isinstance(received.body, bytes)


BOMBS = {
    "a list": b"\x00\x53\x76\xd0\x00\x00\x00\x04\xff\xff\xff\xff",
    "an array": b"\x00\x53\x77\xf0\x00\x00\x00\x05\xff\xff\xff\xff\x40",
    "a map": b"\x00\x53\x74\xd1\x00\x00\x00\x04\xff\xff\xff\xff",
    "a number for a body": b"\x00\x53\x77\x80\x00\x00\x00\x40\x00\x00\x00\x00",
    "a list of numbers for a body": b"\x00\x53\x77\xc0\x0a\x01\x80\x00\x00\x00\x40\x00\x00\x00\x00",
}


@pytest.mark.parametrize("what", BOMBS)
def test_a_message_that_claims_thousands_of_millions_of_elements_takes_no_memory(what: str) -> None:
    tracemalloc.start()
    try:
        begun = time.monotonic()
        received = Delivery(0, 0, BOMBS[what]).decode()
        assert tracemalloc.get_traced_memory()[1] < 100_000
        assert time.monotonic() - begun < 1
    finally:
        tracemalloc.stop()
    assert len(received.body) < 100


def test_the_library_would_take_the_memory() -> None:
    """Why there is a reader of our own; where this fails it may be needed no longer."""
    small = BOMBS["a list"].replace(b"\xff\xff\xff\xff", b"\x00\x10\x00\x00")
    tracemalloc.start()
    try:
        with pytest.raises(IndexError):
            amqp_decoder(small)
        assert tracemalloc.get_traced_memory()[1] > 8_000_000
    finally:
        tracemalloc.stop()
