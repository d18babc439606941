"""A run's source, brought up to where its annotation stream ends now."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from threading import Event

import tenacity

from trainwright.contract import DatasetSettings
from trainwright.errors import ConfigurationError, DataError, NetworkError
from trainwright_trainer.annotations.folder import find_root
from trainwright_trainer.ingestion.address import StreamAddress
from trainwright_trainer.ingestion.announcement import Announcement, read_announcement
from trainwright_trainer.ingestion.broker import find_end
from trainwright_trainer.ingestion.following import Follower, Moment
from trainwright_trainer.ingestion.ingestor import FOLDER, OFFSET_FILE, Ingestor
from trainwright_trainer.ingestion.offsets import OffsetFile
from trainwright_trainer.places import Places
from trainwright_trainer.watching import Watcher
from trainwright_trainer.workspace_lock import InUseError

_LOG = logging.getLogger(__name__)
_LOOKING_SECONDS = 1.0
_TELLING_SECONDS = 10.0
_STANDSTILL_SECONDS = 600.0
_TRIES = 5


def catch_up_with_stream(settings: DatasetSettings, places: Places, watcher: Watcher) -> int | None:
    """Apply what the source's stream holds now, if it has one; return the offset that the source is at.

    Where a consumer writes to the source already this waits until that one is so far.
    """
    if settings.annotation_stream is None:
        return None
    assert settings.source.folder is not None  # noqa: S101 - the contract asks for it
    root = find_root(settings.source.folder.path, places.data, make=True)
    address = StreamAddress.of(settings.annotation_stream, places.stream_credentials)
    reading = _Reading(root, Announcement(stream=address.stream, directories=settings.directories), address)
    offset = reading.reach(_find_end(address, watcher), _Progress(watcher))
    _LOG.info("the annotations are those of the %s up to offset %s", address, offset)
    return offset


def _find_end(address: StreamAddress, watcher: Watcher) -> int | None:
    """Return where the stream ends; a broker that is just started again costs no attempt."""
    found: int | None = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(NetworkError),
        stop=tenacity.stop_after_attempt(_TRIES),
        wait=tenacity.wait_random_exponential(multiplier=1, max=15),
        before_sleep=lambda _: watcher.check(),
        reraise=True,
    )(find_end, address)
    if found is None:
        _LOG.warning("the %s is empty", address)
    return found


class _Progress:
    """Tells of an offset that grows, and learns of a stop."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._offset: int | None = None
        self._moved = time.monotonic()
        self._told = 0.0

    def tell(self, what: str, offset: int | None, end: int | None) -> None:
        """Take note of an offset."""
        now = time.monotonic()
        if offset == self._offset:
            self._watcher.check()
        else:
            self._offset, self._moved = offset, now
            self._watcher.advance(0)
        if now - self._told > _TELLING_SECONDS:
            self._told = now
            _LOG.info("%s: at offset %s of %s", what, offset, end)

    @property
    def stands_still(self) -> bool:
        """Whether the offset is the same for long."""
        return time.monotonic() - self._moved > _STANDSTILL_SECONDS


class _Reading:
    """Reads the stream into the root, or waits for who does."""

    def __init__(self, root: Path, wanted: Announcement, address: StreamAddress) -> None:
        self._root, self._wanted, self._address = root, wanted, address

    def reach(self, end: int | None, progress: _Progress) -> int | None:
        """Return an offset that is the stream's end or beyond it, and up to which all is in the trees."""
        while True:
            try:
                return self._apply(end, progress)
            except InUseError:
                announced = read_announcement(self._root / FOLDER)
                offset = OffsetFile(self._root / OFFSET_FILE).read_applied()
                if announced is not None and announced != self._wanted:
                    raise self._refuse(announced) from None
                if announced is not None and (end is None or (offset is not None and offset >= end)):
                    return self._believe(offset, end)
                progress.tell("waiting for the consumer that writes to the annotations", offset, end)
                if progress.stands_still:
                    raise NetworkError(
                        f"the consumer that writes to the annotations stays at offset {offset} of {end}",
                        hint="See its log and whether it is ready: it reads the stream for the runs.",
                    ) from None
                time.sleep(_LOOKING_SECONDS)

    def _apply(self, end: int | None, progress: _Progress) -> int | None:
        def tell(moment: Moment) -> None:
            progress.tell("catching up with the annotation stream", moment.offset, end)

        with Ingestor(self._root, self._wanted.directories) as ingestor:
            offset = Follower(self._address, ingestor, Event(), tell).catch_up(end)
            if letters := len(ingestor.dead_letters):
                _LOG.warning("%d messages could not be applied: %s", letters, ingestor.dead_letters.folder)
            return offset

    def _believe(self, offset: int | None, end: int | None) -> int | None:
        """Return the offset of another consumer, unless the stream never had it."""
        if offset is not None and (end is None or offset > end):
            newest = find_end(self._address)
            if newest is None or offset > newest:
                raise DataError(
                    f"the annotations are at offset {offset}, and the {self._address} ends at {newest}",
                    hint="They were filled from another stream, or it was made anew: see the log of the"
                    " consumer that writes to them.",
                )
        return offset

    def _refuse(self, announced: Announcement) -> ConfigurationError:
        return ConfigurationError(
            f"the consumer that writes to the annotations reads {announced}; the run names {self._wanted}",
            hint="Set dataset.annotationStream and dataset.directories to what the consumer reads, or take"
            " another claim or path.",
        )
