"""The documents say what is: commands, options, links, files and names in them are those of the code."""

from __future__ import annotations

import importlib
import re
import subprocess
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from click.testing import CliRunner
from documents import (
    DOCUMENTS,
    ROOT,
    Command,
    read_anchors,
    read_blocks,
    read_commands,
    read_links,
    read_objects,
)
from prerequisites import require_program

from trainwright.contract import Cause, ExitCode, Stage
from trainwright.contract.dataset import Directories
from trainwright_operator import crds, names
from trainwright_operator.causes import EXIT_CAUSES
from trainwright_operator.plan import merge_spec
from trainwright_operator.retries import BUDGET_FIELDS, BUDGETS
from trainwright_trainer.ingestion.ingestor import Ingestor
from trainwright_trainer.ingestion.telemetry import Telemetry

COMMANDS = read_commands()
CHART = ROOT / "helm" / "trainwright"

# Programs that are not ours: the documents use them as their own manuals say.
FOREIGN = {"apt-get", "chmod", "cp", "curl", "docker", "jq", "mkdir", "sha256sum", "skopeo"}
TESTED_ELSEWHERE = {"kubectl", "helm"}  # by running them: test_docs_cluster, and below


def commands_of(*programs: str) -> list[Command]:
    return [command for command in COMMANDS if command.words[0] in programs]


def programs() -> dict[str, str]:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    return {name: target.partition(":")[0] for name, target in scripts.items()}


def find_app(program: str) -> Any:
    """Return the command line of one of our programs."""
    module = importlib.import_module(programs()[program])
    if not hasattr(module, "app"):
        module = importlib.import_module(f"{programs()[program]}.commands")
    return typer.main.get_command(module.app)


def operations() -> str:
    return (ROOT / "docs" / "operations.md").read_text()


def rows(text: str, heading: str) -> list[list[str]]:
    """Return the cells of the table below a heading, without its head."""
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def first_names(heading: str) -> list[str]:
    return [re.findall(r"`([^`]+)`", row[0])[0] for row in rows(operations(), heading)]


# --- commands -----------------------------------------------------------------------------------------


def test_every_program_in_the_documents_is_known() -> None:
    known = FOREIGN | TESTED_ELSEWHERE | {"make"} | set(programs())
    assert [str(command) for command in COMMANDS if command.words[0] not in known] == []
    assert {command.words[0] for command in COMMANDS} >= FOREIGN | TESTED_ELSEWHERE


@pytest.mark.parametrize("command", commands_of(*programs()), ids=str)
def test_a_command_of_ours_is_one_its_program_takes(command: Command) -> None:
    parser, words = find_app(command.words[0]), list(command.words[1:])
    context = None
    while hasattr(parser, "commands"):
        context = parser.make_context(parser.name or command.words[0], words[:1], parent=context)
        parser, words = parser.commands[words[0]], words[1:]
    parser.make_context(parser.name, words, parent=context)


def test_such_a_command_would_be_refused() -> None:
    fetch = find_app("trainwright").commands["fetch"]
    for words in (["shapes", "--into", "models"], ["shapes", "--to", "models"]):
        with pytest.raises(Exception, match=r"No such option|Missing parameter"):
            fetch.make_context("fetch", words)


@pytest.mark.parametrize("command", commands_of("make"), ids=str)
def test_a_target_is_in_the_makefile(command: Command) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(command.words[1:]) <= set(targets)


@pytest.fixture
def helm() -> str:
    return require_program("helm")


def values_block(name: str = "values.yaml") -> str:
    (text,) = [block.text for block in read_blocks("yaml") if block.text.startswith(f"# {name}")]
    return text


