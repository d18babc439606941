"""Chunks of a stream: what comes packed is given message by message, and no chunk fills the memory."""

from __future__ import annotations

import asyncio
import gzip
import os
import struct
import tracemalloc
import zlib
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from rstream import OffsetType
from rstream.schema import Deliver

from trainwright_trainer.ingestion.chunks import ChunkConsumer

MIB = 1024 * 1024


def batch(*messages: bytes, number: int | None = None) -> bytes:
    """An entry of messages, packed with gzip."""
    raw = b"".join(struct.pack(">I", len(message)) + message for message in messages)
    packed = gzip.compress(raw, compresslevel=1)
    count = len(messages) if number is None else number
    return struct.pack(">BHII", 0x80 | 1 << 4, count, len(raw), len(packed)) + packed


def read(*entries: bytes) -> list[tuple[int, bytes]]:
    """Return offsets and messages of a chunk as a reader of the stream gets them."""
    data = b"".join(entries)
    frame: Any = Deliver(0, 0, 0, len(entries), 0, 0, 0, 100, zlib.crc32(data), len(data), 0, 0, data)

    async def deliver() -> list[tuple[int, bytes]]:
        consumer = ChunkConsumer("localhost", username="user", password="password")
        found: list[tuple[int, bytes]] = []
        subscriber = SimpleNamespace(
            client=SimpleNamespace(credit=lambda *_: asyncio.sleep(0)),
            subscription_id=0,
            stream="parts",
            reference=None,
            decoder=lambda message: message,
            callback=lambda message, context: found.append((context.offset, message)),
            offset_type=OffsetType.OFFSET,
            offset=100,
        )
        await partial(consumer._on_deliver, subscriber=subscriber, filter_value=None)(frame)
        return found

    return asyncio.run(deliver())


def test_batches_and_single_messages_of_a_chunk_come_in_their_order() -> None:
    single = struct.pack(">I", 3) + b"cog"
    assert read(single, batch(b"nut", b"bolt"), single) == [
        (100, b"cog"),
        (101, b"nut"),
        (102, b"bolt"),
        (103, b"cog"),
    ]


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([batch(bytes(30 * MIB))] * 3, id="each small enough, and all of them not"),
        pytest.param([batch(bytes(66 * MIB))], id="one that is too large"),
        pytest.param([batch(b"", number=65_000)] * 20, id="more messages than a chunk may have"),
    ],
)
def test_a_chunk_that_would_fill_the_memory_is_one_message_as_it_came(entries: list[bytes]) -> None:
    tracemalloc.start()
    try:
        found = read(*entries)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == [(100, b"".join(entries))]
    assert peak < 5 * MIB


def test_what_is_as_large_as_the_chunk_that_it_came_in_is_read() -> None:
    """Images do not get smaller by packing."""
    image = os.urandom(12 * MIB)
    assert len(read(*[batch(image)] * 7)) == 7
