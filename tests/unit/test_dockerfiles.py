"""The images are built as docs/images.md says, as far as the files show it."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILES = {
    "Dockerfile.operator": ("operator", "trainwright-operator"),
    "Dockerfile.trainer": ("trainer", "trainwright-trainer"),
    "resource_api/Dockerfile": ("resource-api", "trainwright-resource-api"),
}
TEMPORARY = "/tmp"  # noqa: S108  (in the image)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

Instruction = tuple[str, str]


def read_instructions(name: str) -> list[Instruction]:
    """Return the instructions of a Dockerfile in order, continued lines joined, comments left out."""
    lines = [line for line in (ROOT / name).read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    split = (line.strip().partition(" ") for line in joined.splitlines() if line.strip())
    return [(keyword.upper(), " ".join(rest.split())) for keyword, _, rest in split]


def read_stages(name: str) -> list[list[Instruction]]:
    """Return the instructions of each stage; what comes before the first FROM is left out."""
    stages: list[list[Instruction]] = []
    for instruction in read_instructions(name):
        if instruction[0] == "FROM":
            stages.append([])
        if stages:
            stages[-1].append(instruction)
    return stages


def copied_from_context(name: str) -> list[str]:
    """Return every source of a COPY that is not from another stage."""
    copies = [rest.split() for keyword, rest in read_instructions(name) if keyword == "COPY"]
    from_context = [words for words in copies if not any(word.startswith("--from=") for word in words)]
    return [word for words in from_context for word in words[:-1] if not word.startswith("--")]


def read_environment(name: str) -> dict[str, str]:
    """Return what the last stage sets."""
    rests = [rest for keyword, rest in read_stages(name)[-1] if keyword == "ENV"]
    return dict(pair.split("=", 1) for rest in rests for pair in rest.split())


every_dockerfile = pytest.mark.parametrize("name", DOCKERFILES)


@every_dockerfile
def test_it_ends_as_a_numbered_user_other_than_root(name: str) -> None:
    users = [rest for keyword, rest in read_stages(name)[-1] if keyword == "USER"]
    assert users == ["65532:65532"]


@every_dockerfile
def test_it_starts_its_program_without_a_shell(name: str) -> None:
    commands = {keyword: rest for keyword, rest in read_stages(name)[-1] if keyword in ("ENTRYPOINT", "CMD")}
    program = DOCKERFILES[name][1]
    assert json.loads(commands["ENTRYPOINT"]) == [program]
    assert program in PROJECT["project"]["scripts"]
    assert isinstance(json.loads(commands.get("CMD", "[]")), list)


@every_dockerfile
def test_nothing_is_fetched_but_what_the_lock_names(name: str) -> None:
    runs = [rest for keyword, rest in read_instructions(name) if keyword == "RUN"]
    extra = DOCKERFILES[name][0]
    assert extra in PROJECT["project"]["optional-dependencies"]
    assert len(runs) == 2
    for run in runs:
        command = run.partition(" ")[2]
        assert re.fullmatch(
            rf"uv sync --frozen --no-default-groups --no-(install-project|editable) --extra {extra}", command
        )
    assert not [rest for keyword, rest in read_instructions(name) if keyword == "ADD"]


@every_dockerfile
def test_every_source_exists_and_reaches_the_build(name: str) -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert rules[0] == "*", "the context holds only what is named"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    sources = copied_from_context(name)
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert source.rstrip("/") in allowed, f"{source} is not let in by .dockerignore"


@every_dockerfile
def test_all_that_the_wheel_needs_is_copied(name: str) -> None:
    sources = {source.rstrip("/") for source in copied_from_context(name)}
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    needed = {package.split("/")[0] for package in packages}
    needed |= {
        "pyproject.toml",
        "uv.lock",
        PROJECT["project"]["readme"],
        *PROJECT["project"]["license-files"],
    }
    assert needed <= sources


@every_dockerfile
def test_bases_are_arguments_with_a_tag_that_can_be_pinned(name: str) -> None:
    instructions = read_instructions(name)
    arguments = dict(
        rest.split("=", 1) for keyword, rest in instructions if keyword == "ARG" and "IMAGE=" in rest
    )
    for rest in (rest for keyword, rest in instructions if keyword == "FROM"):
        base = rest.split()[0]
        if base != "scratch":
            tag = arguments[base.strip("${}")].rpartition(":")[2]
            assert re.fullmatch(r"[0-9][0-9a-z.-]+", tag), f"{base} has no fixed tag"
    assert arguments["PYTHON_IMAGE"].endswith("python:3.12-slim")


@every_dockerfile
def test_no_secret_is_baked_in(name: str) -> None:
    values = " ".join(rest for keyword, rest in read_instructions(name) if keyword in ("ARG", "ENV", "LABEL"))
    assert not re.search(r"(?i)password|passwd|secret|token|credential|api_?key|private", values)


@every_dockerfile
def test_it_says_what_it_is_and_under_which_licence(name: str) -> None:
    labels = " ".join(rest for keyword, rest in read_stages(name)[-1] if keyword == "LABEL")
    for key in ("title", "description", "version", "revision", "source", "licenses"):
        assert f"org.opencontainers.image.{key}=" in labels
    assert ("AGPL-3.0-only" in labels) is (name == "Dockerfile.trainer")


@every_dockerfile
def test_what_programs_write_goes_below_tmp(name: str) -> None:
    environment = read_environment(name)
    assert environment["HOME"] == TEMPORARY
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"


def test_the_trainer_is_off_line_and_finds_its_base_models() -> None:
    environment = read_environment("Dockerfile.trainer")
    assert environment["YOLO_OFFLINE"] == "true"
    assert environment["YOLO_AUTOINSTALL"] == "false"
    assert environment["ULTRALYTICS_SAFE_LOAD"] == "1"
    assert environment["YOLO_CONFIG_DIR"].startswith(f"{TEMPORARY}/")
    assert environment["MPLCONFIGDIR"].startswith(f"{TEMPORARY}/")
    copies = [rest for keyword, rest in read_stages("Dockerfile.trainer")[-1] if keyword == "COPY"]
    assert any(
        "--from=weights" in copy and f" {environment['TRAINWRIGHT_WEIGHTS']}/" in copy for copy in copies
    )


def test_which_gpus_a_pod_sees_is_not_the_image_s_decision() -> None:
    assert "NVIDIA_VISIBLE_DEVICES" not in read_environment("Dockerfile.trainer")


def test_what_ultralytics_would_install_at_run_time_is_in_the_trainer_s_extra() -> None:
    extra = PROJECT["project"]["optional-dependencies"]["trainer"]
    names = {re.split(r"[<>=\[]", requirement)[0] for requirement in extra}
    assert {"onnx", "onnxruntime", "onnxslim"} <= names


def test_the_operator_and_the_resource_api_have_no_torch() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    requirements = " ".join(PROJECT["project"]["dependencies"] + extras["operator"] + extras["resource-api"])
    assert not re.search(r"torch|ultralytics|onnx", requirements)
