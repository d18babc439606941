"""Why an attempt ended without success, told by what its pod left behind. Pure.

Facts of the cluster count more than the container's, those more than its exit code, and that more than what
the trainer said of itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from trainwright.contract import Cause, ExitCode
from trainwright.symptoms import recognise
from trainwright_operator.reports import Ending

EXIT_CAUSES: Mapping[int, Cause] = {
    **{code: Cause[code.name] for code in ExitCode if code is not ExitCode.SUCCESS},
    128 + 7: Cause.SHM_EXHAUSTED,  # SIGBUS: a page of /dev/shm could not be had
    128 + 15: Cause.PREEMPTED,  # ended by SIGTERM before the trainer could answer it
    128 + 9: Cause.KILLED,  # killed from outside; the kernel's memory killer is told apart before
}
"""Exit codes that tell the cause; of any other the end of the log may."""

POD_REASONS: Mapping[str, Cause] = {
    "NodeLost": Cause.NODE_LOST,
    "NodeShutdown": Cause.PREEMPTED,
    "Shutdown": Cause.PREEMPTED,
    "Terminated": Cause.PREEMPTED,  # a node that shuts down in order
    "Preempting": Cause.PREEMPTED,  # by a pod the node can't do without
    "UnexpectedAdmissionError": Cause.GPU_FAULT,  # the device plug-in could not hand the GPU over
    "NodeAffinity": Cause.UNSCHEDULABLE,  # the node has changed since the scheduler chose it
}
"""`status.reason` of pods that the kubelet or the cluster ended."""

DISRUPTIONS: Mapping[str, Cause] = {
    "DeletionByPodGC": Cause.NODE_LOST,  # the node is no longer in the cluster
    "PreemptionByScheduler": Cause.PREEMPTED,
    "EvictionByEvictionAPI": Cause.PREEMPTED,
    "DeletionByTaintManager": Cause.PREEMPTED,  # of a node that still answers: a lost one is judged before
    "TerminationByKubelet": Cause.PREEMPTED,
}
"""Reasons of the condition DisruptionTarget."""

EVICTIONS: tuple[tuple[str, Cause], ...] = (
    (r'EmptyDir volume "shared-memory"', Cause.SHM_EXHAUSTED),
    (r"EmptyDir volume|ephemeral.(?:local.)?storage", Cause.STORAGE),
    (r"low on resource: memory.*Container trainer was using", Cause.HOST_OOM),
)
"""Evictions the pod brought upon itself: it would be evicted again, so they are not free."""

IMAGE_REASONS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
"""Why a container waits whose image the node can't get."""


def classify(ending: Ending) -> Cause:
    """Return why a pod ended without success."""
    return (
        _by_cluster(ending)
        or _by_container(ending)
        or _by_exit_code(ending)
        or (Cause.KILLED if ending.exit_code is None else Cause.UNKNOWN)
    )


def _by_cluster(ending: Ending) -> Cause | None:
    if ending.disruption or ending.pod_reason == "Evicted":
        for pattern, cause in EVICTIONS:
            if re.search(pattern, ending.message, re.IGNORECASE | re.DOTALL):
                return cause
    if ending.disruption:
        return DISRUPTIONS.get(ending.disruption, Cause.PREEMPTED)
    if ending.pod_reason.startswith("OutOf"):  # OutOfcpu, OutOfnvidia.com/gpu: the node filled up meanwhile
        return Cause.UNSCHEDULABLE
    return POD_REASONS.get(ending.pod_reason)


def _by_container(ending: Ending) -> Cause | None:
    if ending.container_reason == "OOMKilled":
        return Cause.HOST_OOM
    if ending.waiting_reason in IMAGE_REASONS:
        return Cause.IMAGE_PULL
    if ending.container_reason in ("StartError", "ContainerCannotRun"):
        if re.search(r"executable file not found|no such file or directory", ending.log_tail, re.IGNORECASE):
            return Cause.USER_CONFIG  # no image of ours
        return recognise(ending.log_tail)
    return None


def _by_exit_code(ending: Ending) -> Cause | None:
    if ending.exit_code is None:
        return ending.failure.cause if ending.failure else None
    return EXIT_CAUSES.get(ending.exit_code) or recognise(ending.log_tail)
