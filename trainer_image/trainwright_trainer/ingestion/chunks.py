"""Chunks of a stream as the library unpacks them: none is passed over, and none takes all memory."""

from __future__ import annotations

import logging
import zlib
from typing import Any

from rstream import Consumer
from rstream.compression import CompressionType, GzipCompressionCodec, StreamCompressionCodecs

_MOST_BYTES = 128 * 1024 * 1024
_GZIP_FORMAT = zlib.MAX_WBITS | 16
_LOG = logging.getLogger(__name__)


class ChunkConsumer(Consumer):
    """Gives a chunk that can't be unpacked as one message: it becomes a dead letter, and nothing is lost.

    The library would log it, and go on with the next chunk: for a compression that it does not know, too.
    """

    newest: int | None = None
    """The offset of the last message of the chunk that came last."""

    async def _on_deliver(self, frame: Any, subscriber: Any, filter_value: Any) -> None:
        try:
            unpacked = _Unpacked(frame, frame.chunk_first_offset, frame.get_messages())
        except Exception as error:
            _LOG.error(
                "the chunk at offset %d with %d messages can't be unpacked (%s): it is one dead letter;"
                " whoever publishes has to compress with gzip or not at all",
                frame.chunk_first_offset,
                frame.num_records,
                type(error).__name__,
            )
            first = max(subscriber.offset, frame.chunk_first_offset)
            unpacked = _Unpacked(frame, first, [bytes(frame.data)])
        self.newest = unpacked.chunk_first_offset + unpacked.num_entries - 1
        await super()._on_deliver(unpacked, subscriber, filter_value)  # type: ignore[arg-type]


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
        if uncompressed_data_size > _MOST_BYTES:
            raise ValueError("it is too large")
        unpacked = zlib.decompressobj(_GZIP_FORMAT).decompress(compressed_data, uncompressed_data_size + 1)
        if len(unpacked) != uncompressed_data_size:
            raise ValueError("it is not of the size that it says")
        return unpacked


StreamCompressionCodecs.register_codec(CompressionType.Gzip, _Gzip())
