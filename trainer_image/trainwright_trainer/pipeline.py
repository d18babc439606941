"""Joins the steps for one immutable plan; knows no Kubernetes, and is the same on a laptop and in a pod."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from threading import Event
from typing import TypeVar

from trainwright.artifacts import (
    Dataset,
    Evaluation,
    OnnxModel,
    Published,
    SealedModel,
    VerifiedModel,
    Weights,
)
from trainwright.contract import (
    Adjustments,
    Contract,
    Outcome,
    PublishingReport,
    RunPlan,
    RunReport,
    Stage,
    StageGroup,
)
from trainwright.delivery import Fence
from trainwright.errors import StorageError
from trainwright_trainer.annotations.classes import refuse_other_classes
from trainwright_trainer.bundles import Trained
from trainwright_trainer.checkpoint_store import CheckpointStore, Reported
from trainwright_trainer.checkpoint_uploads import CheckpointUploads
from trainwright_trainer.failures import LogTail, describe_failure, to_step_error
from trainwright_trainer.files import digest_bytes
from trainwright_trainer.findings import (
    describe_evaluation,
    describe_model,
    describe_parts,
    describe_weights,
)
from trainwright_trainer.journal import Journal
from trainwright_trainer.observers import Observer, Observers
from trainwright_trainer.places import Places
from trainwright_trainer.progress import RunProgress
from trainwright_trainer.report.findings import Made
from trainwright_trainer.report.writing import write_report
from trainwright_trainer.stages import Step
from trainwright_trainer.steps.dataset import build_dataset, dataset_is_whole
from trainwright_trainer.steps.evaluation import evaluate_weights
from trainwright_trainer.steps.export import export_model
from trainwright_trainer.steps.parent import fetch_parent, find_parent
from trainwright_trainer.steps.publishing import publish_model
from trainwright_trainer.steps.sealing import seal_model
from trainwright_trainer.steps.training import train_model
from trainwright_trainer.steps.verification import verify_model
from trainwright_trainer.storage import open_storage
from trainwright_trainer.watching import count_bytes
from trainwright_trainer.workspace_lock import lock_workspace

_LOG = logging.getLogger(__name__)
UNCHANGED = Adjustments()
_Output = TypeVar("_Output", bound=Contract)


@dataclass(frozen=True)
class RunResult:
    """What an execution made; stages that the plan leaves out are None."""

    report: RunReport
    dataset: Dataset
    weights: Weights | None = None
    evaluation: Evaluation | None = None
    onnx: OnnxModel | None = None
    verified: VerifiedModel | None = None
    sealed: SealedModel | None = None
    published: Published | None = None


def execute(  # noqa: PLR0913 - the plan, its places, and four collaborators that have defaults
    plan: RunPlan,
    places: Places,
    *,
    observer: Observer | None = None,
    fence: Fence | None = None,
    stop: Event | None = None,
    attempt: int = 1,
    group: StageGroup | None = None,
    reported: Reported | None = None,
    adjustments: Adjustments = UNCHANGED,
) -> RunResult:
    """Carry the plan out from the first stage that is not done in the workspace, or raise `StepError`.

    `adjustments` are what this attempt does otherwise than the plan says; what it makes is the plan's.

    Of a `group` only its stages are carried out: those before it must be done in the workspace.

    `observer` is told of every change of the report, `fence` is asked before a model is committed, and
    setting `stop` ends the execution with `PreemptedError` at the next batch or item. `reported` is what the
    run's status says of checkpoints: where there is a cluster, no other in the store is believed.
    """
    places = replace(places, workspace=places.workspace.resolve())
    guarded = Observers([] if observer is None else [observer])
    progress = RunProgress(plan, guarded, attempt=attempt, group=group, stop=stop or Event())
    if reported is not None:
        progress.recall_checkpoint(reported.checkpoint)
    progress.adjust(adjustments)
    with LogTail() as log:
        try:
            places.workspace.mkdir(parents=True, exist_ok=True)
            with ExitStack() as stack:
                stack.enter_context(lock_workspace(places.workspace))
                uploads = None
                if plan.checkpoint.store is not None and Stage.TRAINING in stages_of(plan, group):
                    store = _open_store(plan, places, attempt, reported)
                    outbox = places.workspace / "outbox"
                    uploads = stack.enter_context(CheckpointUploads(store, outbox, progress))
                result = _Execution(plan, places, progress, fence or _no_fence, group, uploads).run()
        except Exception as error:
            failure = to_step_error(error)
            if failure is not error:
                _LOG.exception("stage %s failed", progress.report.progress.stage)
            stage = progress.report.progress.stage
            progress.end(Outcome.FAILED, describe_failure(failure, stage, log.read()))
            raise failure from error
    return result


class _Execution:
    """One execution: which steps there are, and what each hands to the next."""

    def __init__(  # noqa: PLR0913, PLR0917 - what one execution works with
        self,
        plan: RunPlan,
        places: Places,
        progress: RunProgress,
        fence: Fence,
        group: StageGroup | None,
        uploads: CheckpointUploads | None,
    ) -> None:
        self._plan = plan
        self._places = places
        self._progress = progress
        self._fence = fence
        self._group = group
        self._uploads = uploads
        self._journal = Journal(places.workspace, plan.digest)

    def run(self) -> RunResult:
        dataset = self._build()
        if self._plan.dry_run:
            return RunResult(self._end(Outcome.DRY_RUN), dataset)
        if self._group is StageGroup.DATASET:
            return RunResult(self._end(Outcome.GROUP_DONE), dataset)
        weights = self._train(dataset)
        evaluation = self._evaluate(weights, dataset)
        if self._group is StageGroup.TRAINING:
            return RunResult(self._end(Outcome.GROUP_DONE), dataset, weights, evaluation)
        onnx = self._export(weights, dataset)
        verified = self._verify(onnx, weights, dataset)
        self._write_report(Made(dataset, weights, evaluation, onnx, verified))
        sealed, published = self._deliver(onnx, Trained(weights, dataset, evaluation))
        if self._uploads is not None:  # whoever does not hear of our success must not train again
            self._uploads.finish()
        report = self._end(Outcome.SUCCEEDED)
        return RunResult(report, dataset, weights, evaluation, onnx, verified, sealed, published)

    def _build(self) -> Dataset:
        return self._do(
            Step(
                Stage.DATASET,
                Dataset,
                inputs=(self._plan.dataset.model_dump_json(),),
                make=self._build_for_parent,
                files=lambda made: (made.manifest, made.summary, made.quarantine, f"{made.folder}/data.yaml"),
                found=lambda made: {"dataset": made.report},
                is_whole=self._is_ready,
            )
        )

    def _build_for_parent(self) -> Dataset:
        """Build the dataset, and refuse a parent that can't be trained on it: before any GPU has work."""
        parent = fetch_parent(self._plan, self._places)
        earlier = None
        if parent is not None and parent.manifest is not None:
            earlier = self._places.workspace / parent.manifest
        dataset = build_dataset(self._plan, self._places, self._progress, earlier=earlier)
        if parent is not None:
            refuse_other_classes(dataset.class_map, parent.class_map, str(self._plan.model.parent))
        return dataset

    def _is_ready(self, dataset: Dataset) -> bool:
        has_parent = self._plan.model.parent is None or find_parent(self._plan, self._places) is not None
        return has_parent and dataset_is_whole(dataset, self._places.workspace)

    def _train(self, dataset: Dataset) -> Weights:
        return self._do(
            Step(
                Stage.TRAINING,
                Weights,
                inputs=(dataset.report.digest,),
                make=lambda: train_model(
                    dataset,
                    self._plan,
                    self._places,
                    self._progress,
                    self._uploads,
                    parent=find_parent(self._plan, self._places),
                    adjustments=self._progress.report.adjustments or UNCHANGED,
                ),
                files=lambda made: (made.path,),
                found=lambda made: describe_weights(made, self._plan),
            )
        )

    def _evaluate(self, weights: Weights, dataset: Dataset) -> Evaluation:
        return self._do(
            Step(
                Stage.EVALUATION,
                Evaluation,
                inputs=(weights.digest, dataset.report.digest),
                make=lambda: evaluate_weights(
                    weights,
                    dataset,
                    self._plan,
                    self._places,
                    self._progress,
                    find_parent(self._plan, self._places),
                ),
                files=lambda made: (made.details,),
                found=self._judge,
            )
        )

    def _export(self, weights: Weights, dataset: Dataset) -> OnnxModel:
        return self._do(
            Step(
                Stage.EXPORT,
                OnnxModel,
                inputs=(weights.digest, dataset.report.digest),
                make=lambda: export_model(weights, dataset, self._plan, self._places, self._progress),
                files=lambda made: made.files,
                found=lambda made: describe_model(made, self._plan),
            )
        )

    def _verify(self, onnx: OnnxModel, weights: Weights, dataset: Dataset) -> VerifiedModel:
        return self._do(
            Step(
                Stage.VERIFICATION,
                VerifiedModel,
                inputs=(onnx.digest, weights.digest, dataset.report.digest),
                make=lambda: verify_model(onnx, weights, dataset, self._plan, self._places, self._progress),
            )
        )

    def _write_report(self, made: Made) -> None:
        """Write it anew in each attempt: it is quick, and follows from what the stages made."""
        seconds = self._progress.report.finished_stages
        self._progress.describe(report=write_report(self._plan, made, self._places.workspace, seconds))

    def _deliver(self, onnx: OnnxModel, trained: Trained) -> tuple[SealedModel | None, Published | None]:
        if self._plan.delivery is None:
            return None, None
        evaluation = trained.evaluation
        sealed = self._do(
            Step(
                Stage.SEALING,
                SealedModel,
                inputs=(onnx.digest,),
                make=lambda: seal_model(onnx, self._plan, self._places, self._progress, trained),
                files=lambda made: made.paths,
            )
        )
        published = self._do(
            Step(
                Stage.PUBLISHING,
                Published,
                inputs=(sealed.small.digest, sealed.big.digest, str(evaluation.gate_passed)),
                make=lambda: publish_model(
                    sealed,
                    evaluation,
                    self._plan,
                    self._places,
                    self._pass_fence,
                    count_bytes(self._progress, 2 * sealed.big_size),  # sent once, and read back once
                ),
                found=lambda made: describe_parts(onnx, evaluation, made, self._plan),
            )
        )
        return sealed, published

    def _do(self, step: Step[_Output]) -> _Output:
        """Return what an earlier attempt made, if that is still whole; else do the step and write it down."""
        self._progress.begin(step.stage)
        input_digest = digest_bytes("\n".join(step.inputs).encode())
        recalled = self._journal.recall(step.stage, input_digest, step.output)
        if recalled is not None and step.is_whole(recalled[0]):
            output, seconds = recalled
        else:
            self._require_own(step.stage)
            start = time.monotonic()
            output = step.make()
            seconds = time.monotonic() - start
            self._journal.record(step.stage, input_digest, output, files=step.files(output), seconds=seconds)
        self._progress.finish(step.stage, seconds, **step.found(output))
        return output

    def _require_own(self, stage: Stage) -> None:
        """Raise where another group's pod should have done the stage: this one has not what that takes."""
        if self._group is not None and stage not in self._group.stages:
            raise StorageError(
                f"stage {stage} is not done in the workspace, or what it made is damaged",
                hint="The next attempt does it again. If this repeats, the pods do not share one volume.",
            )

    def _pass_fence(self, file_id: str) -> None:
        self._progress.check()
        self._fence(file_id)
        self._progress.describe(publishing=PublishingReport(file_id=file_id))

    def _judge(self, evaluation: Evaluation) -> dict[str, object]:
        _LOG.info("%s", evaluation.gate_reason)
        return describe_evaluation(evaluation, self._progress.report.metrics)

    def _end(self, outcome: Outcome) -> RunReport:
        self._progress.end(outcome)
        return self._progress.report


def stages_of(plan: RunPlan, group: StageGroup | None) -> tuple[Stage, ...]:
    """Return the stages that one execution carries out."""
    return tuple(stage for stage in plan.stages if group is None or stage in group.stages)


def _open_store(plan: RunPlan, places: Places, attempt: int, reported: Reported | None) -> CheckpointStore:
    """Return the checkpoint store of a plan that has one; what is wrong with it shows before any work."""
    storage = open_storage(plan.checkpoint, places)
    store = CheckpointStore(storage, plan.run, attempt=attempt, keep=plan.checkpoint.keep, reported=reported)
    store.open()
    return store


def _no_fence(file_id: str) -> None:
    """Without a cluster no other pod can be the current one."""
