"""A run's source, brought up to where its annotation stream ends now."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from threading import Event

from trainwright.contract import DatasetSettings, Directories
from trainwright_trainer.annotations.folder import find_root
from trainwright_trainer.ingestion.address import StreamAddress
from trainwright_trainer.ingestion.broker import find_end
from trainwright_trainer.ingestion.following import Follower, Moment
from trainwright_trainer.ingestion.ingestor import OFFSET_FILE, Ingestor
from trainwright_trainer.ingestion.offsets import OffsetFile
from trainwright_trainer.places import Places
from trainwright_trainer.watching import Watcher
from trainwright_trainer.workspace_lock import InUseError

_LOG = logging.getLogger(__name__)
_LOOKING_SECONDS = 1.0
_TELLING_SECONDS = 10.0


def catch_up_with_stream(settings: DatasetSettings, places: Places, watcher: Watcher) -> int | None:
    """Apply what the source's stream holds now, if it has one; return the offset that the source is at.

    Where a consumer writes to the source already this waits until that one is so far.
    """
    if settings.annotation_stream is None:
        return None
    assert settings.source.folder is not None  # noqa: S101 - the contract asks for it
    root = find_root(settings.source.folder.path, places.data)
    address = StreamAddress.of(settings.annotation_stream, places.stream_credentials)
    end = find_end(address)
    wait = _Wait(end, watcher)
    while True:
        try:
            offset = _apply_all(root, settings.directories, address, wait)
        except InUseError:
            offset = OffsetFile(root / OFFSET_FILE).read_applied()
            if end is not None and (offset is None or offset < end):
                wait.tell(offset)
                time.sleep(_LOOKING_SECONDS)
                continue
        _LOG.info("the annotations are those of the %s up to offset %s", address, offset)
        return offset


class _Wait:
    """Tells of an offset that grows, and learns of a stop."""

    def __init__(self, end: int | None, watcher: Watcher) -> None:
        self.end, self._watcher = end, watcher
        self._offset: int | None = None
        self._told = 0.0

    def tell(self, offset: int | None) -> None:
        if offset == self._offset:
            self._watcher.check()
        else:
            self._offset = offset
            self._watcher.advance(0)
        if time.monotonic() - self._told > _TELLING_SECONDS:
            self._told = time.monotonic()
            _LOG.info("catching up with the annotation stream: offset %s of %s", offset, self.end)


def _apply_all(root: Path, directories: Directories, address: StreamAddress, wait: _Wait) -> int | None:
    def tell(moment: Moment) -> None:
        wait.tell(moment.offset)

    with Ingestor(root, directories) as ingestor:
        return Follower(address, ingestor, Event(), tell).catch_up(wait.end)
