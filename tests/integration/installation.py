"""What the chart installs, on a real API server; and kubectl as a user runs it."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from prerequisites import require

if TYPE_CHECKING:
    from trainwright_devstack.controlplane import ControlPlane

REPOSITORY = Path(__file__).resolve().parents[2]
CRD = "CustomResourceDefinition"
INSTALL = REPOSITORY / "helm/install.yaml"


@dataclass(frozen=True)
class Kubectl:
    """kubectl with one kubeconfig; answers are compared as text."""

    program: Path
    kubeconfig: Path

    def run(self, *arguments: str, manifest: Any = None) -> subprocess.CompletedProcess[str]:
        """Run kubectl; a manifest goes to its standard input."""
        return subprocess.run(
            [self.program, "--kubeconfig", self.kubeconfig, *arguments],
            input=None if manifest is None else yaml.safe_dump(manifest),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def succeed(self, *arguments: str, manifest: Any = None) -> str:
        """Run kubectl and return what it prints; it must not fail."""
        done = self.run(*arguments, manifest=manifest)
        assert done.returncode == 0, done.stderr
        return done.stdout


def find_kubectl(assets: Path, plane: ControlPlane) -> Kubectl:
    """Return kubectl for this control plane; without the program the test is skipped, or fails in CI."""
    program = assets / "kubectl"
    require(program.exists(), f"needs kubectl in {assets}")
    return Kubectl(program, plane.kubeconfig)


def install(kubectl: Kubectl) -> None:
    """Install what the chart renders, but for the operator and its settings; again is fine."""
    documents = [
        item
        for item in yaml.safe_load_all(INSTALL.read_text())
        if item["kind"] not in ("Deployment", "ConfigMap")
    ]
    text = yaml.safe_dump_all(documents)
    done = subprocess.run(
        [kubectl.program, "--kubeconfig", kubectl.kubeconfig, "apply", "--server-side", "-f", "-"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    definitions = [f"crd/{item['metadata']['name']}" for item in documents if item["kind"] == CRD]
    kubectl.succeed("wait", "--for=condition=Established", *definitions, "--timeout=30s")


def sample_run(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    """Return a small, valid run; keyword arguments replace sections of its spec."""
    return {
        "apiVersion": "trainwright.dev/v1alpha1",
        "kind": "TrainingRun",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"model": {"name": "parts"}, "dataset": {"source": {"sample": {"images": 20}}}, **spec},
    }
