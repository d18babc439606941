"""`status` of a run: what the operator observed, and what the current pod reports of itself."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from trainwright.contract import Adjustments, Cause, ImageCounts, PartsReport, RunReport, Stage, StageGroup
from trainwright_operator.api.section import Observed, ShortText, Text
from trainwright_operator.names import AttemptOutcome, Phase

Digest = Annotated[str, Field(max_length=71, pattern=r"^sha256:[0-9a-f]{64}$")]


class Condition(Observed):
    """One statement about the run, in the form all Kubernetes tools read."""

    type: Annotated[str, Field(max_length=64)] = Field(description="What the statement is about.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    observed_generation: int | None = Field(
        default=None, ge=0, description="The run's metadata.generation the statement was made for."
    )
    last_transition_time: datetime = Field(description="When the status last changed.")
    reason: Annotated[str, Field(max_length=128)] = Field(description="Why, in one word, for programs.")
    message: Text = Field(default="", description="Why, in a sentence, for people.")


class DatasetStatus(Observed):
    """The dataset the model is trained on."""

    digest: Digest = Field(description="Digest of the dataset: the same digest, the same images and labels.")
    images: ImageCounts
    copies: int = Field(default=0, ge=0, description="Altered copies of training images, beside them.")
    quarantined: int = Field(
        ge=0, description="Annotations left out because they are unreadable or malformed."
    )
    classes: int = Field(ge=0, description="How many classes the dataset has.")
    stream_offset: int | None = Field(
        default=None,
        ge=0,
        description="With dataset.annotationStream: all messages up to this offset are in it.",
    )


class ModelStatus(Observed):
    """The model the run made."""

    name: ShortText = Field(description="Name of the model.")
    version: ShortText = Field(description="Version of the model; `trainwright fetch NAME@VERSION` gets it.")
    digest: Digest = Field(description="Digest of the plain ONNX file.")
    size: int = Field(ge=0, description="Size of the plain ONNX file, in bytes.")
    parts: PartsReport | None = None


class PlanReference(Observed):
    """The resolved settings the run is carried out with."""

    config_map: ShortText = Field(description="Name of the ConfigMap that holds them, under plan.json.")
    digest: Digest = Field(description="Digest of the plan.")


class ProfileSnapshot(Observed):
    """What the run was started with beside its spec: its profile and the operator's settings of then.

    It is in the ConfigMap of the plan, under snapshot.json; later changes of either concern new runs only.
    """

    kind: Literal["TrainingProfile", "ClusterTrainingProfile"] | None = Field(
        default=None, description="Kind of the profile; empty where the run has none."
    )
    name: ShortText | None = Field(default=None, description="Name of the profile.")
    version: Annotated[str, Field(max_length=63)] | None = Field(
        default=None, description="Version of the profile."
    )
    digest: Digest = Field(description="Digest of the snapshot: the same digest, the same settings.")


class Attempt(Observed):
    """One attempt to carry out the run: one Job, or one for each group of its stages."""

    number: int = Field(ge=1, description="Number of the attempt; the first is 1.")
    group: StageGroup | None = Field(
        default=None, description="The stages this Job carries out, where compute.stages is Apart."
    )
    job: ShortText = Field(description="Name of the Job.")
    pod: ShortText | None = Field(default=None, description="Name of the Job's pod.")
    node: ShortText | None = Field(default=None, description="Node the pod runs on.")
    image: Annotated[str, Field(max_length=512)] | None = Field(
        default=None, description="Image of the trainer, with its digest where the node reports it."
    )
    start_time: datetime | None = Field(default=None, description="When the Job was made.")
    gpus: int | None = Field(default=None, ge=0, description="GPUs of the pod.")
    gpu_seconds: int | None = Field(
        default=None, ge=0, description="GPUs times seconds, from the container's start to its end."
    )
    pod_seconds: int | None = Field(default=None, ge=0, description="Seconds in which the container ran.")
    lost_seconds: int | None = Field(
        default=None, ge=0, description="Those of podSeconds whose work has to be done again."
    )
    end_time: datetime | None = Field(default=None, description="When the attempt ended.")
    retry_request: ShortText | None = Field(
        default=None, description="The run's retryRequest when the attempt was started."
    )
    outcome: AttemptOutcome | None = Field(
        default=None, description="How the attempt ended; empty while it runs."
    )
    ending: Cause | None = Field(
        default=None, description="Why the attempt's pod is asked to end, or was: it fails for this cause."
    )
    stopping: bool | None = Field(
        default=None,
        description="Whether the attempt's pod is asked to end, or was, because the run was suspended or"
        " cancelled: no failure, even if the run goes on at once.",
    )
    cause: Cause | None = Field(default=None, description="Why the attempt failed.")
    exit_code: int | None = Field(default=None, description="Exit code of the trainer.")
    stage: Stage | None = Field(default=None, description="The stage a failed attempt ended in.")
    resumed_from_epoch: int | None = Field(
        default=None, ge=0, description="The epoch whose checkpoint the attempt went on from."
    )
    queued_time: datetime | None = Field(
        default=None, description="When the Job began to wait in its queue, the last time it did."
    )
    admitted_time: datetime | None = Field(
        default=None, description="When that wait ended; empty while the Job waits."
    )
    queued_seconds: int | None = Field(
        default=None, ge=0, description="Seconds of all the Job's waits that ended."
    )
    preemptions: int | None = Field(
        default=None, ge=0, description="How often the queue took back the GPU it had given the Job."
    )
    message: Annotated[str, Field(max_length=512)] | None = Field(
        default=None, description="Why the attempt failed, in a sentence."
    )
    adjustments: Adjustments | None = None


class Failure(Observed):
    """Why the last attempt failed, and what to do about it."""

    stage: Stage | None = Field(default=None, description="The stage it failed in.")
    cause: Cause = Field(description="What kind of failure it is; it decides about another attempt.")
    exit_code: int | None = Field(default=None, description="Exit code of the trainer.")
    message: Text = Field(description="What went wrong.")
    hint: Annotated[str, Field(max_length=1024)] = Field(default="", description="What can be done about it.")
    log_tail: Annotated[str, Field(max_length=4096)] = Field(
        default="", description="The last lines of the trainer's log."
    )


class QueueStatus(Observed):
    """The queue of the run's newest Job that was in one."""

    name: ShortText = Field(description="Name of the LocalQueue.")


