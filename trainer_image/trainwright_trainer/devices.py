"""The device a plan computes on."""

from __future__ import annotations

from trainwright.contract import RunPlan
from trainwright.errors import ConfigurationError, GpuFaultError


def device_of(plan: RunPlan) -> str:
    """Return the device as Ultralytics writes it; several GPUs, or one that is not there, are an error."""
    if plan.gpus == 0:
        return "cpu"
    if plan.gpus > 1:
        raise ConfigurationError(
            f"compute.gpus is {plan.gpus}, but training on more than one GPU is not supported",
            hint="Set compute.gpus to 1 or 0.",
        )
    import torch  # noqa: PLC0415 - takes seconds, and is needed with a GPU only

    if not torch.cuda.is_available():
        raise GpuFaultError(
            "compute.gpus is 1, but no GPU is visible",
            hint="Check the device plug-in and the driver of the node, or set compute.gpus to 0.",
        )
    return "0"


def count_gpus() -> int:
    """Return how many of this machine's GPUs a training uses: one at most."""
    import torch  # noqa: PLC0415 - takes seconds

    return min(1, torch.cuda.device_count())
