"""Why a step of a training run stops, as one tree of exceptions.

StepError                     a cause, whether another attempt can help, and a hint for the user
├── ConfigurationError        the plan can't be carried out as written
├── DataError                 the annotations are not good enough to train on
├── NotANumberError           the loss is not a number, and does not become one again
├── CudaOutOfMemoryError      the GPU ran out of memory
├── HostOutOfMemoryError      the machine or the container ran out of memory
├── SharedMemoryError         /dev/shm ran full
├── GpuFaultError             the GPU or its driver failed
├── StorageError              a volume is full, faulty, or in use by another process
├── NetworkError              a server did not answer
├── PreemptedError            we were asked to stop; the work so far is saved
├── PublishingError           the model is sealed, but could not be delivered
└── SupersededError           another pod is the current one of this run
"""

from __future__ import annotations

from typing import ClassVar

from trainwright.contract import Cause, ExitCode


class StepError(Exception):
    """A step can't go on: `str(error)` says what is wrong, `hint` what the user can do about it."""

    cause: ClassVar[Cause] = Cause.INTERNAL
    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigurationError(StepError):
    """The plan can't be carried out as written; no retry helps."""

    cause = Cause.USER_CONFIG
    exit_code = ExitCode.USER_CONFIG


class DataError(StepError):
    """The annotations are not good enough to train on; no retry helps."""

    cause = Cause.DATA
    exit_code = ExitCode.DATA


class NotANumberError(StepError):
    """The loss is not a number, and does not become one again."""

    cause = Cause.NAN
    exit_code = ExitCode.NAN


class CudaOutOfMemoryError(StepError):
    """The GPU ran out of memory; a smaller batch may fit."""

    cause = Cause.CUDA_OOM
    exit_code = ExitCode.CUDA_OOM


class HostOutOfMemoryError(StepError):
    """The machine or the container ran out of memory; fewer loader processes may fit."""

    cause = Cause.HOST_OOM
    exit_code = ExitCode.HOST_OOM


class SharedMemoryError(StepError):
    """The memory that loader processes share ran full."""

    cause = Cause.SHM_EXHAUSTED
    exit_code = ExitCode.SHM_EXHAUSTED


class GpuFaultError(StepError):
    """The GPU or its driver failed; another node may do."""

    cause = Cause.GPU_FAULT
    exit_code = ExitCode.GPU_FAULT


class StorageError(StepError):
    """A volume is full, faulty, or in use by another process."""

    cause = Cause.STORAGE
    exit_code = ExitCode.STORAGE


class NetworkError(StepError):
    """A server did not answer; it may later."""

    cause = Cause.NETWORK
    exit_code = ExitCode.NETWORK


class PreemptedError(StepError):
    """We were asked to stop (SIGTERM); the newest checkpoint is saved."""

    cause = Cause.PREEMPTED
    exit_code = ExitCode.PREEMPTED


class PublishingError(StepError):
    """The sealed model could not be delivered; it is kept, and a retry does not train again."""

    cause = Cause.PUBLISHING
    exit_code = ExitCode.PUBLISHING


class SupersededError(StepError):
    """Another pod is the current one of this run: this one stops and changes nothing more."""

    cause = Cause.SUPERSEDED
    exit_code = ExitCode.SUPERSEDED
