"""Any exception as a failure a user can act on: its cause, a hint, and the end of the log."""

from __future__ import annotations

import errno
import logging
import socket
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from trainwright.contract import Cause, FailureReport, Stage
from trainwright.errors import (
    CudaOutOfMemoryError,
    GpuFaultError,
    HostOutOfMemoryError,
    NetworkError,
    NotANumberError,
    SharedMemoryError,
    StepError,
    StorageError,
)
from trainwright.symptoms import recognise

_MAX_MESSAGE = 800
_MAX_TAIL = 2000
_TAIL_LINES = 40
_HINTS: dict[type[StepError], str] = {
    SharedMemoryError: "Raise compute.sharedMemory, which counts against compute.resources.limits.memory; or"
    " lower training.workers.",
    HostOutOfMemoryError: "Raise compute.resources.limits.memory, or lower training.workers or"
    " training.batchSize.",
    CudaOutOfMemoryError: "Lower training.batchSize or training.imageSize, or choose a GPU with more memory.",
    GpuFaultError: "The GPU or its driver failed: look at both on the node.",
    NotANumberError: "Lower training.learningRate, or set training.mixedPrecision to false.",
    NetworkError: "A server did not answer: look whether it does from the node's network.",
    StorageError: "Look at the volumes; a full workspace needs another run with a larger compute.workspace.",
}
_KINDS = {kind.cause: kind for kind in _HINTS}
_CONNECTION_ERRORS = (ConnectionError, TimeoutError, socket.gaierror)
_STORAGE_ERRORS = {
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
    for link in _chain(error):
        if found := _recognise(link):
            kind, hint = found
            return kind(message if link is error else f"{message}: {link}", hint=hint)
    return StepError(message, hint="This is not foreseen: the end of the log says where it happened.")


def with_hint(kind: type[StepError], message: str) -> StepError:
    """Return an error of this kind with what can be done about it."""
    return kind(message, hint=_HINTS.get(kind, ""))


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


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error, then what led to it: a loader's signal for example is told by the error before."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _recognise(error: BaseException) -> tuple[type[StepError], str] | None:
    """Return the kind of an error that is foreseen, and what can be done about it."""
    if isinstance(error, OSError) and error.errno in _STORAGE_ERRORS:
        return StorageError, _STORAGE_ERRORS[error.errno]
    kind: type[StepError] | None = None
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        kind = HostOutOfMemoryError
    elif isinstance(error, _CONNECTION_ERRORS):
        kind = NetworkError
    elif isinstance(error, RuntimeError):  # torch's own errors are such
        kind = _KINDS.get(recognise(str(error)) or Cause.INTERNAL)
    return (kind, _HINTS[kind]) if kind else None
