"""Why an attempt ended, from what pods really leave behind: statuses and messages as clusters write them."""

from __future__ import annotations

from typing import Any

import pytest
from builders import make_failure, make_pod, make_report, terminated

from trainwright.contract import Cause, ExitCode
from trainwright.symptoms import recognise
from trainwright_operator.causes import classify
from trainwright_operator.failures import HINTS
from trainwright_operator.reports import LOST_CONTAINER, parse_report, read_ending

Object = dict[str, Any]


def disrupted(reason: str, message: str = "") -> list[Object]:
    return [{"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}]


def waiting(reason: str, message: str = "") -> list[Object]:
    state = {"waiting": {"reason": reason, "message": message}}
    return [{"name": "trainer", "image": "trainer:1", "imageID": "", "state": state}]


def cause_of(word: Any = None, **status: Any) -> Cause:
    """Return the cause of a pod's end; `word` is what the trainer last reported live."""
    pod = make_pod(1, phase="Failed", **status)
    return classify(read_ending(pod, word, 1))


LOW_ON_MEMORY = (
    "The node was low on resource: memory. Threshold quantity: 100Mi, available: 21Mi. Container {0} was"
    " using 30Gi, request is 8Gi, has larger consumption of memory. "
)
CLUSTER: list[tuple[str, Object, Cause]] = [
    ("preempted", {"conditions": disrupted("PreemptionByScheduler")}, Cause.PREEMPTED),
    ("drained", {"conditions": disrupted("EvictionByEvictionAPI")}, Cause.PREEMPTED),
    ("tainted", {"conditions": disrupted("DeletionByTaintManager")}, Cause.PREEMPTED),
    ("node gone", {"conditions": disrupted("DeletionByPodGC", "PodGC: node is gone")}, Cause.NODE_LOST),
    ("a reason of later versions", {"conditions": disrupted("SomethingNew")}, Cause.PREEMPTED),
    (
        "node shuts down",
        {"reason": "Terminated", "message": "Pod was terminated in response to imminent node shutdown."},
        Cause.PREEMPTED,
    ),
    (
        "others fill the node's memory",
        {
            "reason": "Evicted",
            "message": LOW_ON_MEMORY.format("sidecar"),
            "conditions": disrupted("TerminationByKubelet"),
        },
        Cause.PREEMPTED,
    ),
    (
        "we fill the node's memory",
        {
            "reason": "Evicted",
            "message": LOW_ON_MEMORY.format("trainer"),
            "conditions": disrupted("TerminationByKubelet"),
        },
        Cause.HOST_OOM,
    ),
    (
        "the node's disk is full",
        {
            "reason": "Evicted",
            "message": "The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi.",
            "conditions": disrupted("TerminationByKubelet"),
        },
        Cause.STORAGE,
    ),
    (
        "the workspace is full",
        {"reason": "Evicted", "message": 'Usage of EmptyDir volume "workspace" exceeds the limit "1Gi".'},
        Cause.STORAGE,
    ),
    (
        "the container writes too much",
        {
            "reason": "Evicted",
            "message": "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi.",
        },
        Cause.STORAGE,
    ),
    (
        "shared memory is over its limit",
        {"reason": "Evicted", "message": 'Usage of EmptyDir volume "shared-memory" exceeds the limit "1Gi".'},
        Cause.SHM_EXHAUSTED,
    ),
    ("evicted without a known word", {"reason": "Evicted", "message": "?"}, Cause.KILLED),
    (
        "no GPU was handed over",
        {"reason": "UnexpectedAdmissionError", "message": "Allocate failed due to no healthy devices"},
        Cause.GPU_FAULT,
    ),
    ("the node filled up", {"reason": "OutOfnvidia.com/gpu"}, Cause.UNSCHEDULABLE),
    ("the node changed", {"reason": "NodeAffinity"}, Cause.UNSCHEDULABLE),
    ("node lost", {"reason": "NodeLost"}, Cause.NODE_LOST),
    ("killed for memory", {"containerStatuses": terminated(137, reason="OOMKilled")}, Cause.HOST_OOM),
    (
        "a child was killed for memory",
        {"containerStatuses": terminated(1, reason="OOMKilled")},
        Cause.HOST_OOM,
    ),
    ("killed", {"containerStatuses": terminated(137)}, Cause.KILLED),
    ("asked to end", {"containerStatuses": terminated(143)}, Cause.PREEMPTED),
    ("bus error", {"containerStatuses": terminated(135)}, Cause.SHM_EXHAUSTED),
    ("crashed", {"containerStatuses": terminated(139)}, Cause.UNKNOWN),
    (
        "another image",
        {
            "containerStatuses": terminated(
                128,
                'exec: "trainwright-trainer": executable file not found in $PATH',
                "StartError",
            )
        },
        Cause.USER_CONFIG,
    ),
    (
        "the GPU's driver does not start",
        {
            "containerStatuses": terminated(
                128, "nvidia-container-cli: initialization error: driver error: timed out", "StartError"
            )
        },
        Cause.GPU_FAULT,
    ),
    ("vanished without a trace", {}, Cause.KILLED),
    ("never got its image", {"containerStatuses": waiting("ImagePullBackOff")}, Cause.IMAGE_PULL),
    ("an impossible image", {"containerStatuses": waiting("InvalidImageName")}, Cause.IMAGE_PULL),
]


@pytest.mark.parametrize(
    ("status", "cause"), [case[1:] for case in CLUSTER], ids=[case[0] for case in CLUSTER]
)
def test_the_cause_is_read_from_what_the_cluster_says_of_the_pod(status: Object, cause: Cause) -> None:
    assert cause_of(**status) is cause


@pytest.mark.parametrize("code", [code for code in ExitCode if code])
def test_each_exit_code_of_the_trainer_is_a_cause(code: ExitCode) -> None:
    assert cause_of(containerStatuses=terminated(code)).name == code.name


LOGS = [
    (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.34 GiB. GPU 0 has a total capacity"
        " of 23.64 GiB of which 1.12 GiB is free.",
        Cause.CUDA_OOM,
    ),
    ("RuntimeError: CUDA error: out of memory", Cause.CUDA_OOM),
    (
        "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`",
        Cause.CUDA_OOM,
    ),
    ("RuntimeError: cuDNN error: CUDNN_STATUS_INTERNAL_ERROR", Cause.CUDA_OOM),
    (
        "RuntimeError: [enforce fail at alloc_cpu.cpp:116] err == 0. DefaultCPUAllocator: can't allocate"
        " memory: you tried to allocate 30720000000 bytes.",
        Cause.HOST_OOM,
    ),
    ("RuntimeError: DataLoader worker (pid 71) is killed by signal: Killed. ", Cause.HOST_OOM),
    (
        "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 7.9 GiB for an array of (9, 9)",
        Cause.HOST_OOM,
    ),
    (
        "RuntimeError: DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that"
        " dataloader's workers are out of shared memory. Please try to raise your shared memory limit.",
        Cause.SHM_EXHAUSTED,
    ),
    (
        "ERROR: Unexpected bus error encountered in worker. This might be caused by insufficient shared"
        " memory (shm).",
        Cause.SHM_EXHAUSTED,
    ),
    (
        "RuntimeError: unable to allocate shared memory(shm) for file </torch_7>: No space left on device",
        Cause.SHM_EXHAUSTED,
    ),
    ("Bus error (core dumped)", Cause.SHM_EXHAUSTED),
    ("RuntimeError: CUDA error: an illegal memory access was encountered", Cause.GPU_FAULT),
    ("torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered", Cause.GPU_FAULT),
    ("RuntimeError: No CUDA GPUs are available", Cause.GPU_FAULT),
    ("NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.", Cause.GPU_FAULT),
    ("torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:1691", Cause.GPU_FAULT),
    ("[Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=9)", Cause.HANG),
    ("RuntimeError: Training failed: NaN persisted for 4 epochs", Cause.NAN),
    ("RuntimeError: Checkpoint /w/last.pt is corrupted with NaN/Inf weights", Cause.NAN),
    ("OSError: [Errno 28] No space left on device: '/workspace/x'", Cause.STORAGE),
    ("OSError: [Errno 5] Input/output error", Cause.STORAGE),
    ("socket.gaierror: [Errno -3] Temporary failure in name resolution", Cause.NETWORK),
    ("requests.exceptions.ConnectionError: Max retries exceeded with url: /login", Cause.NETWORK),
    ("ConnectionRefusedError: [Errno 111] Connection refused", Cause.NETWORK),
]


@pytest.mark.parametrize(("text", "cause"), LOGS)
def test_the_end_of_the_log_tells_what_an_exit_code_does_not(text: str, cause: Cause) -> None:
    log = f"Traceback (most recent call last):\n  File ...\n{text}\n"
    assert recognise(text) is cause
    assert cause_of(containerStatuses=terminated(1, log)) is cause
    assert cause_of(containerStatuses=terminated(134, log)) is cause


@pytest.mark.parametrize(
    "text",
    [
        "",
        "RuntimeError: CUDA error: device-side assert triggered",  # a label out of range: no GPU's fault
        "Class     Images  Instances      Box(P          R      mAP50\nall  16  40  nan  nan  nan",
        "DataLoader worker (pid 7) is killed by signal: Segmentation fault. ",
        "ValueError: batch size is not divisible",
    ],
)
def test_a_log_without_a_known_message_tells_nothing(text: str) -> None:
    assert recognise(text) is None


def test_facts_of_the_cluster_count_more_than_the_pods_own_word() -> None:
    word = make_failure(1, Cause.DATA, ExitCode.DATA)
    ended = terminated(ExitCode.DATA, word.to_json())
    assert cause_of(word, conditions=disrupted("EvictionByEvictionAPI"), containerStatuses=ended) is (
        Cause.PREEMPTED
    )
    killed = terminated(ExitCode.DATA, word.to_json(), "OOMKilled")
    assert cause_of(word, containerStatuses=killed) is Cause.HOST_OOM


def test_the_exit_code_counts_more_than_an_earlier_report() -> None:
    word = make_failure(1, Cause.DATA, ExitCode.DATA)
    assert cause_of(word, containerStatuses=terminated(137)) is Cause.KILLED


def test_a_report_of_another_attempt_is_not_believed_even_as_a_last_word() -> None:
    word = make_failure(2, Cause.DATA, ExitCode.DATA, "from another attempt")
    ending = read_ending(make_pod(1, containerStatuses=terminated(1, word.to_json())), None, 1)
    assert ending.report is None
    assert classify(ending) is Cause.UNKNOWN


def test_what_the_kubelet_says_of_a_container_it_lost_is_no_log() -> None:
    lost = terminated(137, "The container could not be located when the pod was terminated", LOST_CONTAINER)
    ending = read_ending(make_pod(1, containerStatuses=lost, message="Usage exceeds the limit"), None, 1)
    assert (ending.message, ending.log_tail) == ("Usage exceeds the limit", "")


def test_every_cause_has_a_hint_on_what_to_do() -> None:
    assert set(HINTS) == set(Cause)
    assert min(map(len, HINTS.values())) > 40


@pytest.mark.parametrize(
    ("told", "garbled"),
    [('"mAP50":0.5', '"mAP50":NaN'), ('"mAP50":0.5', '"mAP50":Infinity'), ('05:00Z"', '05:00"')],
)
def test_a_last_word_that_the_api_server_would_refuse_or_without_a_time_zone_is_none(
    told: str, garbled: str
) -> None:
    text = make_report(1, metrics={"mAP50": 0.5}).to_json()
    assert told in text
    assert parse_report(text) is not None
    assert parse_report(text.replace(told, garbled)) is None
