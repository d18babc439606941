"""Whether a stream goes on where it was left: it may have dropped what was not read, or be another one.

So the last message that is applied is asked for once more: it comes as it came then, or something happened.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from trainwright.errors import DataError, NetworkError
from trainwright_trainer.ingestion.address import StreamAddress
from trainwright_trainer.ingestion.ingestor import Received
from trainwright_trainer.ingestion.ledger import Position

_LOG = logging.getLogger(__name__)
_SILENCE_SECONDS = 20.0  # a message that is there is delivered at once


class Continuity:
    """Looks at what comes first on a connection; from there on a stream has no choice."""

    def __init__(
        self,
        address: StreamAddress,
        position: Position | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address, self._position, self._clock = address, position, clock
        self._begun = clock()
        self.is_certain = position is None
        self._dropped = 0

    @property
    def is_overdue(self) -> bool:
        """Whether what should come first does not come, and the stream's end has to be asked for again."""
        return not self.is_certain and self._clock() - self._begun > _SILENCE_SECONDS

    def judge(self, end: int | None) -> DataError | NetworkError:
        """Return what the silence means for a stream that ends there."""
        assert self._position is not None  # noqa: S101 - it is certain then
        if end is None or end < self._position.offset:
            return self.broken("it ends before it")
        return NetworkError(
            f"the {self._address} does not deliver what it has at offset {self._position.offset}",
            hint="See whether the broker is overloaded, or the network to it.",
        )

    def take_dropped(self) -> int:
        """Return how many messages may have been dropped before they were read: each once."""
        dropped, self._dropped = self._dropped, 0
        return dropped

    def check(self, batch: list[Received]) -> list[Received]:
        """Return what is new of a batch; raise `DataError` when it is not what should come."""
        position = self._position
        if self.is_certain or position is None or not batch:
            return batch
        first = batch[0]
        if first.offset < position.offset:
            raise self.broken(f"it goes on at offset {first.offset}")
        if first.offset == position.offset and position.time not in {None, first.time}:
            raise self.broken("the message there is another")
        self.is_certain = True
        if first.offset == position.offset:
            return batch[1:]
        self._tell_of_dropped(position.offset + 1, first.offset)
        return batch

    def broken(self, why: str) -> DataError:
        """Return the error for a stream that is not the one that was read."""
        assert self._position is not None  # noqa: S101 - what was not read can't be another
        return DataError(
            f"the {self._address} is not the one that was read up to offset {self._position.offset}: {why}",
            hint="If it was deleted and made again, or these trees were filled from another one, run"
            " `trainwright-trainer annotations rewind`: the next start reads it from its beginning, and what"
            " is applied stays as it is.",
        )

    def _tell_of_dropped(self, first: int, end: int) -> None:
        self._dropped = end - first
        if self._dropped:
            _LOG.error(
                "the %s no longer has offsets %d to %d: up to %d messages were dropped before they were read."
                " Have the platform publish them again, and give the stream a longer retention",
                self._address,
                first,
                end - 1,
                self._dropped,
            )
