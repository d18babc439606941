"""Chunks of a stream as the library unpacks them: none is passed over, and none takes all memory."""

from __future__ import annotations

import logging
import struct
import zlib
from typing import Any

from rstream import Consumer
from rstream.compression import CompressionType, GzipCompressionCodec, StreamCompressionCodecs

from trainwright_trainer.ingestion.messages import MOST_BYTES

_MOST_MESSAGES = 1_000_000
_MOST_UNPACKED = MOST_BYTES + 64 * 1024  # a message of the largest size, and what is around it
_BATCH = 0x80  # in an entry's first byte
_BATCH_SIZES = struct.Struct(">xHII")  # its messages, its bytes unpacked and packed
_GZIP_FORMAT = zlib.MAX_WBITS | 16
_LOG = logging.getLogger(__name__)


class ChunkConsumer(Consumer):
    """Gives a chunk that can't be unpacked as one message: it becomes a dead letter, and nothing is lost.

    The library would log it, and go on with the next chunk: for a compression that it does not know, too.
    """

    newest: int | None = None
    """The offset of the last message of the chunk that came last."""

    async def hang_up(self) -> bool:
        """End the connections that nobody listens to any more; return whether there is one.

        The library tells of a connection that is lost, and not of a frame on it that it refuses.
        """
        deaf = [
            each for each in self._clients.values() if (task := each._tasks.get("listener")) and task.done()
        ]
        for client in deaf:
            del client._tasks["listener"]  # its error would keep the client from closing
            client._is_not_closed = False  # and an answer to what is sent would not be heard
            if client._conn is not None:
                await client._conn.close()
        return bool(deaf)

    async def _on_deliver(self, frame: Any, subscriber: Any, filter_value: Any) -> None:
        try:
            _check_size(frame)
            unpacked = _Unpacked(frame, frame.chunk_first_offset, frame.get_messages())
        except Exception as error:
            _LOG.error(
                "the chunk at offset %d with %d messages can't be unpacked (%s): it is one dead letter;"
                " whoever publishes has to compress with gzip or not at all, and at most 64 MiB at once",
                frame.chunk_first_offset,
                frame.num_records,
                type(error).__name__,
            )
            first = max(subscriber.offset, frame.chunk_first_offset)
            unpacked = _Unpacked(frame, first, [bytes(frame.data)])
        self.newest = unpacked.chunk_first_offset + unpacked.num_entries - 1
        await super()._on_deliver(unpacked, subscriber, filter_value)  # type: ignore[arg-type]


def _check_size(frame: Any) -> None:
    """Refuse a chunk whose batches, all together, would take a lot more memory than it takes packed."""
    messages = size = position = 0
    for _ in range(frame.num_entries):
        if not frame.data[position] & _BATCH:
            position += 4 + int.from_bytes(frame.data[position : position + 4], "big")
            continue
        number, unpacked, packed = _BATCH_SIZES.unpack_from(frame.data, position)
        messages, size, position = messages + number, size + unpacked, position + _BATCH_SIZES.size + packed
    if messages > _MOST_MESSAGES or size > _MOST_UNPACKED + len(frame.data):
        raise ValueError("it is too large")


class _Unpacked:
    """What the library asks a chunk for."""

    def __init__(self, frame: Any, first: int, messages: list[bytes]) -> None:
        self.subscription_id, self.timestamp = frame.subscription_id, frame.timestamp
        self.chunk_first_offset, self.num_entries = first, len(messages)
        self._messages = messages

    def get_messages(self) -> list[bytes]:
        """Return the messages of the chunk."""
        return self._messages


class _Gzip(GzipCompressionCodec):
    """Unpacks what a batch says it has, and no more."""

    def uncompress(self, compressed_data: bytes, uncompressed_data_size: int) -> bytes:
        unpacked = zlib.decompressobj(_GZIP_FORMAT).decompress(compressed_data, uncompressed_data_size + 1)
        if len(unpacked) != uncompressed_data_size:
            raise ValueError("it is not of the size that it says")
        return unpacked


StreamCompressionCodecs.register_codec(CompressionType.Gzip, _Gzip())
