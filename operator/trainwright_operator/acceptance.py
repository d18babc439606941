"""Finds out whether a run may be carried out, and with which plan."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from trainwright.contract import RunPlan
from trainwright_operator.api import TrainingRunSpec
from trainwright_operator.basis import Basis
from trainwright_operator.cluster import (
    CLAIMS,
    CONFIG_MAPS,
    POLICIES,
    POLICY_BINDINGS,
    SECRETS,
    Cluster,
)
from trainwright_operator.deadlines import find_unpriced
from trainwright_operator.limits import find_violations
from trainwright_operator.manifests.config import PLAN_KEY
from trainwright_operator.names import FENCE_POLICY, Reason, plan_name
from trainwright_operator.packed import controller_uid
from trainwright_operator.plan import find_setting_problems, merge_spec, resolve_plan
from trainwright_operator.recently import Recently
from trainwright_operator.references import Reference, find_excess, find_problems, required
from trainwright_operator.settings import OperatorSettings
from trainwright_operator.situation import Acceptance

Object = dict[str, Any]

LOOKED_UP = {"Secret": SECRETS, "ConfigMap": CONFIG_MAPS, "PersistentVolumeClaim": CLAIMS}

FENCED = "the fence stands"
UNFENCED = (
    f"ValidatingAdmissionPolicy {FENCE_POLICY!r} or its binding is missing, and without it a pod could report"
    " for another run: install the chart's policy, or set requireFence: false in the operator's settings"
)
EMPTY_DIR_NOTE = (
    "everything the run names exists; its workspace is an emptyDir, so that another attempt starts at {start}"
)
NO_ADDRESSES = (
    "spec.notify: the operator may not read Secrets (secretAccess: false in its settings), and so not the"
    " addresses: leave notify out"
)
PLAN_LOST = (
    "the run's plan was deleted, and as its profile or the operator's defaults have changed another would be"
    " made now: make a new run"
)


@dataclass(frozen=True)
class Preparation:
    """The plan of a run that may be carried out, or all that is against it."""

    acceptance: Acceptance
    plan: RunPlan | None = None
    spec: TrainingRunSpec | None = None


async def prepare(
    cluster: Cluster, settings: OperatorSettings, recently: Recently, run: Object, basis: Basis
) -> Preparation:
    """Look up all that the run names; a run that has a plan keeps it, whatever the defaults are by now."""
    namespace, spec = run["metadata"]["namespace"], merge_spec(basis.snapshot.defaults, run["spec"])
    references = required(spec)
    if not settings.secret_access:
        references = [reference for reference in references if reference.kind != "Secret"]
    found = await _look_up(cluster, references, namespace)
    missing = find_problems(references, found, namespace)
    if spec.notify and not settings.secret_access:
        missing.append(NO_ADDRESSES)
    refused = _judge(run, spec, basis, found, missing)
    if refused:
        return Preparation(refused)
    if settings.require_fence and not await _is_fenced(cluster, recently):
        return _refuse([UNFENCED], Reason.POLICY_MISSING)
    status = run.get("status") or {}
    written = status.get("plan", {}).get("digest")
    plan = await _kept_plan(cluster, run, written) if written else None
    if plan is None:
        resolution = resolve_plan(run, spec, _class_map(spec, found))
        if resolution.plan is None:
            return _refuse(list(resolution.problems), Reason.INVALID)
        plan = resolution.plan
    snapshot = status.get("profile", {}).get("digest")
    if written not in (None, plan.digest) or snapshot not in (None, basis.snapshot.digest):
        return _refuse([PLAN_LOST], Reason.PLAN_LOST)
    note = "; ".join(filter(None, (_note(spec), *find_excess(references, found))))
    acceptance = Acceptance(plan_digest=plan.digest, note=note, snapshot=basis.snapshot)
    return Preparation(acceptance, plan, spec)


def _judge(
    run: Object,
    spec: TrainingRunSpec,
    basis: Basis,
    found: dict[tuple[str, str], Object | None],
    missing: list[str],
) -> Acceptance | None:
    """Return everything that is against a run by what it says, all at once; None if there is nothing."""
    missing = [*basis.problems, *missing]
    beyond = find_violations(run["spec"], spec, basis.snapshot, found)
    wrong = [*find_setting_problems(spec), *find_unpriced(spec, basis.snapshot.price_per_gpu_hour)]
    reasons = ((Reason.MISSING, missing), (Reason.NOT_ALLOWED, beyond), (Reason.INVALID, wrong))
    worst = next((reason for reason, problems in reasons if problems), None)
    return None if worst is None else Acceptance((*missing, *beyond, *wrong), worst)


def _note(spec: TrainingRunSpec) -> str:
    workspace = spec.compute.workspace if spec.compute else None
    if not (workspace and workspace.empty_dir):
        return ""
    stored = spec.checkpoint and spec.checkpoint.store
    return EMPTY_DIR_NOTE.format(start="the newest checkpoint in checkpoint.store" if stored else "zero")


def _refuse(problems: list[str], reason: Reason) -> Preparation:
    return Preparation(Acceptance(tuple(problems), reason))


async def _look_up(
    cluster: Cluster, references: list[Reference], namespace: str
) -> dict[tuple[str, str], Object | None]:
    identities = sorted({reference.identity for reference in references})
    answers = await asyncio.gather(
        *(cluster.get(LOOKED_UP[kind], namespace, name) for kind, name in identities)
    )
    return dict(zip(identities, answers, strict=True))


async def _is_fenced(cluster: Cluster, recently: Recently) -> bool:
    if recently.holds(FENCED):
        return True
    policy, binding = await asyncio.gather(
        cluster.get(POLICIES, None, FENCE_POLICY), cluster.get(POLICY_BINDINGS, None, FENCE_POLICY)
    )
    if policy is None or binding is None:
        return False
    recently.note(FENCED)
    return True


async def _kept_plan(cluster: Cluster, run: Object, digest: str) -> RunPlan | None:
    """Return the plan an earlier attempt was carried out with; a ConfigMap with any other is not believed."""
    metadata = run["metadata"]
    config_map = await cluster.get(CONFIG_MAPS, metadata["namespace"], plan_name(metadata["name"]))
    if config_map is None or controller_uid(config_map) != metadata["uid"]:
        return None
    try:
        plan = RunPlan.from_json(config_map["data"][PLAN_KEY])
    except (KeyError, ValidationError):
        return None
    return plan if plan.digest == digest else None


def _class_map(spec: TrainingRunSpec, found: dict[tuple[str, str], Object | None]) -> str | None:
    key = spec.dataset.classes and spec.dataset.classes.config_map_key_ref
    if not key:
        return None
    config_map = found[("ConfigMap", key.name)] or {}
    text: str = config_map.get("data", {}).get(key.key, "")
    return text
