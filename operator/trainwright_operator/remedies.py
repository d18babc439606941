"""What the next attempt does differently, for what an earlier one failed by. Pure: history in, changes out.

The plan stays as it is: what differs is recorded with each attempt, and given to its pod.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainwright.contract import Adjustments, Cause, RunPlan
from trainwright_operator.api import Compute, TrainingRunSpec
from trainwright_operator.attempts import UNCHANGED, Attempt
from trainwright_operator.manifests.volumes import MIB, shared_memory_size
from trainwright_operator.names import AttemptOutcome
from trainwright_operator.quantities import parse_quantity

Object = dict[str, Any]

SHARED_PART = 2  # /dev/shm may become as large as the memory limit divided by this
SHUNNED: Mapping[Cause, bool] = {Cause.GPU_FAULT: True, Cause.HANG: False, Cause.NODE_LOST: False}
"""Causes that speak against the node: never again (True), or only where no other has room (False).

A node that is lost keeps pods away by its own taint; when it is back it may be the only one that reaches the
workspace. A broken GPU stays broken.
"""


@dataclass(frozen=True)
class Remedies:
    """How the next attempt differs from the plan, and which nodes it keeps away from."""

    adjustments: Adjustments = UNCHANGED
    excluded: tuple[str, ...] = ()
    avoided: tuple[str, ...] = ()


def find_remedies(attempts: Sequence[Attempt], run: Object, spec: TrainingRunSpec, plan: RunPlan) -> Remedies:
    """Return what the next attempt does differently."""
    if not attempts:
        return Remedies()
    nodes = _spoken_against(attempts, run["spec"].get("retryRequest", ""))
    return Remedies(
        adjustments=_adjust(attempts[-1], spec, plan),
        excluded=tuple(node for node, never in nodes.items() if never),
        avoided=tuple(node for node, never in nodes.items() if not never),
    )


def apply_remedies(spec: TrainingRunSpec, remedies: Remedies) -> TrainingRunSpec:
    """Return the spec that the next attempt's pod is made from."""
    changes: Object = {}
    compute = spec.compute or Compute()
    if remedies.adjustments.shared_memory:
        changes["shared_memory"] = remedies.adjustments.shared_memory
    if remedies.excluded or remedies.avoided:
        changes["affinity"] = keep_away(compute.affinity or {}, remedies.excluded, remedies.avoided)
    if not changes:
        return spec
    return spec.model_copy(update={"compute": compute.model_copy(update=changes)})


def keep_away(affinity: Object, excluded: Sequence[str], avoided: Sequence[str]) -> Object:
    """Return an affinity that adds to the run's own: not on the excluded nodes, on the avoided ones last."""
    affinity = copy.deepcopy(affinity)
    node = affinity.setdefault("nodeAffinity", {})
    if excluded:
        required = node.setdefault("requiredDuringSchedulingIgnoredDuringExecution", {})
        # Any one of the terms is enough for a node: each has to leave the excluded ones out.
        terms = required.setdefault("nodeSelectorTerms", []) or [{}]
        required["nodeSelectorTerms"] = [
            term | {"matchFields": [*term.get("matchFields", ()), *map(_is_not, excluded)]} for term in terms
        ]
    if avoided:
        preferred = {"weight": 100, "preference": {"matchFields": [_is_not(name) for name in avoided]}}
        node.setdefault("preferredDuringSchedulingIgnoredDuringExecution", []).append(preferred)
    return affinity


def _is_not(node: str) -> Object:
    return {"key": "metadata.name", "operator": "NotIn", "values": [node]}


def _spoken_against(attempts: Sequence[Attempt], requested: str) -> dict[str, bool]:
    """Return the nodes to keep away from since a person last asked for an attempt; True: never to be used."""
    nodes: dict[str, bool] = {}
    for attempt in reversed(attempts):
        if attempt.retry_request != requested or attempt.outcome is AttemptOutcome.STOPPED:
            break
        if attempt.node and attempt.cause and attempt.cause in SHUNNED:
            nodes[attempt.node] = nodes.get(attempt.node, False) or SHUNNED[attempt.cause]
    return nodes


def _adjust(last: Attempt, spec: TrainingRunSpec, plan: RunPlan) -> Adjustments:
    """Return the last attempt's adjustments, and one more for what it failed by."""
    told = last.adjustments
    if last.cause is Cause.CUDA_OOM:
        batch = told.batch_size or plan.training.batch_size
        return told.model_copy(update={"batch_size": max(batch // 2, 1)})
    if last.cause is Cause.HOST_OOM:
        return _halve_workers(told, plan)
    if last.cause is Cause.SHM_EXHAUSTED:
        return _enlarge_shared_memory(told, spec, plan)
    return told


def _halve_workers(told: Adjustments, plan: RunPlan) -> Adjustments:
    workers = plan.training.workers if told.workers is None else told.workers
    return told.model_copy(update={"workers": workers // 2}) if workers else told


def _enlarge_shared_memory(told: Adjustments, spec: TrainingRunSpec, plan: RunPlan) -> Adjustments:
    """Double the shared memory; where the memory limit has no room for it, use fewer workers."""
    size = parse_quantity(told.shared_memory or shared_memory_size(spec, plan))
    compute = spec.compute or Compute()
    limit = ((compute.resources and compute.resources.limits) or {}).get("memory")
    most = parse_quantity(limit) / SHARED_PART if limit else size * 2
    larger = min(size * 2, most)
    if larger <= size:
        return _halve_workers(told, plan)
    return told.model_copy(update={"shared_memory": f"{int(larger) // MIB}Mi"})