@pytest.mark.parametrize("command", commands_of("helm"), ids=str)
def test_the_chart_takes_the_documents_values(command: Command, helm: str, tmp_path: Path) -> None:
    """The chart's schema refuses an unknown value by its name."""
    words = command.words
    for option, name in pairwise(words):
        if option == "--values":
            (tmp_path / name).write_text(values_block(name))
    (tmp_path / "helm").symlink_to(ROOT / "helm")
    assert words[1] in ("install", "upgrade")
    done = subprocess.run(
        [helm, "template", *words[2:], "--kube-version", "1.30.0"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_the_documents_defaults_are_a_part_of_a_run() -> None:
    run = {"model": {"name": "parts"}, "dataset": {"source": {"sample": {}}}}
    spec = merge_spec(yaml.safe_load(values_block())["defaults"], run)
    assert spec.compute is not None


# --- links and files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    lost = []
    for file, anchor in read_links(document):
        target = (document.parent / file).resolve() if file else document
        if not target.exists() or (anchor and anchor not in read_anchors(target)):
            lost.append(f"{file}#{anchor}")
    assert lost == []


def test_every_document_can_be_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        document = waiting.pop()
        document = document / "README.md" if document.is_dir() else document
        if document in reached or document.suffix != ".md" or not document.is_file():
            continue
        reached.add(document)
        waiting += [(document.parent / file).resolve() for file, _ in read_links(document) if file]
    assert set(DOCUMENTS) - reached == set()


def tree_paths() -> Iterator[str]:
    """Yield the paths of the README's tree."""
    (tree,) = [block.text for block in read_blocks("") if block.text.startswith(".\n")]
    folders: list[str] = []
    for line in tree.splitlines()[1:]:
        found = re.match(r"(?P<indent>[│ ]*)[├└]── (?P<name>\S+)", line)
        assert found, line
        depth = len(found["indent"]) // 4
        folders = [*folders[:depth], found["name"].rstrip("/")]
        yield "/".join(folders)


def test_the_readmes_tree_is_the_repositorys() -> None:
    paths = list(tree_paths())
    assert [path for path in paths if not (ROOT / path).exists()] == []
    listed = {path for path in paths if path.startswith("operator/") and path.endswith(".py")}
    modules = (ROOT / "operator" / "trainwright_operator").glob("*.py")
    present = {str(path.relative_to(ROOT)) for path in modules if path.name != "__init__.py"}
    assert listed == present


def test_files_named_in_the_architecture_exist_and_each_step_is_among_them() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(r"`((?:operator|trainer_image|resource_api|devstack|helm)/[^`,]*)`", text)
    assert [path for path in named if not (ROOT / path).exists()] == []
    steps = {f"trainer_image/trainwright_trainer/steps/{stage.lower()}.py" for stage in Stage}
    assert steps <= set(named)


def test_every_decision_is_in_the_list_and_has_its_three_parts() -> None:
    folder = ROOT / "docs" / "decisions"
    records = sorted(path for path in folder.glob("*.md") if path.name != "README.md")
    assert [path.name[:4] for path in records] == [f"{number:04}" for number in range(1, len(records) + 1)]
    listed = [file for file, _ in read_links(folder / "README.md")]
    assert listed == [path.name for path in records]
    for path in records:
        parts = re.findall(r"^\*\*(\w+)\.\*\*", path.read_text(), re.MULTILINE)
        assert parts == ["Context", "Decision", "Consequences"], path.name


# --- names --------------------------------------------------------------------------------------------


def test_columns_in_the_readme_are_the_crds() -> None:
    heads = re.findall(r"^NAME .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    columns = ["NAME", *(column.name.upper() for column in crds.RUN_COLUMNS if not column.priority)]
    assert heads
    assert [head.split() for head in heads] == [columns] * len(heads)


def test_the_readme_goes_through_every_stage_in_order() -> None:
    stages = [row[0] for row in rows((ROOT / "README.md").read_text(), "What a run goes through")]
    assert stages == list(Stage)


def test_phases_conditions_and_reasons_are_explained_and_no_others() -> None:
    assert first_names("Phases") == list(names.Phase)
    assert first_names("Conditions") == list(names.ConditionType)
    assert sorted(first_names("Reasons")) == sorted(names.Reason)


def test_every_label_and_annotation_is_explained() -> None:
    ours = {value for name, value in vars(names).items() if name.endswith(("_LABEL", "_ANNOTATION"))}
    assert len(ours) >= 6
    assert ours <= set(first_names("Labels and annotations"))
    text = operations()
    assert [use for use in names.Use if f"`{use}`" not in text] == []


def test_causes_have_the_exit_codes_and_budgets_of_the_code() -> None:
    told = {re.findall(r"`(\w+)`", row[0])[0]: row[1:4] for row in rows(operations(), "Causes")}
    assert sorted(told) == sorted(Cause)
    for cause in Cause:
        codes = sorted(int(code) for code, found in EXIT_CAUSES.items() if found is cause)
        field = BUDGET_FIELDS.get(cause)
        assert told[cause] == [
            "any other" if cause is Cause.UNKNOWN else ", ".join(map(str, codes)),
            str(BUDGETS[field]) if field else "0",
            f"`retry.{field}`" if field else "",
        ]


def test_the_metrics_of_the_follower_are_those_it_has(tmp_path: Path) -> None:
    text = (ROOT / "docs/annotation-stream.md").read_text()
    told = {row[0].strip("`"): row[1] for row in rows(text, "Watching it")}
    with Ingestor(tmp_path, sync=False) as ingestor:
        families = list(Telemetry(ingestor).registry.collect())
    assert told == {
        family.name + ("_total" if family.type == "counter" else ""): family.type for family in families
    }


@pytest.mark.parametrize("command", ["rewind", "replay-dead-letters"])
def test_the_job_on_a_claim_has_all_that_its_command_needs(command: str, tmp_path: Path) -> None:
    (job,) = [item for _, item in read_objects() if item["kind"] == "Job"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    program, *words = [*container["command"], *container["args"]]
    environment = {each["name"]: each["value"] for each in container["env"]}
    credentials, root = tmp_path / "credentials", tmp_path / "annotations"
    credentials.mkdir()
    for name in ("RABBITMQ_USER", "RABBITMQ_PASSWORD"):
        (credentials / name).write_text("reader")
    root.mkdir()
    moved = {"/etc/trainwright/stream": str(credentials), "rewind": command}
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {"/etc/trainwright/stream", environment["AZAION_ROOT_DIR"], environment["HOME"]} == mounted
    done = CliRunner().invoke(
        typer.main.get_command(importlib.import_module(programs()[program]).app),
        [moved.get(word, word) for word in words],
        env=environment | {"AZAION_ROOT_DIR": str(root)},
    )
    assert done.exit_code == 0, done.output
    directories = Directories()
    told = [environment[f"AZAION_DATA_{name}DIR"] for name in ("", "SEED_", "DELETED_")]
    assert told == [directories.data, directories.seed, directories.deleted]


def test_every_exit_code_is_named() -> None:
    text = operations()
    assert [code.name for code in ExitCode if f"`{code.name}` {int(code)}" not in text] == []
