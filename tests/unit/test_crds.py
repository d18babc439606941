"""The generated CRD: what Kubernetes demands of it, what users read in it, and that nobody edits it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prerequisites import require_program
from pydantic import ValidationError

from trainwright.contract import TERMINATION_MESSAGE_BYTES, FailureReport
from trainwright_operator import crds
from trainwright_operator.api import MUTABLE, TrainingRun

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((REPOSITORY / "examples").glob("trainingrun-*.yaml"))

Field = tuple[str, dict[str, Any]]


def _fields(schema: dict[str, Any], path: str = "") -> Iterator[Field]:
    """Yield every schema below this one with its path; metadata is the API server's own."""
    for name, field in schema.get("properties", {}).items():
        if not (path == "" and name == "metadata"):
            yield f"{path}{name}", field
            yield from _fields(field, f"{path}{name}.")
    for inner in ("items", "additionalProperties"):
        if inner in schema:
            yield f"{path.rstrip('.')}[]", schema[inner]
            yield from _fields(schema[inner], f"{path.rstrip('.')}[].")


RUN = crds.build_schema(TrainingRun)
FIELDS = dict(_fields(RUN))


def test_the_committed_files_are_the_models() -> None:
    assert crds.main(["--check"]) == 0


def test_check_names_what_differs_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert crds.main(["--check", "--root", str(tmp_path)]) == 1
    assert "crds/trainwright.dev_trainingruns.yaml differs from the models" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []

    assert crds.main(["--root", str(tmp_path)]) == 0
    assert crds.main(["--check", "--root", str(tmp_path)]) == 0
    written = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.*") if path.is_file()}
    assert written == set(crds.build_files())


def test_the_walk_reaches_the_leaves() -> None:
    assert {
        "spec.training.epochs",
        "spec.compute.tolerations[].key",
        "status.trainer.metrics[]",
    } <= FIELDS.keys()


@pytest.mark.parametrize(
    "keyword",
    ["$ref", "$defs", "title", "const", "default", "oneOf", "allOf", "nullable", "exclusiveMinimum"],
)
def test_nothing_is_left_that_kubernetes_refuses_or_stamps(keyword: str) -> None:
    assert [path for path, field in FIELDS.items() if keyword in field] == []


def test_no_field_may_be_null() -> None:
    quantities = {path for path, field in FIELDS.items() if "x-kubernetes-int-or-string" in field}
    assert {path for path, field in FIELDS.items() if "anyOf" in field} == quantities


def test_every_field_is_described_in_a_sentence() -> None:
    named = {path: field.get("description", "") for path, field in FIELDS.items() if not path.endswith("[]")}
    assert [path for path, text in named.items() if not text.endswith((".", "!"))] == []


def test_everything_has_a_bound() -> None:
    bounds = {
        "string": ("maxLength", "enum", "format"),
        "array": ("maxItems",),
        "object": ("properties", "maxProperties"),
    }
    unbounded = [
        path
        for path, field in FIELDS.items()
        if "type" in field and field["type"] in bounds and not field.keys() & set(bounds[field["type"]])
    ]
    assert unbounded == []


@pytest.mark.parametrize("field", ["message", "hint", "logTail"])
def test_a_report_within_the_contracts_bounds_is_within_those_of_the_schema(field: str) -> None:
    longest = FIELDS[f"status.trainer.failure.{field}"]["maxLength"]
    known = {"cause": "Data", "exitCode": 65, "message": "no image"}
    FailureReport.model_validate({**known, field: "x" * longest})
    with pytest.raises(ValidationError):
        FailureReport.model_validate({**known, field: "x" * (longest + 1)})
    assert FIELDS[f"status.failure.{field}"]["maxLength"] >= longest


def test_the_end_of_a_log_may_fill_a_whole_report() -> None:
    assert FIELDS["status.trainer.failure.logTail"]["maxLength"] >= TERMINATION_MESSAGE_BYTES


def test_numbers_of_a_spec_have_both_bounds() -> None:
    numbers = [
        path
        for path, field in FIELDS.items()
        if path.startswith("spec.") and field.get("type") in ("integer", "number")
        if not {"minimum", "maximum"} <= field.keys()
        and path != "spec.compute.tolerations[].tolerationSeconds"
    ]
    assert numbers == []


def test_all_of_a_spec_is_frozen_but_what_steers_the_run() -> None:
    rules = [rule["rule"] for rule in RUN["properties"]["spec"]["x-kubernetes-validations"]]
    for name in RUN["properties"]["spec"]["properties"]:
        frozen = any(f"self.{name} == oldSelf.{name}" in rule for rule in rules)
        assert frozen == (name not in MUTABLE), name


def test_rules_name_the_field_they_are_about() -> None:
    messages = [
        rule["message"] for field in FIELDS.values() for rule in field.get("x-kubernetes-validations", ())
    ]
    assert len(messages) > 20
    assert [message for message in messages if not message.startswith("spec.")] == []


def test_the_reference_page_has_every_field() -> None:
    page = (REPOSITORY / "docs/api.md").read_text()
    assert [
        path
        for path in FIELDS
        if path.startswith("spec") and not path.endswith("[]")
        if f"`{path}`" not in page
    ] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_validators_without_a_cluster_take_the_schema(example: Path, tmp_path: Path) -> None:
    program = require_program("kubeconform")
    (tmp_path / "trainingrun.json").write_text(json.dumps(RUN))
    location = str(tmp_path / "{{ .ResourceKind }}.json")
    done = subprocess.run(
        [program, "-strict", "-schema-location", location, "-summary", example],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert "Valid: 1" in done.stdout, done.stdout + done.stderr
