"""The documents on a real API server: their objects are accepted, their kubectl commands do what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from documents import DOCUMENTS, ROOT, Block, Command, read_blocks, read_commands, read_objects
from installation import Kubectl, find_kubectl, install

from trainwright_operator.plan import merge_spec
from trainwright_operator.references import find_problems, required

if TYPE_CHECKING:
    from trainwright_devstack.controlplane import ControlPlane

NAMESPACE = "ml"  # the documents' own
GETTING_STARTED = ROOT / "docs" / "getting-started.md"
WITH_KEYS = (GETTING_STARTED, GETTING_STARTED.with_name("fine-tuning.md"))

# These wait for an operator, and none runs here: what they say shows that they were understood.
WITHOUT_OPERATOR = {
    "get lease": "not found",
    "logs": "not found",
    "rollout": "not found",
    "wait": "timed out waiting for the condition",
}


@pytest.fixture(scope="module")
def kubectl(control_plane: ControlPlane, assets: Path) -> Kubectl:
    found = find_kubectl(assets, control_plane)
    install(found)
    return found


@pytest.mark.parametrize(("block", "item"), read_objects(), ids=lambda part: getattr(part, "line", ""))
def test_an_object_of_a_document_is_accepted(
    kubectl: Kubectl, namespace: str, block: Block, item: dict[str, Any]
) -> None:
    item["metadata"]["namespace"] = namespace
    done = kubectl.run("apply", "--dry-run=server", "--filename", "-", manifest=item)
    assert done.returncode == 0, f"{block}: {done.stderr}"


def test_a_job_of_a_document_makes_a_pod_that_a_restricted_namespace_admits(
    kubectl: Kubectl, namespace: str
) -> None:
    """Jobs are accepted wherever they are: only their pods would be refused."""
    kubectl.succeed("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    kubectl.run("create", "serviceaccount", "default", "--namespace", namespace)  # if nobody has yet
    jobs = [item for _, item in read_objects() if item["kind"] == "Job"]
    assert jobs
    for job in jobs:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "job", "namespace": namespace}}
        pod["spec"] = job["spec"]["template"]["spec"]
        done = kubectl.run("apply", "--dry-run=server", "--filename", "-", manifest=pod)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader of the documents stands: in the repository, with the files they make by then."""
    here = tmp_path_factory.mktemp("reader")
    for name in ("examples", "helm"):
        (here / name).symlink_to(ROOT / name)
    for name in (
        "trainer.txt",
        "plant-a.txt",
        "access-key.txt",
        "secret-key.txt",
        "address.txt",
        "stream-password.txt",
    ):
        (here / name).write_text("correct horse battery staple\n")
    (cdn,) = [block.text for block in read_blocks("yaml") if "uploader_access_key" in block.text][:1]
    (here / "cdn.yaml").write_text(cdn)
    return here


@pytest.fixture(scope="module")
def played(kubectl: Kubectl, folder: Path) -> Iterator[list[tuple[Command, str]]]:
    """Every command of ours and of kubectl in the documents was run, in their order; what each said."""
    if kubectl.run("get", "namespace", NAMESPACE).returncode == 0:
        kubectl.succeed("delete", "namespace", NAMESPACE, "--timeout=60s")
    documents = sorted(DOCUMENTS, key=lambda path: path != GETTING_STARTED)
    commands = [command for command in read_commands(documents) if is_played(command)]
    yield [(command, play(command, kubectl, folder)) for command in commands]
    kubectl.run("delete", "namespace", NAMESPACE, "--wait=false")


def is_played(command: Command) -> bool:
    program, *words = command.words
    ours = command.block.path in WITH_KEYS and words[:2] in (["keys", "new"], ["user", "add"])
    return ours or (program == "kubectl" and command.block.line > 0)


def play(command: Command, kubectl: Kubectl, folder: Path) -> str:
    """Run a command; return what it says, or nothing when it failed and should not have."""
    program, *words = command.words
    if program == "kubectl":
        argv = [kubectl.program, "--kubeconfig", kubectl.kubeconfig, *adapt(words)]
    else:
        argv = [Path(sys.executable).parent / program, *words]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    understood = program == "kubectl" and _missing_without_operator(words) in done.stderr
    assert done.returncode == 0 or understood, f"{command}: {done.stderr}"
    return done.stdout + done.stderr


def _missing_without_operator(words: list[str]) -> str:
    """Return what kubectl may say of this command as no operator runs here."""
    text = " ".join(words)
    return next((said for start, said in WITHOUT_OPERATOR.items() if re.search(rf"\b{start}\b", text)), "?")


def adapt(words: list[str]) -> list[str]:
    """Return a command's words for here: in the documents' namespace, and without waiting."""
    words = [word for word in words if word != "--watch"]
    words = ["--timeout=1s" if word.startswith("--timeout=") else word for word in words]
    if "helm/install.yaml" in words:
        words.append("--dry-run=server")
    elif not {"--namespace", "--all-namespaces", "explain", "namespace"} & set(words):
        words += ["--namespace", NAMESPACE]
    return words


def test_every_kubectl_command_of_the_documents_works(played: list[tuple[Command, str]]) -> None:
    verbs = {command.words[1] for command, _ in played if command.words[0] == "kubectl"}
    assert {"apply", "create", "label", "patch", "get", "explain", "wait"} <= verbs


def test_explain_reads_like_documentation(played: list[tuple[Command, str]]) -> None:
    told = {command.words[-1]: said for command, said in played if command.words[1] == "explain"}
    assert "What the model is trained on." in told["trainingrun.spec.dataset"]
    assert "without mosaic" in told["trainingrun.spec.training.closeMosaic"]


@pytest.mark.usefixtures("played")
def test_who_follows_getting_started_lacks_nothing_but_the_annotations(kubectl: Kubectl) -> None:
    run = yaml.safe_load((ROOT / "examples" / "trainingrun-folder.yaml").read_text())
    references = required(merge_spec({}, run["spec"]))
    found = {reference.identity: get(kubectl, *reference.identity) for reference in references}
    problems = find_problems(references, found, NAMESPACE)
    assert len(references) == 5
    assert len(problems) == 1
    assert "PersistentVolumeClaim 'annotations' does not exist" in problems[0]


def get(kubectl: Kubectl, kind: str, name: str) -> dict[str, Any] | None:
    done = kubectl.run("get", kind, name, "--namespace", NAMESPACE, "--output", "yaml")
    found: dict[str, Any] | None = yaml.safe_load(done.stdout) if done.returncode == 0 else None
    return found


@pytest.mark.usefixtures("played")
def test_kubectl_prints_the_readmes_columns(kubectl: Kubectl) -> None:
    head = kubectl.succeed("get", "trun", "--namespace", NAMESPACE).splitlines()[0]
    (block,) = [b for b in read_blocks("console", documents=[ROOT / "README.md"]) if "get trun" in b.text]
    heads = [line for line in block.text.splitlines() if line.startswith("NAME")]
    assert [line.split() for line in heads] == [head.split()] * 2
