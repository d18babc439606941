"""Every name this operator gives to something in the cluster, each with a sentence on what it is."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from trainwright.contract import StageGroup

GROUP = "trainwright.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
RUN_KIND = "TrainingRun"
RUN_PLURAL = "trainingruns"
PROFILE_KIND = "TrainingProfile"
PROFILE_PLURAL = "trainingprofiles"
CLUSTER_PROFILE_KIND = "ClusterTrainingProfile"
CLUSTER_PROFILE_PLURAL = "clustertrainingprofiles"

# Labels
RUN_LABEL = f"{GROUP}/run"  # on every child: the name of the run it belongs to; the watches select by it
ATTEMPT_LABEL = f"{GROUP}/attempt"  # on Jobs and their Pods: the number of the attempt
GROUP_LABEL = f"{GROUP}/stage-group"  # on Jobs and their Pods where stages are apart: which of them it does
USE_LABEL = f"{GROUP}/use"  # on a Secret or ConfigMap: what runs may use it for; without it they may not
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"  # on every child: `trainwright-operator`
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"  # on the Job that trains: the LocalQueue it waits in
QUEUE_PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"  # beside it: Kueue's priority class for the Job
WORKLOAD_JOB_LABEL = "kueue.x-k8s.io/job-uid"  # Kueue's, on its Workloads: the uid of the Job each is for

# Annotations
PLAN_DIGEST_ANNOTATION = f"{GROUP}/plan-digest"  # on every child: the digest of the plan it was made from
GPUS_ANNOTATION = f"{GROUP}/gpus"  # on Jobs: GPUs of the pod, by which its seconds are counted
ADJUSTMENTS_ANNOTATION = f"{GROUP}/adjustments"  # on Jobs: how the attempt differs from the plan
RETRY_REQUEST_ANNOTATION = f"{GROUP}/retry-request"  # on Jobs: the run's retryRequest when it was made

# Field managers of server-side apply
OPERATOR_MANAGER = "trainwright-operator"  # owns all of a run's status but `trainer`
TRAINER_MANAGER = "trainwright-trainer"  # owns `status.trainer`

# Access of the trainer
TRAINER_ACCOUNT = (
    "trainwright-trainer"  # the ServiceAccount of trainer pods, one per namespace, and its RoleBinding
)
TRAINER_CLUSTER_ROLE = "trainwright-trainer"  # get and patch on trainingruns/status; from the chart
FENCE_POLICY = "trainwright-trainer-fence"  # the ValidatingAdmissionPolicy of the chart, and its binding

# Leadership
LEASE_NAME = "trainwright-operator"  # the Lease, in the operator's namespace, whose holder acts

# The trainer's container
TRAINER_CONTAINER = "trainer"  # the only container of a trainer pod


def plan_name(run: str) -> str:
    """Return the name of the ConfigMap that holds a run's plan, under the key `plan.json`."""
    return f"{run}-plan"


def workspace_name(run: str) -> str:
    """Return the name of the claim that holds a run's workspace."""
    return f"{run}-workspace"


class JobKey(NamedTuple):
    """Which Job of a run: the attempt, and the group of stages where a run has them apart."""

    attempt: int
    group: StageGroup | None = None

    @property
    def trains(self) -> bool:
        """Whether it carries out the stages that use a GPU."""
        return self.group in (None, StageGroup.TRAINING)


def job_name(run: str, attempt: int, group: StageGroup | None = None) -> str:
    """Return the name of the Job that is one attempt of a run, or one group of its stages."""
    if group is None or group is StageGroup.TRAINING:
        return f"{run}-{attempt}"
    return f"{run}-{attempt}-{group.lower()}"


class Use(StrEnum):
    """Values of the label `trainwright.dev/use`: what a Secret or ConfigMap may be used for."""

    DELIVERY = "delivery"
    RECIPIENTS = "recipients"
    CHECKPOINT = "checkpoint"
    NOTIFY = "notify"
    BUNDLE = "bundle"
    PUBLISHERS = "publishers"
    STREAM = "stream"


class Phase(StrEnum):
    """One word for people; computed once, from conditions."""

    PENDING = "Pending"
    QUEUED = "Queued"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


