"""A run with a parent: its name is resolved, and only the pod that fetches it gets the key that opens it."""

from __future__ import annotations

from typing import Any

import pytest
from builders import RunBuilder
from pydantic import ValidationError

from trainwright.contract import ModelSettings, RunPlan, StageGroup
from trainwright_operator.manifests.volumes import pod_mounts
from trainwright_operator.plan import Resolution, merge_spec, resolve_plan, split_version
from trainwright_operator.references import find_problems, required

PARENT = "parts-2026-01-01-00aa11bb"
BUNDLE = {
    "recipients": {"configMapName": "trainers"},
    "privateKey": {"secretName": "trainers-key"},
    "publishers": {"configMapName": "publishers"},
}
KEYS = {"--bundle-key", "--publishers"}
SERVERS = {"--api-credentials", "--cdn-credentials"}
SEALING = {"--recipients", "--bundle-recipients", "--signing-key"}


def child(parent: str = PARENT, **bundle: Any) -> RunBuilder:
    model = {"name": "parts", "parent": parent}
    return RunBuilder().spec(model=model).delivering(bundle=bundle or BUNDLE)


def resolve(builder: RunBuilder) -> Resolution:
    run = builder.build()
    return resolve_plan(run, merge_spec({}, run["spec"]), None)


def options(builder: RunBuilder, group: StageGroup | None = None) -> set[str]:
    run, plan = builder.build(), resolve(builder).plan
    assert plan is not None
    return {mount.option for mount in pod_mounts(run, merge_spec({}, run["spec"]), plan, group)}


@pytest.mark.parametrize(
    ("name", "model", "version"),
    [
        (PARENT, "parts", "2026-01-01-00aa11bb"),
        ("parts-heavy-2026-01-01-00aa11bb", "parts-heavy", "2026-01-01-00aa11bb"),
        ("parts-v1", "parts", "v1"),
        ("parts-2026-01-01", "parts", "2026-01-01"),
    ],
)
def test_a_versions_name_is_that_of_a_model_and_a_version(name: str, model: str, version: str) -> None:
    assert split_version(name, "parts") == {"model": model, "version": version}


def test_the_plan_names_the_parent_and_asks_for_a_bundle() -> None:
    plan = resolve(child()).plan
    assert plan is not None
    assert str(plan.model.parent) == PARENT
    assert plan.delivery is not None
    assert plan.delivery.bundle
    for name in ("trainers", "trainers-key", "publishers"):
        assert f'"{name}"' not in plan.to_json()


def test_without_recipients_there_is_no_bundle() -> None:
    only_keys = {key: BUNDLE[key] for key in ("privateKey", "publishers")}
    plan = resolve(child(**only_keys)).plan
    assert plan is not None
    assert plan.delivery is not None
    assert not plan.delivery.bundle


def test_a_parent_that_is_no_version_of_the_model_is_a_problem() -> None:
    (problem,) = resolve(child("bolts-v1")).problems
    assert "spec.model.parent is 'bolts-v1'" in problem


def test_all_that_a_parent_needs_and_nobody_sets_is_listed() -> None:
    problems = resolve(child(recipients={"configMapName": "trainers"})).problems
    assert [problem.split()[0] for problem in problems] == [
        "spec.delivery.bundle.privateKey",
        "spec.delivery.bundle.publishers",
    ]
    (problem,) = resolve(RunBuilder().spec(model={"name": "parts", "parent": PARENT})).problems
    assert "spec.model.parent needs spec.delivery" in problem


def test_a_dry_run_fetches_no_parent() -> None:
    builder = child().spec(dryRun=True)
    plan = resolve(builder).plan
    assert plan is not None
    assert plan.model.parent is None
    assert not options(builder) & (KEYS | SERVERS | SEALING)


def test_the_keys_need_labels_of_their_own() -> None:
    run = child().build()
    references = [r for r in required(merge_spec({}, run["spec"])) if "bundle" in r.field]
    problems = find_problems(references, dict.fromkeys(r.identity for r in references), "ml")
    text = "\n".join(problems)
    assert len(problems) == 3
    assert "Secret 'trainers-key' does not exist" in text
    for label in ("recipients", "bundle", "publishers"):
        assert f"trainwright.dev/use={label}" in text
    labels = {"trainwright.dev/use": "publishers"}
    found = {("ConfigMap", "publishers"): {"metadata": {"labels": labels}}}
    ours = [r for r in references if r.name == "publishers"]
    assert "holds no publisher's key" in find_problems(ours, found, "ml")[0]


def test_a_run_without_a_parent_names_no_key_that_opens_bundles() -> None:
    run = RunBuilder().delivering(bundle=BUNDLE).build()
    fields = [reference.field for reference in required(merge_spec({}, run["spec"]))]
    assert "spec.delivery.bundle.recipients.configMapName" in fields
    assert not [field for field in fields if "privateKey" in field or "publishers" in field]
    assert options(RunBuilder().delivering(bundle=BUNDLE)) & (KEYS | SEALING) == SEALING


def test_only_the_pod_that_fetches_the_parent_gets_its_key() -> None:
    everything = KEYS | SERVERS | SEALING
    builder = child().spec(compute={"stages": "Apart"})
    assert options(builder) & everything == everything
    assert options(builder, StageGroup.DATASET) & everything == KEYS | SERVERS
    assert options(builder, StageGroup.TRAINING) & everything == set()
    assert options(builder, StageGroup.DELIVERY) & everything == SERVERS | SEALING


def test_a_version_or_tag_can_not_be_mistaken_for_a_bundle() -> None:
    for taken in ({"version": "v1.bundle"}, {"version": "v1", "tag": "latest.bundle"}):
        with pytest.raises(ValidationError, match="training bundles"):
            ModelSettings(name="parts", **taken)


def test_a_plan_with_a_parent_has_a_delivery() -> None:
    model = {"name": "parts", "version": "v2", "parent": {"model": "parts", "version": "v1"}}
    with pytest.raises(ValidationError, match="needs delivery"):
        RunPlan.model_validate({"run": {"name": "r"}, "model": model, "dataset": {"source": {"sample": {}}}})
