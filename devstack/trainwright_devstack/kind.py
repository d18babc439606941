"""kind, where a container engine runs: real nodes, real images."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from trainwright_devstack.binaries import Say
from trainwright_devstack.installation import Images
from trainwright_devstack.processes import ProcessError, tail

REPOSITORY = Path(__file__).resolve().parents[2]
NAME = "trainwright-devstack"
DOCKERFILES = {"operator": "Dockerfile.operator", "trainer": "Dockerfile.trainer"}
ENGINE_SECONDS = 10.0


class KindCluster:
    """A cluster of one kind node; its kubeconfig is a file of its own, not the user's."""

    health_port = 8080
    images = Images()

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.kubeconfig = self.folder / "kubeconfig"
        self.log = self.folder / "kind.log"

    @staticmethod
    def missing() -> str | None:
        """Return why kind can't be used here, or None when it can."""
        if sys.platform != "linux":
            return "used on Linux only: elsewhere its pods and this machine reach no server by one address"
        if shutil.which("kind") is None:
            return "there is no kind on the search path"
        if shutil.which("docker") is None:
            return "there is no docker on the search path"
        try:
            answer = subprocess.run(
                ["docker", "info"], capture_output=True, check=False, timeout=ENGINE_SECONDS
            )
        except subprocess.TimeoutExpired:
            return "the container engine does not answer"
        return None if answer.returncode == 0 else "no container engine runs (docker info fails)"

    @property
    def description(self) -> str:
        """`kind` and the version of its node."""
        version = self._output("kubectl", "--kubeconfig", str(self.kubeconfig), "version", "--output=json")
        return f"kind {json.loads(version)['serverVersion']['gitVersion']}"

    @property
    def host(self) -> str:
        """The gateway of kind's network: where pods reach this machine."""
        networks = json.loads(self._output("docker", "network", "inspect", "kind"))
        gateways = [entry.get("Gateway", "") for entry in networks[0]["IPAM"]["Config"]]
        return next(str(gateway) for gateway in gateways if "." in gateway)

    @property
    def kubectl(self) -> str | None:
        """The user's kubectl."""
        return shutil.which("kubectl")

    def start(self, say: Say) -> None:
        """Create the cluster, build both images and load them."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.stop()
        self._run(
            "kind", "create", "cluster", "--name", NAME, "--kubeconfig", str(self.kubeconfig), "--wait=120s"
        )
        say("kind cluster ready")
        for part, dockerfile in DOCKERFILES.items():
            image = getattr(self.images, part)
            self._run(
                "docker", "build", "--tag", image, "--file", str(REPOSITORY / dockerfile), str(REPOSITORY)
            )
            self._run("kind", "load", "docker-image", image, "--name", NAME)
            say(f"image {image} built and loaded")

    def stop(self) -> None:
        """Delete the cluster."""
        self._run("kind", "delete", "cluster", "--name", NAME, "--kubeconfig", str(self.kubeconfig))

    def _run(self, *command: str) -> None:
        with self.log.open("ab") as log:
            code = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
        if code:
            raise ProcessError(f"{' '.join(command)} ended with {code}:\n{tail(self.log, lines=15)}")

    def _output(self, *command: str) -> str:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
