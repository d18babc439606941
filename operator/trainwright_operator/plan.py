"""From a run to its plan: built-in defaults < the operator's settings < the profile < the run. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from trainwright.contract import ClassMapError, RunPlan, parse_class_map
from trainwright.training_arguments import check_arguments
from trainwright_operator.api import Compute, Training, TrainingRunSpec
from trainwright_operator.quantities import memory_limit, parse_quantity

Object = dict[str, Any]

MOST_GPUS = 16

_MADE_BY_A_RUN = re.compile(r"(?P<model>[a-z0-9-]{1,40})-(?P<version>\d{4}-\d{2}-\d{2}-[0-9a-f]{8})")

CHOICES = (
    ("dataset", "source"),
    ("dataset", "classes"),
    ("compute", "workspace"),
    ("checkpoint", "store"),
    ("delivery", "sealing", "recipients"),
    ("delivery", "bundle", "recipients"),
    ("delivery", "bundle", "publishers"),
)
"""Sections with one member each: a run that chooses one replaces a default that chose another."""

_BESIDE_A_CHOICE = {"variants", "slots"}
BATCHES = frozenset({"batchSize", "gpuMemoryFraction"})
"""Ways to say how large a batch of training is: a run's own replaces that of a default."""


@dataclass(frozen=True)
class Resolution:
    """The plan, or every reason why there is none."""

    plan: RunPlan | None
    problems: tuple[str, ...] = ()


def merge_spec(defaults: Object, spec: Object) -> TrainingRunSpec:
    """Return the effective spec: the run's own fields over the defaults, section by section.

    A default stream is for runs on a claim: others have no trees that it could be read into.
    """
    merged = TrainingRunSpec.model_validate(merge_sections(defaults, spec))
    dataset = merged.dataset
    if dataset.source.persistent_volume_claim or _stream(spec):
        return merged
    return merged.model_copy(update={"dataset": dataset.model_copy(update={"annotation_stream": None})})


def merge_sections(low: Object, high: Object) -> Object:
    """Return two partial specs as one: fields of `high` win, and its choices replace those of `low`."""
    merged = _merge(low, high)
    for *sections, choice in CHOICES:
        chosen, target = high, merged
        for section in sections:
            chosen, target = chosen.get(section) or {}, target.get(section) or {}
        if (chosen.get(choice) or {}).keys() - _BESIDE_A_CHOICE:
            target[choice] = _prefer(target[choice], chosen[choice])
    if named := BATCHES & (high.get("training") or {}).keys():
        merged["training"] = {
            name: value for name, value in merged["training"].items() if name not in BATCHES - named
        }
    if stream := _stream(high):  # the port and tls of one broker are not those of another
        merged["dataset"] = merged["dataset"] | {"annotationStream": stream}
    if high.get("profile"):
        merged["profile"] = high["profile"]  # a version or kind belongs to the name beside it
    return merged


def _stream(spec: Object) -> Object | None:
    return (spec.get("dataset") or {}).get("annotationStream")


def _prefer(merged: Object, chosen: Object) -> Object:
    """Return the merged section with the members that were chosen, and no other."""
    return {member: value for member, value in merged.items() if member in chosen}


def _merge(low: Object, high: Object) -> Object:
    merged = dict(low)
    for key, value in high.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def resolve_plan(run: Object, spec: TrainingRunSpec, class_map: str | None) -> Resolution:
    """Return the plan of a run; `class_map` is the text of the ConfigMap key its classes name, if any.

    The model's version comes from the run's creation and uid, so that every attempt makes the same one.
    """
    problems = find_setting_problems(spec)
    metadata = run["metadata"]
    sections = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    body = {
        "run": {key: metadata[key] for key in ("name", "namespace", "uid")},
        "model": _model(run, spec, sections["model"], problems),
        "dataset": _dataset(sections["dataset"], class_map, problems),
        # A dry run trains nothing, so it holds no GPU.
        "gpus": 0 if spec.dry_run else sections.get("compute", {}).get("gpus", 1),
        "dryRun": sections.get("dryRun", False),
    }
    body |= {key: sections[key] for key in ("training", "export", "gate") if key in sections}
    if spec.delivery and not problems and not spec.dry_run:
        body["delivery"] = _delivery(sections["delivery"])
    if "checkpoint" in sections and not spec.dry_run:
        body["checkpoint"] = _checkpoint(sections["checkpoint"])
    if problems:
        return Resolution(None, tuple(problems))
    try:
        return Resolution(RunPlan.model_validate(body))
    except ValidationError as error:
        return Resolution(None, tuple(_sentence(item) for item in error.errors()))


