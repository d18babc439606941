"""From a run to its plan: defaults, overrides, and everything that can be wrong."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from builders import RunBuilder

from trainwright.contract import Affine, Flip, RunPlan
from trainwright_operator.plan import Resolution, merge_sections, merge_spec, model_version, resolve_plan
from trainwright_operator.references import find_excess, find_problems, required


def test_a_runs_own_fields_win_over_the_defaults_section_by_section() -> None:
    run = RunBuilder().spec(training={"epochs": 3}).build()
    spec = merge_spec({"training": {"epochs": 50, "batchSize": 4}, "gate": {"minimum": 0.5}}, run["spec"])
    plan = resolve_plan(run, spec, None).plan
    assert plan is not None
    assert (plan.training.epochs, plan.training.batch_size, plan.gate.minimum) == (3, 4, 0.5)
    assert plan.training.image_size == 1280  # built in


def test_a_runs_source_replaces_another_kind_of_source_in_the_defaults() -> None:
    defaults = {"dataset": {"source": {"persistentVolumeClaim": {"claimName": "shared"}}}}
    spec = merge_spec(defaults, RunBuilder().build()["spec"])
    assert spec.dataset.source.persistent_volume_claim is None


def test_a_runs_choice_of_recipients_or_workspace_replaces_another_in_the_defaults() -> None:
    defaults = {
        "compute": {"gpus": 2, "workspace": {"emptyDir": {}}},
        "delivery": {"sealing": {"recipients": {"secretName": "platform"}}},
    }
    workspace = {"persistentVolumeClaim": {"size": "1Gi"}}
    run = RunBuilder().spec(compute={"workspace": workspace}).delivering().build()
    spec = merge_spec(defaults, run["spec"])
    assert spec.compute is not None
    assert spec.compute.gpus == 2
    assert spec.compute.workspace is not None
    assert spec.compute.workspace.empty_dir is None
    names = [reference.name for reference in required(spec)]
    assert "recipients" in names
    assert "platform" not in names
    assert defaults["compute"]["workspace"] == {"emptyDir": {}}


def test_every_attempt_makes_the_same_version() -> None:
    assert model_version(RunBuilder().build()) == "2026-01-02-4f2a4f2a"


def test_the_same_run_always_has_the_same_plan_digest() -> None:
    run = RunBuilder().delivering().build()
    digests = {resolve_plan(run, merge_spec({}, run["spec"]), None).plan.digest for _ in range(3)}  # type: ignore[union-attr]
    assert len(digests) == 1


def test_no_name_of_a_secret_gets_into_the_plan() -> None:
    run = RunBuilder().delivering().build()
    plan = resolve_plan(run, merge_spec({}, run["spec"]), None).plan
    assert plan is not None
    assert "publisher" not in plan.to_json()
    assert "signing" not in plan.to_json()


def test_a_claims_path_becomes_a_folder_below_the_data_mount() -> None:
    source = {"persistentVolumeClaim": {"claimName": "annotations", "path": "/2026/parts/"}}
    run = RunBuilder().spec(dataset={"source": source}).build()
    plan = resolve_plan(run, merge_spec({}, run["spec"]), None).plan
    assert plan is not None
    assert plan.dataset.source.folder is not None
    assert plan.dataset.source.folder.path == "2026/parts"


def test_alterations_of_a_run_replace_those_of_the_defaults_and_keep_their_order() -> None:
    defaults = {"dataset": {"augmentation": {"copies": 3, "transforms": [{"noise": {}}]}}}
    chosen = [
        {"flip": {"probability": 1}},
        {"affine": {"rotateDegrees": 5}},
        {"flip": {"direction": "Vertical"}},
    ]
    run = (
        RunBuilder().spec(dataset={"source": {"sample": {}}, "augmentation": {"transforms": chosen}}).build()
    )
    plan = resolve_plan(run, merge_spec(defaults, run["spec"]), None).plan
    assert plan is not None
    assert plan.dataset.augmentation.copies == 3
    assert plan.dataset.augmentation.steps == (
        Flip(probability=1),
        Affine(rotate_degrees=5),
        Flip(direction="Vertical"),
    )


def test_all_that_is_wrong_is_listed_at_once() -> None:
    run = RunBuilder().spec(training={"arguments": {"lrf0": 0.1, "project": "x"}}, delivery={}).build()
    resolution = resolve_plan(run, merge_spec({}, run["spec"]), None)
    text = "\n".join(resolution.problems)
    assert resolution.plan is None
    for fragment in ("lrf0", "project", "delivery.api.url", "delivery.api.credentials", "signingKey"):
        assert fragment in text


def test_a_run_without_delivery_ends_when_the_model_is_verified() -> None:
    run = RunBuilder().build()
    plan = resolve_plan(run, merge_spec({}, run["spec"]), None).plan
    assert plan is not None
    assert plan.stages[-1] == "Verification"


def resolve_classes(classes: dict[str, Any], text: str | None = None) -> Resolution:
    run = RunBuilder().spec(dataset={"source": {"sample": {}}, "classes": classes}).build()
    return resolve_plan(run, merge_spec({}, run["spec"]), text)


KEY = {"configMapKeyRef": {"name": "parts", "key": "classes.json"}}


def test_the_class_map_of_a_config_map_is_in_the_plan_whole() -> None:
    text = '[{"Id": 1, "Name": "nut"}, {"Id": 0, "Name": "bolt", "ShortName": "b", "Color": "#f00"}]'
    plan = resolve_classes({**KEY, "slots": 4}, text).plan
    assert plan is not None
    assert plan.dataset.classes.from_source is None
    found = plan.dataset.classes.given
    assert found is not None
    assert found.names == ("bolt", "nut", "unused-2", "unused-3")
    assert found.classes[0].color == "#f00"


@pytest.mark.parametrize("text", ["", "{}", "[1, 2]", "[]", "[: :"])
def test_a_bad_class_map_is_a_problem_that_names_its_field(text: str) -> None:
    (problem,) = resolve_classes(KEY, text).problems
    assert problem.startswith("spec.dataset.classes.configMapKeyRef: ")


def test_variants_that_meet_another_class_are_refused() -> None:
    variants = [{"name": "wet", "offset": 1}]
    (problem,) = resolve_classes({"inline": ["bolt", "nut"], "variants": variants}).problems
    assert "spec.dataset.classes" in problem
    assert "id 1 is both" in problem


def test_a_map_of_the_run_replaces_that_of_the_defaults_and_its_variants_only_add_to_it() -> None:
    defaults = {"dataset": {"classes": {"inline": ["bolt"], "slots": 9}}}
    source = {"dataset": {"source": {"sample": {}}, "classes": {"fromSource": "x.json"}}}
    assert merge_sections(defaults, source)["dataset"]["classes"] == {"fromSource": "x.json"}
    more = {"dataset": {"classes": {"slots": 20}}}
    assert merge_sections(defaults, more)["dataset"]["classes"] == {"inline": ["bolt"], "slots": 20}


def test_every_missing_object_is_named_with_what_it_needs() -> None:
    source = {"persistentVolumeClaim": {"claimName": "annotations"}}
    run = RunBuilder().spec(dataset={"source": source}).delivering().build()
    references = required(merge_spec({}, run["spec"]))
    text = "\n".join(find_problems(references, dict.fromkeys(r.identity for r in references), "ml"))
    for fragment in (
        "PersistentVolumeClaim 'annotations' does not exist in namespace 'ml'",
        "Secret 'publisher' does not exist",
        "AZAION_API_EMAIL, AZAION_API_PASSWORD",
        "cdn.yaml",
        "publisher.key",
        "ConfigMap 'recipients'",
        "trainwright.dev/use=delivery",
        "trainwright.dev/use=recipients",
    ):
        assert fragment in text


def test_a_secret_without_the_label_may_not_be_used() -> None:
    run = RunBuilder().delivering().build()
    references = [r for r in required(merge_spec({}, run["spec"])) if r.name == "signing"]
    secret = {"metadata": {"labels": {}}, "data": {"publisher.key": "eA=="}}
    problems = find_problems(references, {("Secret", "signing"): secret}, "ml")
    assert problems == [
        "spec.delivery.sealing.signingKey.secretName: Secret 'signing' lacks"
        " the label trainwright.dev/use=delivery"
    ]


def test_a_gpu_finds_the_batch_size_by_itself_and_the_processor_does_not() -> None:
    def problems(**compute: int) -> tuple[str, ...]:
        run = RunBuilder().spec(training={"gpuMemoryFraction": 0.7}, compute=compute).build()
        return resolve_plan(run, merge_spec({}, run["spec"]), None).problems

    assert problems() == ()
    assert "spec.compute.gpus is 0: set spec.training.batchSize instead" in problems(gpus=0)[0]


@pytest.mark.parametrize(
    ("default", "own"),
    [({"batchSize": 16}, {"gpuMemoryFraction": 0.7}), ({"gpuMemoryFraction": 0.7}, {"batchSize": 16})],
)
def test_a_runs_batch_replaces_that_of_a_default(default: dict[str, Any], own: dict[str, Any]) -> None:
    merged = merge_sections({"training": default | {"epochs": 3}}, {"training": own})
    assert merged["training"] == own | {"epochs": 3}


def test_several_gpus_share_a_batch_evenly_or_not_at_all() -> None:
    def problems(batch: int) -> tuple[str, ...]:
        run = RunBuilder().spec(training={"batchSize": batch}, compute={"gpus": 4}).build()
        return resolve_plan(run, merge_spec({}, run["spec"]), None).problems

    assert problems(16) == ()
    assert problems(11) == (
        "spec.training.batchSize is 11, which 4 GPUs can't share evenly: set it to 8 or 12",
    )
    assert "set it to 4 or 8" in problems(6)[0]


def test_more_gpus_than_the_trainer_uses_are_refused_before_they_are_paid_for() -> None:
    run = RunBuilder().spec(compute={"gpus": 32}, training={"batchSize": 32}).build()
    problems = resolve_plan(run, merge_spec({}, run["spec"]), None).problems
    assert problems == ("spec.compute.gpus is 32: a run has one pod, of at most 16 GPUs",)


def test_a_dry_run_holds_no_gpu() -> None:
    run = RunBuilder().spec(dryRun=True).build()
    plan = resolve_plan(run, merge_spec({}, run["spec"]), None).plan
    assert plan is not None
    assert plan.gpus == 0


def test_a_plan_that_was_written_keeps_its_digest_when_a_later_release_reads_it() -> None:
    run = RunBuilder().build()
    plan = resolve_plan(run, merge_spec({}, run["spec"]), None).plan
    assert plan is not None
    older = plan.to_json().replace('"gpus":1,', "")  # as if gpus had come later
    assert older != plan.to_json()
    assert RunPlan.from_json(older).digest == "sha256:" + hashlib.sha256(older.encode()).hexdigest()


def test_a_dry_run_needs_nothing_to_deliver_with() -> None:
    run = RunBuilder().spec(dryRun=True).delivering().build()
    assert required(merge_spec({}, run["spec"])) == []


BUCKET = {
    "endpoint": "https://s3.example.com",
    "bucket": "checkpoints",
    "prefix": "ml",
    "credentials": {"secretName": "checkpoint-store"},
}


def test_a_checkpoint_store_is_in_the_plan_without_its_secret() -> None:
    run = RunBuilder().spec(checkpoint={"everyEpochs": 5, "keep": 3, "store": {"s3": BUCKET}}).build()
    plan = resolve_plan(run, merge_spec({}, run["spec"]), None).plan
    assert plan is not None
    assert plan.checkpoint.store is not None
    assert plan.checkpoint.store.s3 is not None
    assert (plan.checkpoint.every_epochs, plan.checkpoint.keep) == (5, 3)
    assert plan.checkpoint.store.s3.prefix == "ml"
    assert "checkpoint-store" not in plan.to_json()


def test_a_claim_for_checkpoints_is_a_folder_below_its_mount_and_replaces_the_defaults_bucket() -> None:
    store = {"persistentVolumeClaim": {"claimName": "checkpoints", "path": "/runs/"}}
    run = RunBuilder().spec(checkpoint={"store": store}).build()
    spec = merge_spec({"checkpoint": {"store": {"s3": BUCKET}}}, run["spec"])
    plan = resolve_plan(run, spec, None).plan
    assert plan is not None
    assert plan.checkpoint.store is not None
    assert plan.checkpoint.store.folder is not None
    assert plan.checkpoint.store.folder.path == "runs"
    assert [(r.kind, r.name) for r in required(spec) if "checkpoint" in r.field] == [
        ("PersistentVolumeClaim", "checkpoints")
    ]


def test_the_secret_of_a_checkpoint_store_needs_its_label_and_both_keys() -> None:
    run = RunBuilder().spec(checkpoint={"store": {"s3": BUCKET}}).build()
    references = required(merge_spec({}, run["spec"]))
    secret = {
        "metadata": {"labels": {"trainwright.dev/use": "delivery"}},
        "data": {"AWS_ACCESS_KEY_ID": "eA=="},
    }
    found = {reference.identity: secret for reference in references}
    (problem,) = find_problems([r for r in references if "checkpoint" in r.field], found, "ml")
    assert problem == (
        "spec.checkpoint.store.s3.credentials.secretName: Secret 'checkpoint-store' lacks the label"
        " trainwright.dev/use=checkpoint and lacks the key AWS_SECRET_ACCESS_KEY"
    )


STREAM = {"host": "mq.example.com", "stream": "annotations", "credentials": {"secretName": "mq"}}
CLAIM = {"persistentVolumeClaim": {"claimName": "annotations"}}


@pytest.mark.parametrize("dry_run", [False, True])
def test_an_annotation_stream_is_in_the_plan_and_its_secret_needs_label_and_account(dry_run: bool) -> None:
    dataset = {"source": CLAIM, "annotationStream": STREAM}
    run = RunBuilder().spec(dataset=dataset, dryRun=dry_run).build()
    spec = merge_spec({}, run["spec"])
    plan = resolve_plan(run, spec, None).plan
    assert plan is not None
    stream = plan.dataset.annotation_stream
    assert stream is not None
    assert (stream.host, stream.stream, stream.tls, stream.listening_port) == (
        "mq.example.com",
        "annotations",
        True,
        5551,
    )
    assert "credentials" not in plan.to_json()
    references = [r for r in required(spec) if "annotationStream" in r.field]
    found = {reference.identity: {"metadata": {}, "data": {}} for reference in references}
    assert find_problems(references, found, "ml") == [
        "spec.dataset.annotationStream.credentials.secretName: Secret 'mq' lacks the label"
        " trainwright.dev/use=stream and lacks the keys RABBITMQ_USER, RABBITMQ_PASSWORD"
    ]


def test_a_stream_needs_a_workspace_that_keeps_the_dataset_for_the_next_attempt() -> None:
    compute = {"gpus": 0, "workspace": {"emptyDir": {}}}
    run = RunBuilder().spec(dataset={"source": CLAIM, "annotationStream": STREAM}, compute=compute).build()
    (problem,) = resolve_plan(run, merge_spec({}, run["spec"]), None).problems
    assert problem.startswith("spec.dataset.annotationStream is set, and spec.compute.workspace an emptyDir")


def test_a_default_stream_is_for_runs_on_a_claim_and_a_runs_own_replaces_it_whole() -> None:
    defaults = {"dataset": {"annotationStream": {**STREAM, "port": 15552, "tls": False}}}
    builder = RunBuilder()
    merged = merge_spec(defaults, builder.spec(dataset={"source": CLAIM}).build()["spec"])
    assert merged.dataset.annotation_stream is not None
    assert merged.dataset.annotation_stream.port == 15552
    own = builder.spec(dataset={"source": CLAIM, "annotationStream": {**STREAM, "host": "other"}}).build()
    stream = merge_spec(defaults, own["spec"]).dataset.annotation_stream
    assert stream is not None
    assert (stream.host, stream.port, stream.tls) == ("other", None, None)
    sample = builder.spec(dataset={"source": {"sample": {}}}).build()
    plan = resolve_plan(sample, merge_spec(defaults, sample["spec"]), None).plan
    assert plan is not None
    assert plan.dataset.annotation_stream is None


def test_a_stream_without_trees_is_told_by_the_users_own_fields() -> None:
    run = RunBuilder().spec(dataset={"source": {"sample": {}}, "annotationStream": STREAM}).build()
    (problem,) = resolve_plan(run, merge_spec({}, run["spec"]), None).problems
    assert problem == (
        "spec.dataset: annotationStream needs a source with trees to be read into: set"
        " spec.dataset.source.persistentVolumeClaim, or in a plan dataset.source.folder"
    )


def test_a_dry_run_needs_no_checkpoint_store() -> None:
    run = RunBuilder().spec(checkpoint={"store": {"s3": BUCKET}}, dryRun=True).build()
    spec = merge_spec({}, run["spec"])
    plan = resolve_plan(run, spec, None).plan
    assert plan is not None
    assert plan.checkpoint.store is None
    assert [r for r in required(spec) if "checkpoint" in r.field] == []


def test_a_secret_with_more_keys_than_a_run_needs_is_told_of() -> None:
    def told(text: str) -> list[str]:
        spec = merge_spec({}, RunBuilder().delivering().build()["spec"])
        references = required(spec)
        held = {"data": {"cdn.yaml": base64.b64encode(text.encode()).decode()}}
        return find_excess(references, {each.identity: held for each in references})

    assert told("uploader_access_key: a") == []
    assert told("{ not yaml") == []
    (sentence,) = told("uploader_access_key: a\ndownloader_access_key: b")
    assert sentence.startswith("CredentialsTooBroad: spec.delivery.cdn.credentials.secretName: Secret 'cdn'")


def test_shared_memory_has_to_leave_room_below_the_memory_limit() -> None:
    resources = {"limits": {"memory": "4Gi"}}
    run = RunBuilder().spec(compute={"resources": resources, "sharedMemory": "4Gi"}).build()
    (problem,) = resolve_plan(run, merge_spec({}, run["spec"]), None).problems
    assert "spec.compute.sharedMemory is 4Gi" in problem
    run["spec"]["compute"]["sharedMemory"] = "3Gi"
    assert resolve_plan(run, merge_spec({}, run["spec"]), None).problems == ()


def test_what_a_runs_volumes_name_has_to_exist() -> None:
    volumes = [
        {"name": "models", "mountPath": "/mnt/models", "persistentVolumeClaim": {"claimName": "models"}},
        {"name": "maps", "mountPath": "/mnt/maps", "configMap": {"name": "maps"}},
    ]
    references = required(merge_spec({}, RunBuilder().spec(compute={"volumes": volumes}).build()["spec"]))
    text = "\n".join(find_problems(references, dict.fromkeys(r.identity for r in references), "ml"))
    assert "spec.compute.volumes[0].persistentVolumeClaim.claimName: PersistentVolumeClaim 'models'" in text
    assert "spec.compute.volumes[1].configMap.name: ConfigMap 'maps'" in text


def test_a_changed_copy_of_a_plan_has_a_digest_of_its_own() -> None:
    run = RunBuilder().build()
    plan = resolve_plan(run, merge_spec({}, run["spec"]), None).plan
    assert plan is not None
    digest = plan.digest
    assert plan.model_copy(update={"gpus": plan.gpus + 1}).digest != digest
    assert plan.model_copy().digest == plan.digest == digest
