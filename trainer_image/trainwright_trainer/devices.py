"""The devices a plan computes on."""

from __future__ import annotations

import platform
from contextlib import suppress
from pathlib import Path

from trainwright.contract import RunPlan
from trainwright.errors import GpuFaultError


def devices_of(plan: RunPlan) -> tuple[str, ...]:
    """Return the devices to train on, as Ultralytics writes them; a GPU that is not there is an error."""
    if plan.gpus == 0:
        return ("cpu",)
    import torch  # noqa: PLC0415 - takes seconds, and is needed with a GPU only

    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if visible < plan.gpus:
        raise GpuFaultError(
            f"compute.gpus is {plan.gpus}, but {visible or 'none'} of them can be seen",
            hint="Check the device plug-in and the driver of the node, or set compute.gpus to 0.",
        )
    return tuple(map(str, range(plan.gpus)))


def device_of(plan: RunPlan) -> str:
    """Return the one device for what does not share its work out."""
    return devices_of(plan)[0]


def count_gpus() -> int:
    """Return how many of this machine's GPUs a training without a cluster uses: one at most."""
    import torch  # noqa: PLC0415 - takes seconds

    return min(1, torch.cuda.device_count())


def name_device(device: str) -> str:
    """Return what computes there: the processor's or the GPU's name."""
    if device != "cpu":
        import torch  # noqa: PLC0415 - takes seconds, and is needed with a GPU only

        return str(torch.cuda.get_device_name(int(device)))
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine() or "CPU"