def find_setting_problems(spec: TrainingRunSpec) -> list[str]:
    """Return a sentence for each setting of an effective spec that is wrong whatever else exists."""
    arguments = [f"spec.training.arguments.{problem}" for problem in _argument_problems(spec)]
    resources = _gpu_problems(spec) + _memory_problems(spec)
    return arguments + resources + _stage_problems(spec) + _delivery_problems(spec)


def model_version(run: Object) -> str:
    """Return the version of the model this run makes: its date and eight digits of its uid."""
    metadata = run["metadata"]
    return f"{metadata['creationTimestamp'][:10]}-{metadata['uid'].replace('-', '')[:8]}"


def _model(run: Object, spec: TrainingRunSpec, section: Object, problems: list[str]) -> Object:
    """Return the plan's model section: the parent's name is that of a model and of a version of it."""
    model = section | {"version": model_version(run)}
    if spec.dry_run:  # it trains nothing, and has nothing to fetch a parent with
        return {key: value for key, value in model.items() if key != "parent"}
    if parent := section.get("parent"):
        model["parent"] = split_version(parent, spec.model.name)
        if model["parent"] is None:
            problems.append(
                f"spec.model.parent is {parent!r}, which is no MODEL-VERSION: name a version as"
                f" {spec.model.name}-{model['version']}"
            )
    return model


def split_version(name: str, model: str) -> Object | None:
    """Return model and version of a version's name: one made by a run, or else any of this model."""
    made = _MADE_BY_A_RUN.fullmatch(name)
    if made:
        return {"model": made["model"], "version": made["version"]}
    version = name.removeprefix(f"{model}-")
    return None if version == name else {"model": model, "version": version}


def _argument_problems(spec: TrainingRunSpec) -> list[str]:
    arguments = spec.training.arguments if spec.training else None
    return check_arguments(arguments or {})


def _gpu_problems(spec: TrainingRunSpec) -> list[str]:
    """A pod is on one node; several GPUs share a batch evenly, and one at most finds its size by itself."""
    asked = spec.compute.gpus if spec.compute else None
    gpus = int(Compute.built_in["gpus"]) if asked is None else asked
    training = spec.training or Training()
    problems = []
    if gpus > MOST_GPUS:
        problems.append(f"spec.compute.gpus is {gpus}: a run has one pod, of at most {MOST_GPUS} GPUs")
    if training.gpu_memory_fraction is not None:
        if gpus != 1:
            problems.append(
                "spec.training.gpuMemoryFraction is set, which is for one GPU, and spec.compute.gpus is"
                f" {gpus}: set spec.training.batchSize instead"
            )
        return problems
    batch = training.batch_size or int(Training.built_in["batchSize"])
    if gpus > 1 and batch % gpus:
        problems.append(
            f"spec.training.batchSize is {batch}, which {gpus} GPUs can't share evenly: set it to"
            f" {max(batch // gpus, 1) * gpus} or {(batch // gpus + 1) * gpus}"
        )
    return problems


def _stage_problems(spec: TrainingRunSpec) -> list[str]:
    """A default and a run may agree with the schema each, and not with each other."""
    compute = spec.compute
    if not (compute and compute.workspace and compute.workspace.empty_dir):
        return []
    problems = []
    if compute.stages == "Apart":
        problems.append(
            "spec.compute.stages is Apart, and spec.compute.workspace an emptyDir, which ends with its pod:"
            " use a persistentVolumeClaim, or stages Together"
        )
    if spec.dataset.annotation_stream and not spec.dry_run:
        problems.append(
            "spec.dataset.annotationStream is set, and spec.compute.workspace an emptyDir, which ends with"
            " its pod: the next attempt would have another dataset, and train from the beginning. Use a"
            " persistentVolumeClaim"
        )
    return problems


