"""What state the data trees are in, for those who only want to know whether it is another one.

In a cluster it is a ConfigMap named after the claim: a training plan starts a run when it changes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from trainwright_trainer.ingestion.following import Moment
from trainwright_trainer.ingestion.ingestor import Ingestor
from trainwright_trainer.reporting import ApiServer

_LOG = logging.getLogger(__name__)
_INTERVAL_SECONDS = 30.0


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

    It never holds the reading up: what can't be written is tried again with the next one.
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

    def tell(self, moment: Moment) -> None:
        """Publish the revision when there is a new one and it is time."""
        if moment.offset is None:
            return
        if self._tried is None or self._clock() - self._tried >= _INTERVAL_SECONDS:
            self.publish()

    def publish(self) -> None:
        """Publish the revision now, unless it is known."""
        offset = self._ingestor.offset
        if offset is None:
            return
        revision = Revision(offset, self._ingestor.ledger.images)
        self._tried = self._clock()
        if revision == self._written:
            return
        try:
            response = self._server.apply_config_map(self._namespace, self._name, revision.to_data())
        except OSError as error:
            _LOG.warning("ConfigMap %s can't be written: %s", self._name, type(error).__name__)
            return
        if response.ok:
            self._written = revision
        else:
            _LOG.warning("ConfigMap %s can't be written: status %d", self._name, response.status_code)
