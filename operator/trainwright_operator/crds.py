"""Turn the kinds of `trainwright_operator.api` into CustomResourceDefinitions and their reference page.

`python -m trainwright_operator.crds` writes crds/, the same bytes into the chart, and docs/api.md;
with `--check` it writes nothing and fails when one of them differs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel

from trainwright_operator.api import ClusterTrainingProfile, TrainingProfile, TrainingRun
from trainwright_operator.api_reference import build_reference
from trainwright_operator.names import (
    CLUSTER_PROFILE_KIND,
    CLUSTER_PROFILE_PLURAL,
    GROUP,
    PROFILE_KIND,
    PROFILE_PLURAL,
    RUN_KIND,
    RUN_PLURAL,
    VERSION,
)

Schema = dict[str, Any]

REPOSITORY = Path(__file__).resolve().parents[2]
UNBOUNDED_STRING = 1024  # the most characters of a status text whose model names no bound
UNBOUNDED_MAP = 32  # the same for the entries of a map

_DROPPED = ("$defs", "title", "default", "additionalProperties", "propertyNames", "const")


class Column(NamedTuple):
    """A column of `kubectl get`; one with priority 1 shows with `-o wide`."""

    name: str
    type: str
    path: str
    description: str
    priority: int = 0


class Kind(NamedTuple):
    """A custom resource: its model and how kubectl knows it."""

    model: type[BaseModel]
    kind: str
    plural: str
    short_names: tuple[str, ...]
    columns: tuple[Column, ...]
    scope: str = "Namespaced"

    @property
    def file_name(self) -> str:
        """The name of the file that holds its CRD."""
        return f"{GROUP}_{self.plural}.yaml"


READY = '.status.conditions[?(@.type=="Ready")]'

RUN_COLUMNS = (
    Column("Phase", "string", ".status.phase", "The run's state in one word."),
    Column("Stage", "string", ".status.stage", "The stage it is in, or ended in."),
    Column("Progress", "integer", ".status.trainer.progress.percent", "Percent of the whole run."),
    Column("Epoch", "integer", ".status.trainer.progress.epoch", "Epochs trained."),
    Column("mAP", "number", ".status.trainer.metrics.mAP50to95", "mAP50-95, as last measured."),
    Column("Attempt", "integer", ".status.attempt", "Number of the newest attempt."),
    Column("Model", "string", ".spec.model.name", "Name of the model."),
    Column("Reason", "string", f"{READY}.reason", "Why it is in this phase, in one word."),
    Column("Age", "date", ".metadata.creationTimestamp", "Time since the run was created."),
    Column("Version", "string", ".status.model.version", "Version of the model that was made.", 1),
    Column("Queue", "string", ".status.queue.name", "Queue that the Job that trains was put in.", 1),
    Column("Node", "string", ".status.attempts[-1:].node", "Node of the newest attempt.", 1),
    Column("GPUs", "integer", ".spec.compute.gpus", "GPUs asked for; empty is the default.", 1),
    Column("GPU-seconds", "integer", ".status.usage.gpuSeconds", "GPU-seconds of pods that have ended.", 1),
    Column(
        "ETA",
        "integer",
        ".status.trainer.progress.estimatedRemainingSeconds",
        "Seconds until the current stage ends, as the pod expects.",
        1,
    ),
    Column("Message", "string", f"{READY}.message", "What it is doing and why, in a sentence.", 1),
)

PROFILE_COLUMNS = (
    Column("Ready", "string", ".status.conditions[?(@.type=='Ready')].status", "Whether runs can use it."),
    Column("Runs", "integer", ".status.runs", "Runs that use it and are not finished."),
    Column("GPUs", "integer", ".spec.limits.gpus", "The most GPUs of a run; empty is no limit."),
    Column("Epochs", "integer", ".spec.limits.epochs", "The most epochs of a run; empty is no limit."),
    Column("Age", "date", ".metadata.creationTimestamp", "Time since the profile was created."),
    Column("Version", "string", ".spec.versions[?(@.default==true)].name", "Its default version.", 1),
    Column("Price", "number", ".spec.pricePerGPUHour", "What an hour of one GPU costs.", 1),
)

KINDS = (
    Kind(TrainingRun, RUN_KIND, RUN_PLURAL, ("trun", "truns"), RUN_COLUMNS),
    Kind(TrainingProfile, PROFILE_KIND, PROFILE_PLURAL, ("tprofile", "tprofiles"), PROFILE_COLUMNS),
    Kind(
        ClusterTrainingProfile,
        CLUSTER_PROFILE_KIND,
        CLUSTER_PROFILE_PLURAL,
        ("ctprofile", "ctprofiles"),
        PROFILE_COLUMNS,
        "Cluster",
    ),
)


def build_definition(kind: Kind) -> Schema:
    """Return the CustomResourceDefinition of a kind."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": kind.scope,
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.kind.lower(),
                "shortNames": list(kind.short_names),
                "categories": ["trainwright"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_print_column(column) for column in kind.columns],
                    "schema": {"openAPIV3Schema": build_schema(kind.model)},
                }
            ],
        },
    }