def _memory_problems(spec: TrainingRunSpec) -> list[str]:
    """What is in /dev/shm counts against the memory limit: as large as that it would get the pod killed."""
    shared, limit = spec.compute.shared_memory if spec.compute else None, memory_limit(spec)
    if shared in (None, "Auto") or limit is None or parse_quantity(shared) < limit:
        return []
    return [
        f"spec.compute.sharedMemory is {shared}, which is not below spec.compute.resources.limits.memory, and"
        " counts against it: lower it, leave it to Auto, or raise the limit"
    ]


def _delivery_problems(spec: TrainingRunSpec) -> list[str]:
    """Delivery is asked for as a whole or not at all: half of it would end in a model nobody can fetch."""
    delivery = spec.delivery
    if delivery is None and spec.model.parent and not spec.dry_run:
        return [
            "spec.model.parent needs spec.delivery: a parent is fetched from where models are delivered to"
        ]
    if delivery is None or spec.dry_run:
        return []
    needed: dict[str, object] = {
        "spec.delivery.api.url": delivery.api and delivery.api.url,
        "spec.delivery.api.credentials": delivery.api and delivery.api.credentials,
        "spec.delivery.sealing.recipients": delivery.sealing and delivery.sealing.recipients,
        "spec.delivery.sealing.signingKey": delivery.sealing and delivery.sealing.signing_key,
    }
    if spec.model.parent:
        needed |= {
            "spec.delivery.bundle.privateKey": delivery.bundle and delivery.bundle.private_key,
            "spec.delivery.bundle.publishers": delivery.bundle and delivery.bundle.publishers,
        }
    nowhere = "is set neither by the run nor by the operator's defaults: set it"
    return [f"{field} {nowhere}" for field, value in needed.items() if not value]


def _dataset(section: Object, class_map: str | None, problems: list[str]) -> Object:
    """Return the plan's dataset section: a claim becomes a folder below the data mount, Secrets stay out."""
    dataset = dict(section)
    claim = dataset["source"].get("persistentVolumeClaim")
    if claim:
        dataset["source"] = {"folder": {"path": claim.get("path", "/").strip("/") or "."}}
    if stream := dataset.get("annotationStream"):
        dataset["annotationStream"] = {key: value for key, value in stream.items() if key != "credentials"}
    classes = {key: value for key, value in dataset.get("classes", {}).items() if key != "configMapKeyRef"}
    if class_map is not None:
        classes["map"] = _parse_classes(class_map, problems)
    if "inline" in classes or "map" in classes:
        classes["fromSource"] = None
    return dataset | {"classes": classes}


def _parse_classes(text: str, problems: list[str]) -> Object | None:
    try:
        return parse_class_map(text).model_dump(mode="json", by_alias=True)
    except ClassMapError as error:
        problems.append(f"spec.dataset.classes.configMapKeyRef: {error}")
        return None


def _delivery(section: Object) -> Object:
    """Return the plan's delivery section: names of Secrets stay out, their files are mounted."""
    sealing = {key: value for key, value in section["sealing"].items() if key in ("format", "smallPart")}
    delivery = {key: section[key] for key in ("folder", "bucket") if key in section}
    bundle = "recipients" in section.get("bundle", {})
    return delivery | {"api": {"url": section["api"]["url"]}, "sealing": sealing, "bundle": bundle}


def _checkpoint(section: Object) -> Object:
    """Return the plan's checkpoint section: a claim is a folder below its mount, Secrets stay out."""
    checkpoint = dict(section)
    store = section.get("store", {})
    if claim := store.get("persistentVolumeClaim"):
        checkpoint["store"] = {"folder": {"path": claim.get("path", "/").strip("/") or "."}}
    if bucket := store.get("s3"):
        checkpoint["store"] = {"s3": {key: value for key, value in bucket.items() if key != "credentials"}}
    return checkpoint


def _sentence(error: Any) -> str:
    path = ".".join(str(part) for part in error["loc"])
    value = "" if isinstance(error["input"], dict) else f" (it is {error['input']!r})"
    return f"spec.{path}: {error['msg'].removeprefix('Value error, ')}{value}"