class Notice(Observed):
    """A phase that somebody wants to be told of."""

    phase: Phase = Field(description="The phase the run entered.")
    attempt: int = Field(ge=0, description="The newest attempt's number then.")
    time: datetime = Field(description="When it is told of: as the run entered the phase, or asked later.")
    told: dict[str, Literal["Pending", "Sent", "Failed"]] = Field(
        default={},
        max_length=4,
        description="What became of it for each address, by a digest of its Secret's name and key.",
    )


class CurrentPod(Observed):
    """The one pod that may write status.trainer; set after its Job and its run were checked."""

    name: ShortText = Field(description="Name of the pod.")
    uid: Annotated[str, Field(max_length=64)] = Field(description="Uid of the pod; its token carries it.")
    start_time: datetime | None = Field(default=None, description="When its container began.")
    end_time: datetime | None = Field(
        default=None, description="When it ended; its seconds are in status.usage then."
    )


class Usage(Observed):
    """What the run used, of pods that have ended: gpuSeconds is useful and the three lost ones together.

    Lost is what has to be done again: from the newest checkpoint or finished stage to the pod's end.
    """

    gpu_seconds: int = Field(
        ge=0, description="GPUs times seconds, from each container's start to its end, of all attempts."
    )
    useful: int = Field(ge=0, description="GPU-seconds whose work is done for good.")
    lost_to_preemption: int = Field(ge=0, description="GPU-seconds lost as a pod was preempted or evicted.")
    lost_to_failure: int = Field(ge=0, description="GPU-seconds lost as an attempt failed.")
    lost_to_suspension: int = Field(
        ge=0, description="GPU-seconds lost as the run was suspended or cancelled."
    )
    pod_seconds: int = Field(ge=0, description="Seconds in which a container ran, with GPUs or without.")
    lost_pod_seconds: int = Field(ge=0, description="Those of podSeconds whose work has to be done again.")
    queued_seconds: int = Field(
        ge=0, description="Seconds in which an attempt's Job was there, and no container of it ran yet."
    )
    cost: float | None = Field(
        default=None,
        ge=0,
        description="What gpuSeconds cost at the platform's price for a GPU-hour, in its currency.",
    )
    closed_time: datetime | None = Field(default=None, description="Until when all this is counted.")


class TrainingRunStatus(Observed):
    """What became of the run so far."""

    observed_generation: int | None = Field(
        default=None, ge=0, description="The metadata.generation this status was computed for."
    )
    phase: Phase | None = Field(
        default=None, description="The run's state in one word, for people; programs read the conditions."
    )
    stage: Stage | None = Field(default=None, description="The stage the run is in, or ended in.")
    conditions: Annotated[
        tuple[Condition, ...],
        Field(
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = Field(
        default=(),
        description="Accepted, Admitted, DatasetReady, Trained, Verified, Published, Succeeded, Failed,"
        " Suspended; and Ready, Reconciling, Stalled for tools that wait for any object.",
    )
    metrics: dict[str, float] = Field(
        default={}, max_length=32, description="What the model reaches: mAP50, mAP50to95, precision, recall."
    )
    dataset: DatasetStatus | None = None
    model: ModelStatus | None = None
    plan: PlanReference | None = None
    profile: ProfileSnapshot | None = None
    attempt: int | None = Field(default=None, ge=0, description="Number of the newest attempt.")
    attempts: Annotated[
        tuple[Attempt, ...], Field(max_length=10, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = Field(default=(), description="The ten newest attempts; the newest is the last.")
    failures: dict[Cause, int] = Field(
        default={},
        max_length=len(Cause),
        description="How many attempts failed for each cause, of all there were: budgets are counted by it.",
    )
    queue: QueueStatus | None = None
    failure: Failure | None = None
    current_pod: CurrentPod | None = None
    usage: Usage | None = None
    retry_request: ShortText | None = Field(
        default=None, description="The last spec.retryRequest that was granted an attempt."
    )
    start_time: datetime | None = Field(default=None, description="When the first attempt's Job was made.")
    completion_time: datetime | None = Field(
        default=None, description="When the run succeeded, failed or was cancelled."
    )
    children_deleted_time: datetime | None = Field(
        default=None,
        description="When the run's Jobs, pods and workspace were deleted, as ttlSecondsAfterFinished says.",
    )
    notices: Annotated[
        tuple[Notice, ...], Field(max_length=5, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = Field(default=(), description="The newest phases that spec.notify asks to be told of.")
    trainer: RunReport | None = Field(
        default=None,
        description="What the current pod reports of itself. Only that pod can write it, and nothing else.",
    )
