"""The models of the API against the contract with the trainer: same names, same defaults, no wider bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import RunBuilder
from pydantic import ValidationError

from trainwright import contract
from trainwright_operator import api, crds
from trainwright_operator.api.dataset import Dataset
from trainwright_operator.api.section import Section, built_in_of
from trainwright_operator.manifests.config import WORKSPACE_SIZE
from trainwright_operator.manifests.job import GPU_RESOURCE
from trainwright_operator.plan import resolve_plan
from trainwright_operator.retries import BUDGET_FIELDS, BUDGETS

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("trainingrun-*.yaml"))

MIRRORS: list[tuple[type[Section], type[contract.Contract]]] = [
    (api.Model, contract.ModelSettings),
    (api.SampleSource, contract.SampleSource),
    (api.Directories, contract.Directories),
    (api.Split, contract.SplitSettings),
    (api.Augmentation, contract.AugmentationSettings),
    (api.Transform, contract.Transform),
    (api.Flip, contract.Flip),
    (api.BrightnessContrast, contract.BrightnessContrast),
    (api.Affine, contract.Affine),
    (api.MotionBlur, contract.MotionBlur),
    (api.HueSaturationValue, contract.HueSaturationValue),
    (api.Noise, contract.Noise),
    (Dataset, contract.DatasetSettings),
    (api.Training, contract.TrainingSettings),
    (api.Onnx, contract.OnnxSettings),
    (api.Parity, contract.ParitySettings),
    (api.Gate, contract.GateSettings),
    (api.SmallPart, contract.SmallPartSettings),
    (api.Sealing, contract.SealingSettings),
    (api.Delivery, contract.DeliverySettings),
]
SECTIONS = pytest.mark.parametrize(("section", "settings"), MIRRORS, ids=lambda model: model.__name__)


def _properties(model: type[Any]) -> dict[str, Any]:
    fields: dict[str, Any] = crds.build_structural(model)["properties"]
    return fields


@SECTIONS
def test_a_section_has_the_fields_of_the_contract(
    section: type[Section], settings: type[contract.Contract]
) -> None:
    chosen_by_the_operator = {"version"} if settings is contract.ModelSettings else set()
    assert _properties(settings).keys() - chosen_by_the_operator <= _properties(section).keys()


@SECTIONS
def test_a_section_accepts_nothing_the_contract_refuses(
    section: type[Section], settings: type[contract.Contract]
) -> None:
    ours, theirs = _properties(section), _properties(settings)
    for name in ours.keys() & theirs.keys():
        low, high = theirs[name].get("minimum"), theirs[name].get("maximum")
        assert low is None or ours[name]["minimum"] >= low, name
        assert high is None or ours[name]["maximum"] <= high, name
        above = theirs[name].get("exclusiveMinimum")
        assert above is None or ours[name]["minimum"] > above, name
        assert ours[name].get("multipleOf") == theirs[name].get("multipleOf"), name
        if "pattern" in theirs[name]:
            assert ours[name].get("pattern") == theirs[name]["pattern"], name
        if "enum" in theirs[name]:
            assert set(ours[name]["enum"]) <= set(theirs[name]["enum"]), name


@SECTIONS
def test_the_defaults_in_words_are_the_contracts(
    section: type[Section], settings: type[contract.Contract]
) -> None:
    assert section.built_in == built_in_of(settings)
    properties = _properties(section)
    for name, default in section.built_in.items():
        text = str(default).lower() if isinstance(default, bool) else str(default).removesuffix(".0")
        assert properties[name]["description"].endswith(f"Default: {text}."), name


def test_the_defaults_in_words_are_the_operators() -> None:
    compute, retry = _properties(api.Compute), _properties(api.Retry)
    for cause, field in BUDGET_FIELDS.items():
        if cause.lower() == field.lower():
            assert retry[field]["description"].endswith(f"Default: {BUDGETS[field]}."), field
    assert compute["gpuResource"]["description"].endswith(f"Default: {GPU_RESOURCE}.")
    claim = compute["workspace"]["properties"]["persistentVolumeClaim"]["properties"]
    assert claim["size"]["description"].endswith(f"Default: {WORKSPACE_SIZE}.")
    assert compute["gpus"]["description"].endswith(f"Default: {_gpus_of_a_plan()}.")


def _gpus_of_a_plan() -> int:
    run = RunBuilder().body
    plan = resolve_plan(run, api.TrainingRunSpec.model_validate(run["spec"]), None).plan
    assert plan is not None
    return plan.gpus


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_read_and_written_back_unchanged(example: Path) -> None:
    manifest = yaml.safe_load(example.read_text())
    manifest["metadata"]["namespace"] = "ml"
    run = api.TrainingRun.model_validate(manifest)
    assert run.spec.model_dump(mode="json", by_alias=True, exclude_none=True) == manifest["spec"]


def test_an_unknown_field_is_an_error_that_names_it() -> None:
    with pytest.raises(ValidationError, match=r"training\.epoch\b"):
        api.TrainingRunSpec.model_validate(
            {"model": {"name": "a"}, "dataset": {"source": {"sample": {}}}, "training": {"epoch": 1}}
        )


def test_what_the_api_server_adds_to_an_object_is_no_error() -> None:
    run = api.TrainingRun.model_validate(
        {
            "apiVersion": "trainwright.dev/v1alpha1",
            "kind": "TrainingRun",
            "metadata": {"name": "a", "namespace": "b", "uid": "c", "generation": 2, "managedFields": []},
            "spec": {"model": {"name": "a"}, "dataset": {"source": {"sample": {}}}},
            "status": {"phase": "Running", "fromTheFuture": 1},
        }
    )
    assert run.metadata.generation == 2
    assert run.status is not None
    assert run.status.phase == "Running"


def test_a_whole_report_fits_into_the_status() -> None:
    digest = "sha256:" + "0" * 64
    part = {"name": "parts.1.small", "size": 1, "digest": digest}
    report = contract.RunReport.model_validate(
        {
            "attempt": 1,
            "heartbeatTime": "2026-11-21T10:00:00Z",
            "progress": {"percent": 100, "stage": "Publishing"},
            "finishedStages": {stage.value: 1.5 for stage in contract.Stage},
            "metrics": {"mAP50": 0.9},
            "dataset": {
                "digest": digest,
                "images": {"train": 1, "valid": 1, "test": 1},
                "quarantined": 0,
                "classes": 3,
            },
            "model": {
                "name": "parts",
                "version": "1",
                "digest": digest,
                "size": 1,
                "parts": {"small": part, "big": part},
            },
            "publishing": {"fileId": "0" * 32},
            "outcome": "Failed",
            "failure": {"cause": "Publishing", "exitCode": 69, "message": "no", "hint": "do", "logTail": "x"},
        }
    )
    schema = crds.build_schema(api.TrainingRun)["properties"]["status"]["properties"]["trainer"]
    assert _undeclared(report.model_dump(mode="json", by_alias=True), schema) == []


def _undeclared(value: Any, schema: dict[str, Any], path: str = "trainer") -> list[str]:
    """Return the paths of fields that the schema would drop."""
    if not isinstance(value, dict) or "additionalProperties" in schema:
        return []
    return [
        problem
        for name, field in value.items()
        for problem in (
            _undeclared(field, schema["properties"][name], f"{path}.{name}")
            if name in schema["properties"]
            else [f"{path}.{name}"]
        )
    ]


def test_a_stage_that_the_contract_adds_is_known_to_the_schema() -> None:
    schema = crds.build_schema(api.TrainingRun)["properties"]["status"]["properties"]
    stages = [stage.value for stage in contract.Stage]
    assert (
        schema["stage"]["enum"] == schema["trainer"]["properties"]["progress"]["properties"]["stage"]["enum"]
    )
    assert schema["stage"]["enum"] == stages