FINAL_PHASES = (Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED)
"""What is left by nothing but a new retryRequest."""


class AttemptOutcome(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    STOPPED = "Stopped"  # by spec.suspend or spec.cancel


class ConditionType(StrEnum):
    """Types of a run's conditions; Ready, Reconciling and Stalled are for kstatus."""

    ACCEPTED = "Accepted"  # the run may be carried out: all it names exists and allows it
    ADMITTED = "Admitted"  # a queue, if there is one, let it through, and its pod was made
    DATASET_READY = "DatasetReady"  # the dataset is built and good enough
    TRAINED = "Trained"  # weights of the best epoch exist
    VERIFIED = "Verified"  # the export detects what the weights detect
    PUBLISHED = "Published"  # both parts were read back from their servers, and the pointer is set
    PROMOTED = "Promoted"  # the model passed its gate: its name and tag lead to this version
    SUCCEEDED = "Succeeded"  # everything asked for is done; never leaves True
    FAILED = "Failed"  # no attempt is left; left by a new retryRequest only
    SUSPENDED = "Suspended"  # spec.suspend holds and nothing runs
    READY = "Ready"  # kstatus: as wanted
    RECONCILING = "Reconciling"  # kstatus: on its way
    STALLED = "Stalled"  # kstatus: needs a person


class Reason(StrEnum):
    """Reasons of conditions and events."""

    NOT_REACHED = "NotReached"  # a later stage's condition before its stage
    VALID = "Valid"  # everything the run names exists
    MISSING = "Missing"  # something the run names does not exist, or not with this content
    INVALID = "Invalid"  # the run can't be carried out as written
    NOT_ALLOWED = "NotAllowed"  # the run asks for more than its profile allows
    PLAN_LOST = "PlanLost"  # the run's plan is gone, and today's defaults would make another
    NAME_TAKEN = "NameTaken"  # an object of a child's name belongs to somebody else
    LEFT_OVER = "LeftOver"  # an object of a child's name, of a former run, is still being deleted
    REFUSED = "Refused"  # the API server refuses a child of the run, for a quota for example
    POLICY_MISSING = "PolicyMissing"  # the admission policy that fences trainers is not in the cluster
    QUEUED = "Queued"  # the Job is suspended until its queue admits it
    PREEMPTED = "Preempted"  # the queue took the GPU back; the Job waits to be admitted again
    CREATED = "Created"  # the attempt's Job exists
    UNSCHEDULABLE = "Unschedulable"  # no node takes the attempt's pod
    NOT_STARTED = "NotStarted"  # the attempt's pod has a node, which can't start it: its image, a volume
    SCHEDULED = "Scheduled"  # the attempt's pod has a node
    RUNNING = "Running"  # the attempt's pod runs
    DONE = "Done"  # the stage is finished
    NOT_REQUESTED = "NotRequested"  # the run does not ask for this stage
    DRY_RUN = "DryRun"  # dryRun: validated and built the dataset, nothing else
    SUCCEEDED = "Succeeded"  # the model is published
    BUDGET_SPENT = "BudgetSpent"  # attempts failed for one cause more often than its budget allows
    DEADLINE_EXCEEDED = "DeadlineExceeded"  # one of the run's deadlines passed
    BUDGET_EXCEEDED = "BudgetExceeded"  # the run used up its budget
    NOT_RETRYABLE = "NotRetryable"  # an attempt failed for a cause that a retry can't mend
    GATE_FAILED = "GateFailed"  # the model is published as a version, but not as the newest of its name
    ATTEMPT_STARTED = "AttemptStarted"  # an event: the next attempt's Job was made
    EXPIRED = "Expired"  # a retry is wanted, but ttlSecondsAfterFinished took the workspace
    ADJUSTED = "Adjusted"  # an event: the next attempt differs from the plan, for what one failed by
    RETRYING = "Retrying"  # an attempt failed, the next one is on its way
    NOTIFICATION_DELAYED = "NotificationDelayed"  # an event: an address can't be reached, it is tried again
    NOTIFICATION_FAILED = "NotificationFailed"  # an event: an address could not be reached, it is given up
    SUSPENDED = "Suspended"  # spec.suspend
    CANCELLED = "Cancelled"  # spec.cancel
