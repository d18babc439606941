"""What known messages of torch, CUDA, Ultralytics and the system tell of a cause.

The trainer reads its exceptions by it, the operator the end of the log of a pod that had no last word.
"""

from __future__ import annotations

import re

from trainwright.contract import Cause

SYMPTOMS: tuple[tuple[str, Cause], ...] = (
    (
        r"DataLoader worker .* killed by signal: Bus error|shared memory\(shm\)|insufficient shared memory"
        r"|^Bus error",
        Cause.SHM_EXHAUSTED,
    ),
    (r"DataLoader worker .* killed by signal: Killed", Cause.HOST_OOM),
    (
        # Without memory for their own needs cuBLAS and cuDNN say these: a smaller batch helps.
        r"(?:CUDA|HIP).*out of memory|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_INTERNAL_ERROR"
        r"|CUDNN_STATUS_ALLOC_FAILED|unable to find an engine to execute",
        Cause.CUDA_OOM,
    ),
    (
        r"out of memory|can't allocate memory|Cannot allocate memory|Unable to allocate|^MemoryError",
        Cause.HOST_OOM,
    ),
    (r"collective operation timeout", Cause.HANG),
    (
        # An assertion on the device is about our data, a label out of range for example.
        r"CUDA error(?!: device-side assert)|CUDNN_STATUS_EXECUTION_FAILED|CUBLAS_STATUS_EXECUTION_FAILED"
        r"|CUBLAS_STATUS_INTERNAL_ERROR|uncorrectable ECC|NCCL error|\bXid\b|No CUDA GPUs are available"
        r"|GPU is lost|fallen off the bus|CUDA driver initialization failed|nvidia-container-cli",
        Cause.GPU_FAULT,
    ),
    (
        r"NaN persisted|corrupted with NaN/Inf"
        r"|(?:loss|weights).{0,40}(?:is|are|contains?) (?:NaN|not a number)",
        Cause.NAN,
    ),
    (r"No space left on device|Disk quota exceeded|Input/output error|Stale file handle", Cause.STORAGE),
    (
        r"Temporary failure in name resolution|Name or service not known|Connection (?:refused|reset)"
        r"|Connection timed out|Max retries exceeded|Read timed out|No route to host|Network is unreachable",
        Cause.NETWORK,
    ),
)
"""Patterns and what they tell; an earlier one is the more certain."""

_COMPILED = tuple((re.compile(pattern, re.IGNORECASE | re.MULTILINE), cause) for pattern, cause in SYMPTOMS)


def recognise(text: str) -> Cause | None:
    """Return the cause that a message or the end of a log tells of, or None if it tells of none we know."""
    return next((cause for pattern, cause in _COMPILED if pattern.search(text)), None)
