"""The report of one execution as it grows: how far it is, what it found, how it ended."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from threading import Event, RLock
from typing import Any

from trainwright.contract import (
    MOST_CHECKPOINTS,
    Adjustments,
    CheckpointReport,
    FailureReport,
    Outcome,
    Progress,
    RunPlan,
    RunReport,
    Stage,
    StageGroup,
)
from trainwright.errors import PreemptedError
from trainwright_trainer.observers import Moment, Observer

_WEIGHTS = {
    Stage.DATASET: 5,
    Stage.TRAINING: 80,
    Stage.EVALUATION: 3,
    Stage.EXPORT: 4,
    Stage.VERIFICATION: 2,
    Stage.SEALING: 2,
    Stage.PUBLISHING: 4,
}
"""How much of the whole each stage is taken to be, in no unit."""


_MOST_OF_A_PROBLEM = 256
_TELLING_SECONDS = 20.0  # for so long the first batches, which load and compile, say little of the others


class RunProgress:
    """Keeps the report and tells the observer; as the steps' watcher it also ends them when asked to stop."""

    def __init__(
        self,
        plan: RunPlan,
        observer: Observer,
        *,
        attempt: int,
        stop: Event,
        group: StageGroup | None = None,
    ) -> None:
        self._stages = plan.stages
        self._observer = observer
        self._stop = stop
        self._epoch_clock = _EpochClock()
        self._made = 0
        self._upload_seconds = 0.0
        self._telling = RLock()  # checkpoints are uploaded, and told of, by a thread of their own
        self.report = RunReport(
            attempt=attempt,
            group=group,
            heartbeat_time=_now(),
            progress=Progress(percent=0, stage=self._stages[0]),
        )

    def recall_checkpoint(self, checkpoint: CheckpointReport | None) -> None:
        """Go on reporting what an earlier attempt reported, until there is a newer one."""
        self.report = self.report.model_copy(update={"checkpoint": checkpoint})

    def adjust(self, adjustments: Adjustments) -> None:
        """This execution differs from the plan; told with the next change."""
        if adjustments != Adjustments():
            self.report = self.report.model_copy(update={"adjustments": adjustments})

    def use_batch(self, batch_size: int) -> None:
        """Training goes on with a batch of this size, which is not the plan's."""
        told = self.report.adjustments or Adjustments()
        self.adjust(told.model_copy(update={"batch_size": batch_size}))

    def begin(self, stage: Stage) -> None:
        """A stage begins."""
        self.check()
        self._epoch_clock = _EpochClock()
        # The last epoch stays in sight through the later stages.
        progress = self._step(percent=self._percent(stage, 0), stage=stage, estimated_remaining_seconds=None)
        self._tell(Moment.STAGE, progress=progress)

    def finish(self, stage: Stage, seconds: float, **found: Any) -> None:
        """A stage is done, now or in an earlier attempt; `found` are fields of the report."""
        finished = {**self.report.finished_stages, stage: round(seconds, 1)}
        progress = self._step(percent=self._percent(stage, 1))
        self._tell(Moment.STAGE, finished_stages=finished, stage_time=_now(), progress=progress, **found)

    def describe(self, **found: Any) -> None:
        """Add fields to the report."""
        self._tell(Moment.STEP, **found)

    def end(self, outcome: Outcome, failure: FailureReport | None = None) -> None:
        """The execution is over; only a success of the whole is a hundred percent."""
        progress = self.report.progress.model_copy(update={"estimated_remaining_seconds": None})
        if outcome in (Outcome.SUCCEEDED, Outcome.DRY_RUN):
            progress = progress.model_copy(update={"percent": 100})
        self._tell(Moment.END, outcome=outcome, failure=failure, progress=progress)

    def check(self) -> None:
        """Raise `PreemptedError` when a stop was asked for."""
        if self._stop.is_set():
            raise PreemptedError(
                f"stopped on request in stage {self.report.progress.stage}",
                hint="The next attempt goes on from the newest checkpoint.",
            )

    def advance(self, fraction: float) -> None:
        """A step is made, and the running stage has come this far."""
        self.check()
        percent = self._percent(self.report.progress.stage, fraction)
        self._tell(Moment.STEP, progress=self._step(percent=percent))

    def train_batch(self, epoch: int, epochs: int, batch: int, batches: int) -> None:
        """Batch `batch` of `batches` of epoch `epoch` of `epochs`, all from 1, is trained."""
        self.check()
        done = epoch - 1 + batch / batches
        progress = self._step(
            percent=self._percent(self.report.progress.stage, done / epochs),
            epoch=epoch - 1,
            epochs=epochs,
            batch=batch,
            batches=batches,
            estimated_remaining_seconds=self._epoch_clock.estimate(done, epochs),
        )
        self._tell(Moment.STEP, progress=progress)

    def linger(self) -> None:
        """A step is made that brings the stage no further; what is nearly done is not ended by a stop."""
        self._tell(Moment.STEP, progress=self._step())

    def keep_checkpoint(self, checkpoint: CheckpointReport) -> None:
        """A checkpoint is verified: another attempt can go on from it."""
        with self._telling:
            before = self.report.checkpoint
            changes: dict[str, Any] = {"save_seconds": checkpoint.save_seconds + self._upload_seconds}
            if before is not None and before.digest != checkpoint.digest:
                stored = before.stored_epoch
                changes["stored_epoch"] = stored if stored is None or stored <= checkpoint.epoch else None
                changes["earlier"] = (before.digest, *before.earlier)[:MOST_CHECKPOINTS]
                changes["problem"] = before.problem
            self._tell(Moment.STEP, checkpoint=checkpoint.model_copy(update=changes))

    def store_checkpoint(self, epoch: int | None, seconds: float, problem: str) -> None:
        """The store has the checkpoint of this epoch now, or has it not because of a problem."""
        with self._telling:
            newest = self.report.checkpoint
            if newest is None:
                return
            changes: dict[str, Any] = {"problem": problem[:_MOST_OF_A_PROBLEM]}
            if epoch is not None:
                changes["stored_epoch"] = epoch
                changes["save_seconds"] = newest.save_seconds - self._upload_seconds + seconds
                self._upload_seconds = seconds
            self._tell(Moment.STEP, checkpoint=newest.model_copy(update=changes))

    def resume_from(self, epoch: int) -> None:
        """Training goes on after this epoch."""
        self._epoch_clock = _EpochClock(epoch)
        self._tell(Moment.STEP, resumed_from_epoch=epoch)

    def finish_epoch(self, epoch: int, epochs: int, metrics: Mapping[str, float]) -> None:
        """An epoch is trained, validated and saved."""
        stage = self.report.progress.stage
        progress = self._step(
            percent=self._percent(stage, epoch / epochs),
            epoch=epoch,
            epochs=epochs,
            batch=None,
            batches=None,
            estimated_remaining_seconds=self._epoch_clock.estimate(epoch, epochs),
        )
        self._tell(Moment.EPOCH, progress=progress, metrics=dict(metrics))
        self.check()

    def _step(self, **changes: Any) -> Progress:
        """Return the progress after one more step: without steps a run is seen to stand still."""
        with self._telling:
            self._made += 1
            changes.update(step=self._made, step_time=_now())
            return self.report.progress.model_copy(update=changes)

    def _percent(self, stage: Stage, fraction: float) -> int:
        """Return how far the whole is; it reaches 100 only at the end."""
        before = sum(_WEIGHTS[earlier] for earlier in self._stages[: self._stages.index(stage)])
        whole = sum(_WEIGHTS[each] for each in self._stages)
        return min(int(100 * (before + _WEIGHTS[stage] * min(fraction, 1)) / whole), 99)

    def _tell(self, moment: Moment, **changes: Any) -> None:
        with self._telling:
            changes.update(heartbeat_time=_now(), sequence=self.report.sequence + 1)
            self.report = self.report.model_copy(update=changes)
            self._observer.observe(self.report, moment)


class _EpochClock:
    """Estimates what remains of the training from what this attempt has trained."""

    def __init__(self, first: int = 0) -> None:
        self._first = first
        self._start = time.monotonic()

    def estimate(self, done: float, epochs: int) -> int | None:
        """Return the seconds until `epochs` are trained, of which `done` are; too little tells nothing."""
        seconds, trained = time.monotonic() - self._start, done - self._first
        if trained <= 0 or (trained < 1 and seconds < _TELLING_SECONDS):
            return None
        return round(seconds / trained * (epochs - done))


def _now() -> datetime:
    return datetime.now(UTC)