def build_schema(model: type[BaseModel]) -> Schema:
    """Return the schema of a kind, as the API server wants it in a CRD."""
    schema = build_structural(model)
    schema["properties"]["apiVersion"] = {
        "type": "string",
        "description": "Version of the API this object is written in.",
        "maxLength": 64,
    }
    schema["properties"]["kind"] = {"type": "string", "description": "Kind of this object.", "maxLength": 64}
    schema["properties"]["metadata"] = {"type": "object"}
    schema["required"] = ["metadata", "spec"]
    return schema


def build_structural(model: type[BaseModel]) -> Schema:
    """Return the structural schema of a model: what the API server accepts of its JSON schema."""
    document = model.model_json_schema(by_alias=True)
    return _structural(document, document.get("$defs", {}))


def _print_column(column: Column) -> Schema:
    printed: Schema = {"name": column.name, "type": column.type, "description": column.description}
    if column.priority:
        printed["priority"] = column.priority
    return printed | {"jsonPath": column.path}


def _structural(schema: Mapping[str, Any], definitions: Mapping[str, Schema]) -> Schema:
    """Return the schema without what Kubernetes refuses: references, nulls, titles, defaults, constants."""
    merged = _without_null(_resolved(schema, definitions))
    merged = _resolved(merged, definitions)
    result: Schema = {key: value for key, value in merged.items() if key not in _DROPPED}
    if "const" in merged:
        result["enum"] = [merged["const"]]
    if "description" in result:
        result["description"] = " ".join(result["description"].split())
    if "x-kubernetes-int-or-string" in result:
        return result
    if "properties" in result:
        result["properties"] = {
            name: _structural(field, definitions) for name, field in result["properties"].items()
        }
    if "items" in result:
        result["items"] = _structural(result["items"], definitions)
    if isinstance(values := merged.get("additionalProperties"), dict):
        result["additionalProperties"] = _structural(values, definitions)
    return _bounded(result)


def _resolved(schema: Mapping[str, Any], definitions: Mapping[str, Schema]) -> Schema:
    """Return the schema with the definition it refers to in its place; the field's own words win."""
    if "$ref" not in schema:
        return dict(schema)
    name = str(schema["$ref"]).removeprefix("#/$defs/")
    return {**definitions[name], **{key: value for key, value in schema.items() if key != "$ref"}}


def _without_null(schema: Schema) -> Schema:
    """Return the schema of an optional field: in Kubernetes such a field is left out, never null."""
    alternatives = [choice for choice in schema.get("anyOf", ()) if choice.get("type") != "null"]
    if "anyOf" not in schema or len(alternatives) != 1:
        return schema
    return {**alternatives[0], **{key: value for key, value in schema.items() if key != "anyOf"}}


def _bounded(schema: Schema) -> Schema:
    """Return the schema with an upper bound and a format where its model names none."""
    kind = schema.get("type")
    if kind == "string" and not schema.keys() & {"enum", "maxLength", "format"}:
        schema["maxLength"] = UNBOUNDED_STRING
    if kind == "integer":
        schema.setdefault("format", "int64")
    if "additionalProperties" in schema:
        schema.setdefault("maxProperties", UNBOUNDED_MAP)
    return schema


# --- files ---------------------------------------------------------------------------------------------


class _Dumper(yaml.SafeDumper):
    """YAML without anchors: readers of a CRD need not know them."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def build_files() -> dict[Path, str]:
    """Return every generated file: its path below the repository's root, and its text."""
    definitions = [build_definition(kind) for kind in KINDS]
    files = {Path("docs/api.md"): build_reference(definitions)}
    for kind, definition in zip(KINDS, definitions, strict=True):
        text = yaml.dump(definition, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)
        files[Path("crds") / kind.file_name] = text
        files[Path("helm/trainwright/files/crds") / kind.file_name] = text
    return files


def main(arguments: list[str] | None = None) -> int:
    """Write the generated files, or with `--check` name those that differ; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m trainwright_operator.crds", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file differs")
    parser.add_argument("--root", type=Path, default=REPOSITORY, help="the repository's root")
    options = parser.parse_args(arguments)
    stale = [
        path
        for path, text in build_files().items()
        if not (options.root / path).is_file() or (options.root / path).read_text() != text
    ]
    for path in stale:
        if options.check:
            print(f"{path} differs from the models: run `make generate`", file=sys.stderr)
        else:
            (options.root / path).parent.mkdir(parents=True, exist_ok=True)
            (options.root / path).write_text(build_files()[path])
            print(f"wrote {path}")
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
