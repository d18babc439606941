"""What is said of a profile: whether runs can be carried out with it, and how many use it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from trainwright_operator.api import ProfileSpec, TrainingRunSpec
from trainwright_operator.catalogue import ProfileKey, read_profile
from trainwright_operator.conditions import Condition, stamp
from trainwright_operator.limits import find_violations
from trainwright_operator.manifests import PatchRefusedError, attempt_job
from trainwright_operator.names import ConditionType, JobKey, Reason
from trainwright_operator.plan import find_setting_problems, merge_spec, resolve_plan
from trainwright_operator.settings import SMALLEST_SPEC, OperatorSettings
from trainwright_operator.snapshot import Snapshot, take_snapshot

Object = dict[str, Any]

SAMPLE_METADATA = {
    "name": "any",
    "namespace": "any",
    "uid": "00000000-0000-4000-8000-000000000000",
    "creationTimestamp": "2000-01-01T00:00:00Z",
}
"""Of a run that says nothing, by which a profile is tried."""


def judge_profile(key: ProfileKey, item: Object, settings: OperatorSettings) -> tuple[str, ...]:
    """Return a sentence for everything because of which runs could not be carried out with a profile."""
    spec = read_profile(item)
    if isinstance(spec, str):
        return (spec,)
    return tuple(dict.fromkeys(_problems(key, spec, settings)))


def _problems(key: ProfileKey, profile: ProfileSpec, settings: OperatorSettings) -> Iterator[str]:
    version = next(version.name for version in profile.versions if version.default)
    snapshot = take_snapshot(settings, key.kind, key.name, profile, version)
    try:
        spec = merge_spec(snapshot.defaults, SMALLEST_SPEC).model_copy(update={"delivery": None})
    except ValidationError as error:
        for problem in error.errors():
            yield f"spec.defaults.{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
        return
    yield from (f"spec.defaults: {problem}" for problem in find_setting_problems(spec))
    yield from (
        f"spec.defaults: {problem}"
        for problem in find_violations(SMALLEST_SPEC, spec, snapshot, {}, said=True)
    )
    yield from _refusals(spec, snapshot)


def _refusals(spec: TrainingRunSpec, snapshot: Snapshot) -> Iterator[str]:
    run = {"metadata": SAMPLE_METADATA, "spec": SMALLEST_SPEC}
    plan = resolve_plan(run, merge_spec({}, SMALLEST_SPEC), None).plan
    if plan is None:
        raise AssertionError("the smallest run has a plan")
    try:
        attempt_job(run, spec, plan, snapshot, JobKey(1))
    except PatchRefusedError as error:
        yield from error.problems


def describe_profile(item: Object, problems: tuple[str, ...], runs: int, now: datetime) -> Object:
    """Return the status of a profile."""
    generation = item["metadata"].get("generation", 0)
    ready = Condition(
        ConditionType.READY,
        not problems,
        Reason.INVALID if problems else Reason.VALID,
        "; ".join(problems) or "runs can be carried out with it",
    )
    before = (item.get("status") or {}).get("conditions", ())
    return {
        "observedGeneration": generation,
        "conditions": stamp([ready], before, generation, now),
        "runs": runs,
    }


def count_runs(key: ProfileKey, users: Mapping[tuple[str, str], int]) -> int:
    """Return how many of these users, by namespace and word, are those of a profile."""
    word = f"{key.kind}/{key.name}"
    if key.namespace:
        return users.get((key.namespace, word), 0)
    return sum(count for (_, used), count in users.items() if used == word)
