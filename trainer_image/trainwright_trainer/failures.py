"""Any exception as a failure a user can act on: its cause, a hint, and the end of the log."""

from __future__ import annotations

import errno
import logging
import re
from collections import deque
from types import TracebackType
from typing import Self

from trainwright.contract import FailureReport, Stage
from trainwright.errors import OutOfMemoryError, StepError, TemporaryError

_MAX_MESSAGE = 800
_MAX_TAIL = 2000
_TAIL_LINES = 40
_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|CUBLAS_STATUS_ALLOC_FAILED", re.IGNORECASE)
_LOADER_OUT_OF_MEMORY = re.compile(
    r"DataLoader worker .* killed by signal: (?:Killed|Bus error)|shared memory\(shm\)"
)
_TEMPORARY_ERRORS = {
    errno.ENOSPC: "The volume is full: ask for a larger workspace (compute.workspace).",
    errno.EDQUOT: "The quota of the volume is used up: ask for a larger workspace (compute.workspace).",
    errno.EIO: "The volume or the node has a fault; another attempt may run elsewhere.",
    errno.ESTALE: "The network volume was lost; another attempt may mount it again.",
}


class LogTail(logging.Handler):
    """Keeps the newest lines of the log; use it as a context manager."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        self._lines: deque[str] = deque(maxlen=_TAIL_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self._lines.append(self.format(record))

    def read(self) -> str:
        """Return the end of the log, bounded."""
        return "\n".join(self._lines)[-_MAX_TAIL:]

    def __enter__(self) -> Self:
        logging.getLogger().addHandler(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        logging.getLogger().removeHandler(self)


def to_step_error(error: Exception) -> StepError:
    """Return the error with its cause; what we did not foresee is internal."""
    if isinstance(error, StepError):
        return error
    message = f"{type(error).__name__}: {error}"
    if _is_loader_out_of_memory(error):
        return OutOfMemoryError(
            message,
            hint="A process that loads images was out of memory: raise compute.resources.limits.memory, or"
            " after a bus error compute.sharedMemory, which counts against that limit; or lower"
            " training.workers.",
        )
    if _is_out_of_memory(error):
        return OutOfMemoryError(
            message, hint="Lower training.batchSize or training.imageSize, or ask for more memory."
        )
    if isinstance(error, OSError) and error.errno in _TEMPORARY_ERRORS:
        return TemporaryError(message, hint=_TEMPORARY_ERRORS[error.errno])
    return StepError(message, hint="This is not foreseen: the end of the log says where it happened.")


def describe_failure(error: StepError, stage: Stage, log_tail: str) -> FailureReport:
    """Return the failure as the report holds it, every text bounded."""
    return FailureReport(
        stage=stage,
        cause=error.cause,
        exit_code=int(error.exit_code),
        message=str(error)[:_MAX_MESSAGE],
        hint=error.hint[:_MAX_MESSAGE],
        log_tail=log_tail,
    )


def _is_loader_out_of_memory(error: BaseException | None) -> bool:
    """Return whether this error, or what led to it, tells of a loader process that the kernel killed."""
    while error is not None:
        if isinstance(error, RuntimeError) and _LOADER_OUT_OF_MEMORY.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and bool(_OUT_OF_MEMORY.search(str(error)))
