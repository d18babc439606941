"""Fine-tuning: from a published version's training bundle, which only its own recipients open."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import publishing_site
import pytest
from annotation_trees import write_tree
from publishing_site import Servers, Site, build_site
from training_program import Program, tiny_plan

from trainwright.artifacts import Dataset, Evaluation, OnnxModel, Published, Weights
from trainwright.contract import Cause, ExitCode, RunPlan, Stage
from trainwright.delivery import Keys, fetch
from trainwright.errors import ConfigurationError
from trainwright.sealing import PrivateKey, PublisherKey, RecipientError, VerifyKey, write_public_key
from trainwright_trainer import Places, yolo
from trainwright_trainer.servers import connect_source
from trainwright_trainer.steps.parent import fetch_parent, find_parent

servers = publishing_site.servers  # fixtures are found by name

MODEL = "shapes"


@dataclass
class Family:
    """A published version with a bundle, and what it takes to train it further."""

    servers: Servers
    site: Site
    home: Path
    program: Program

    def plan(self, version: str = "v1", epochs: int = 1, **fields: Any) -> RunPlan:
        """Return the plan of a child."""
        parent = {"model": MODEL, "version": version}
        model = {"name": MODEL, "version": "v2", "parent": parent}
        delivery = {"api": {"url": self.servers.api_url}, "bundle": True}
        return tiny_plan(epochs=epochs, **{"model": model, "delivery": delivery, **fields})

    def places(self, workspace: Path) -> Places:
        return replace(places_of(self.site, self.home), workspace=workspace)

    def refusal(self, workspace: Path, plan: RunPlan | None = None, **places: Path) -> str:
        workspace.mkdir(exist_ok=True)
        with pytest.raises(ConfigurationError) as caught:
            fetch_parent(plan or self.plan(), replace(self.places(workspace), **places))
        assert caught.value.hint
        left = [path.name for path in workspace.rglob("*") if path.suffix in (".pt", ".safetensors", ".json")]
        assert left == [], "something of a refused parent is there"
        return str(caught.value)


def places_of(site: Site, home: Path) -> Places:
    return replace(
        site.places,
        bundle_recipients=home / "bundle-recipients",
        bundle_key=home / "bundle",
        publishers=home / "publishers",
    )


def options_of(places: Places) -> list[str]:
    named = {
        "--api-credentials": places.api_credentials,
        "--recipients": places.recipients,
        "--signing-key": places.signing_key,
        "--bundle-recipients": places.bundle_recipients,
        "--bundle-key": places.bundle_key,
        "--publishers": places.publishers,
    }
    return [text for option, folder in named.items() for text in (option, str(folder))]


def write_keys(home: Path, site: Site) -> None:
    trainer = PrivateKey.generate("trainers")
    for name in ("bundle-recipients", "bundle", "publishers"):
        (home / name).mkdir()
    trainer.write(home / "bundle" / "bundle.key")
    write_public_key(trainer.recipient, home / "bundle-recipients" / "trainers")
    (home / "publishers" / "ci").write_bytes((site.home / "ci.public").read_bytes())


@pytest.fixture(scope="module")
def family(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Family:
    home = tmp_path_factory.mktemp("family")
    site = build_site(home / "site", servers, MODEL)
    write_keys(home, site)
    delivery = {"api": {"url": servers.api_url}, "bundle": True}
    program = Program(home, tiny_plan(model={"name": MODEL, "version": "v1"}, delivery=delivery))
    code, output = program.run(1, *options_of(places_of(site, home)))
    assert code == 0, output
    return Family(servers, site, home, program)


def test_a_child_begins_with_its_parents_weights_and_keeps_its_history(
    family: Family, tmp_path: Path
) -> None:
    # So small a step that weights end where they began.
    slow = {
        "baseModel": "there-is-none.pt",
        "epochs": 1,
        "batchSize": 8,
        "imageSize": 64,
        "optimizer": "SGD",
        "learningRate": 1e-9,
        "warmupEpochs": 0,
        "augmentation": {"mosaic": 0.0},
    }
    child = Program(tmp_path, family.plan(training=slow))
    places = family.places(child.workspace)
    code, output = child.run(1, *options_of(places))
    assert code == 0, output
    assert child.recall(Stage.PUBLISHING, Published).pointers == (f"{MODEL}.v2.json", f"{MODEL}.json")

    parent = find_parent(child.plan, places)
    assert parent is not None
    assert parent.digest == family.program.recall(Stage.EXPORT, OnnxModel).digest
    assert parent.metrics == family.program.recall(Stage.EVALUATION, Evaluation).metrics
    dataset = family.program.recall(Stage.DATASET, Dataset)
    assert parent.class_map == dataset.class_map
    assert parent.manifest is not None
    theirs = family.program.workspace / dataset.manifest
    assert (child.workspace / parent.manifest).read_bytes() == theirs.read_bytes()

    after = read_weights(child)
    before = read_weights(family.program)
    learned = [name for name in after if name.endswith("conv.weight")]
    assert len(learned) > 50
    assert max(float((after[name].float() - before[name].float()).abs().max()) for name in learned) < 1e-3


def read_weights(program: Program) -> dict[str, Any]:
    yolo.prepare(program.folder / "ultralytics")
    return yolo.take_apart(program.workspace / program.recall(Stage.TRAINING, Weights).path).tensors


def test_a_trainers_key_opens_bundles_and_no_delivered_model(family: Family, tmp_path: Path) -> None:
    plan = family.plan()
    assert plan.delivery is not None
    source = connect_source(plan.delivery, family.site.places)
    trainer = PrivateKey.from_file(family.home / "bundle" / "bundle.key")
    reader = PrivateKey.from_file(family.site.home / "field.private")
    publishers = [VerifyKey.from_file(family.site.home / "ci.public")]
    with pytest.raises(RecipientError):
        fetch(MODEL, "v1", source, Keys(trainer, publishers), tmp_path)
    with pytest.raises(RecipientError):
        fetch(MODEL, "v1.bundle", source, Keys(reader, publishers), tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert family.site.fetch(f"{MODEL}@v1").returncode == 0


def test_a_wrong_key_is_refused(family: Family, tmp_path: Path) -> None:
    PrivateKey.generate("trainers").write(tmp_path / "bundle.key")
    assert f"'{MODEL}-v1' can't be trained further" in family.refusal(tmp_path / "w", bundle_key=tmp_path)


def test_another_publisher_is_refused(family: Family, tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    write_public_key(PublisherKey.generate("other").verify_key, tmp_path / "keys" / "other")
    assert "not trusted" in family.refusal(tmp_path / "w", publishers=tmp_path / "keys")


def test_missing_keys_are_told(family: Family, tmp_path: Path) -> None:
    assert "bundle.key" in family.refusal(tmp_path / "w", bundle_key=tmp_path)


def test_a_tampered_bundle_is_refused(family: Family, tmp_path: Path) -> None:
    (path,) = family.servers.s3_folder.rglob(f"{MODEL}.v1.bundle.*.big")
    original = path.read_bytes()
    changed = bytearray(original)
    changed[len(changed) // 2] ^= 1
    path.write_bytes(changed)
    try:
        assert "not the one that was signed" in family.refusal(tmp_path / "w")
    finally:
        path.write_bytes(original)
    assert fetch_parent(family.plan(), family.places(tmp_path / "w")) is not None


def test_a_version_that_is_not_there_or_has_no_bundle_is_refused_with_the_reason(
    family: Family, tmp_path: Path
) -> None:
    assert "no such version" in family.refusal(tmp_path / "w", family.plan("v9"))
    site = build_site(tmp_path / "other", family.servers, MODEL, "v7")
    site.publish(site.seal())
    assert "without a training bundle" in family.refusal(tmp_path / "w", family.plan("v7"))


def test_a_parent_of_other_classes_is_refused_before_the_training(family: Family, tmp_path: Path) -> None:
    write_tree(tmp_path / "data", 30)
    dataset = {"source": {"folder": {}}, "classes": {"inline": ["apple", "pear", "plum"]}}
    program = Program(tmp_path, family.plan(dataset=dataset))
    places = family.places(tmp_path / "workspace")
    code, output = program.run(
        1, "--stages", "Dataset", "--data", str(tmp_path / "data"), *options_of(places)
    )
    assert code == ExitCode.USER_CONFIG, output
    failure = program.report(1).failure
    assert failure is not None
    assert (failure.cause, failure.stage) == (Cause.USER_CONFIG, Stage.DATASET)
    assert f"'{MODEL}-v1'" in failure.message
    assert "apple" in failure.message
    assert "v1.bundle" not in json.dumps(failure.model_dump())
