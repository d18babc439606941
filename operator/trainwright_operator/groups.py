"""Which groups of stages a run has, and which comes next. Pure: spec and history in, groups out.

Without groups (`compute.stages: Together`) one pod does all stages, and the only "group" is None.
"""

from __future__ import annotations

from collections.abc import Sequence

from trainwright.contract import StageGroup
from trainwright_operator.api import TrainingRunSpec
from trainwright_operator.attempts import Attempt

Groups = tuple[StageGroup | None, ...]

TOGETHER: Groups = (None,)


def stage_groups(spec: TrainingRunSpec, attempts: Sequence[Attempt]) -> Groups:
    """Return the groups of a run in their order; a run keeps the way it began, whatever the defaults are."""
    apart = bool(spec.compute and spec.compute.stages == "Apart")
    if attempts:
        apart = attempts[-1].group is not None
    if not apart:
        return TOGETHER
    return (StageGroup.DATASET,) if spec.dry_run else tuple(StageGroup)


def next_group(groups: Groups, last: Attempt) -> StageGroup | None:
    """Return the group that follows a successful one; None where that was the last."""
    following = groups[groups.index(last.group) + 1 :] if last.group in groups else ()
    return following[0] if following else None


def group_to_repeat(last: Attempt) -> StageGroup | None:
    """Return the group the next attempt begins with: former ones are done, unless what they made is gone.

    A trainer that misses what an earlier group made says so by ending in that group's stage.
    """
    if last.group is None or last.stage is None:
        return last.group
    needed = next(group for group in StageGroup if last.stage in group.stages)
    return min(needed, last.group, key=list(StageGroup).index)
