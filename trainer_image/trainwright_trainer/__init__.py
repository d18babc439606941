"""The trainer: from annotations to a published sealed model, as a library and as a pod's program.

from trainwright_trainer import Places, RunPlan, execute

result = execute(plan, Places(workspace=Path("work"), data=Path("annotations")))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainwright.contract import RunPlan
    from trainwright_trainer.pipeline import RunResult, execute
    from trainwright_trainer.places import Places

__all__ = ["Places", "RunPlan", "RunResult", "execute"]

_MODULES = {
    "Places": "trainwright_trainer.places",
    "RunPlan": "trainwright.contract",
    "RunResult": "trainwright_trainer.pipeline",
    "execute": "trainwright_trainer.pipeline",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: a process that only decodes images would carry the whole pipeline else."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
