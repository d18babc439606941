"""Where log records go: JSON lines in a pod, short lines beside the progress bar on a terminal."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import IO


class JsonFormatter(logging.Formatter):
    """One JSON object per record."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line of JSON."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def set_up_logging(stream: IO[str]) -> None:
    """Send every record to the stream; a terminal gets warnings only, as it has the progress bar."""
    handler = logging.StreamHandler(stream)
    if stream.isatty():
        handler.setLevel(logging.WARNING)
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    else:
        handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
