"""Why a step of a training run stops, as one tree of exceptions.

StepError                     a cause, whether another attempt can help, and a hint for the user
├── ConfigurationError        the plan can't be carried out as written
├── DataError                 the annotations are not good enough to train on
├── OutOfMemoryError          the accelerator or the machine ran out of memory
├── PreemptedError            we were asked to stop; the work so far is saved
├── TemporaryError            something around us failed that may work later
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

    cause = Cause.CONFIGURATION
    exit_code = ExitCode.CONFIGURATION


class DataError(StepError):
    """The annotations are not good enough to train on; no retry helps."""

    cause = Cause.DATA
    exit_code = ExitCode.DATA


class OutOfMemoryError(StepError):
    """The accelerator or the machine ran out of memory."""

    cause = Cause.OUT_OF_MEMORY
    exit_code = ExitCode.OUT_OF_MEMORY


class PreemptedError(StepError):
    """We were asked to stop (SIGTERM); the newest checkpoint is saved."""

    cause = Cause.PREEMPTION
    exit_code = ExitCode.PREEMPTED


class TemporaryError(StepError):
    """Something around us failed that may work later."""

    cause = Cause.INFRASTRUCTURE
    exit_code = ExitCode.TEMPORARY


class PublishingError(StepError):
    """The sealed model could not be delivered; it is kept, and a retry does not train again."""

    cause = Cause.PUBLISHING
    exit_code = ExitCode.PUBLISHING


class SupersededError(StepError):
    """Another pod is the current one of this run: this one stops and changes nothing more."""

    cause = Cause.SUPERSEDED
    exit_code = ExitCode.SUPERSEDED
