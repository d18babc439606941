"""What state the data trees are in, for those who only want to know whether it is another one.

In a cluster it is a ConfigMap named after the claim: a training plan starts a run when it changes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread

from trainwright_trainer.ingestion.following import Moment
from trainwright_trainer.ingestion.ingestor import Ingestor
from trainwright_trainer.reporting import ApiServer

_LOG = logging.getLogger(__name__)
_INTERVAL_SECONDS = 30.0
_FINISHING_SECONDS = 8.0


@dataclass(frozen=True)
class Revision:
    """The offset that is applied, and how many images came in all."""

    offset: int
    count: int

    def to_data(self) -> dict[str, str]:
        """Return what the ConfigMap holds."""
        return {"offset": str(self.offset), "count": str(self.count)}


class RevisionPublisher:
    """Writes the revision into ConfigMap `<claim>-revision`, not more often than every half minute.

    It never holds the reading up: a server that hangs is waited for elsewhere, and what can't be written is
    tried again with the next one.
    """

    def __init__(
        self,
        server: ApiServer,
        namespace: str,
        claim: str,
        ingestor: Ingestor,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server, self._namespace, self._name = server, namespace, f"{claim}-revision"
        self._ingestor, self._clock = ingestor, clock
        self._written: Revision | None = None
        self._tried: float | None = None
        self._writer: Thread | None = None

    def tell(self, moment: Moment) -> None:
        """Publish the revision when there is a new one and it is time."""
        if self._tried is None or self._clock() - self._tried >= _INTERVAL_SECONDS:
            self.publish()

    def publish(self) -> None:
        """Begin to publish the revision now, unless it is known or the last one is still on its way."""
        offset = self._ingestor.offset
        if offset is None or (self._writer is not None and self._writer.is_alive()):
            return
        self._tried = self._clock()
        revision = Revision(offset, self._ingestor.ledger.images)
        if revision != self._written:
            self._writer = Thread(target=self._write, args=(revision,), name="revision", daemon=True)
            self._writer.start()

    def finish(self, seconds: float = _FINISHING_SECONDS) -> None:
        """Publish what is applied by now, and wait for it, but not long."""
        self._wait(seconds / 2)  # for the one that is on its way
        self.publish()
        self._wait(seconds / 2)

    def _wait(self, seconds: float) -> None:
        if self._writer is not None:
            self._writer.join(seconds)

    def _write(self, revision: Revision) -> None:
        try:
            response = self._server.apply_config_map(self._namespace, self._name, revision.to_data())
        except (OSError, ValueError) as error:
            _LOG.warning("ConfigMap %s can't be written: %s", self._name, type(error).__name__)
            return
        if response.ok:
            self._written = revision
        else:
            _LOG.warning("ConfigMap %s can't be written: status %d", self._name, response.status_code)
