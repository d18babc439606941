"""The trainer: from annotations to a published sealed model, as a library and as a pod's program.

from trainwright_trainer import Places, RunPlan, execute

result = execute(plan, Places(workspace=Path("work"), data=Path("annotations")))
"""

from trainwright.contract import RunPlan
from trainwright_trainer.pipeline import RunResult, execute
from trainwright_trainer.places import Places

__all__ = ["Places", "RunPlan", "RunResult", "execute"]
