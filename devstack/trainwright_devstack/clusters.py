"""Which cluster the stack runs on: the user's own, kind, or a control plane and a process node of ours."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from trainwright_devstack.acquisition import acquire_binaries
from trainwright_devstack.api import Api
from trainwright_devstack.binaries import Binaries, Say, find_binaries
from trainwright_devstack.controlplane import ControlPlane
from trainwright_devstack.installation import Images
from trainwright_devstack.kind import KindCluster
from trainwright_devstack.processes import free_port
from trainwright_devstack.processnode import ProcessNode

LOOPBACK = "127.0.0.1"


class Cluster(Protocol):
    """A cluster the stack can use. `host` is the address of this machine as its pods see it."""

    kubeconfig: Path

    @property
    def description(self) -> str:
        """What it is, for people and for results."""

    @property
    def host(self) -> str:
        """Where servers of this machine have to listen for the cluster's pods."""

    @property
    def images(self) -> Images:
        """The images its pods run."""

    @property
    def health_port(self) -> int:
        """The port of the operator's health check."""

    @property
    def kubectl(self) -> str | None:
        """A kubectl that fits, if there is one."""

    def start(self, say: Say) -> None:
        """Start it, and return when pods can run."""

    def stop(self) -> None:
        """End what `start` started."""


def choose_cluster(
    folder: Path, say: Say, *, kubeconfig: Path | None = None, process_node: bool = False
) -> Cluster:
    """Return the first possible of: the named one, kind, control-plane programs found, got or built."""
    if kubeconfig:
        return GivenCluster(kubeconfig, folder, process_node=process_node)
    if process_node:
        say("kind: not asked for, as a process node is")
    elif (why_not := KindCluster.missing()) is None:
        return KindCluster(folder)
    else:
        say(f"kind: {why_not}")
    found, problems = find_binaries()
    for problem in problems:
        say(f"control plane: {problem}")
    return LocalCluster(folder, found or acquire_binaries(say))


class LocalCluster:
    """A control plane from local programs, and a node that runs pods as processes."""

    host = LOOPBACK
    images = Images()

    def __init__(self, folder: Path, binaries: Binaries) -> None:
        self.plane = ControlPlane(folder / "control-plane", binaries)
        self.node = ProcessNode(
            folder / "node", self.plane.kubeconfig, name="process-node", authority=self.plane.authority
        )
        self.kubeconfig = self.plane.kubeconfig
        self.health_port = free_port()

    @property
    def description(self) -> str:
        """`process-node on kube-apiserver` and its version."""
        return f"process-node on kube-apiserver {self.plane.version()}"

    @property
    def kubectl(self) -> str | None:
        """The kubectl beside the control plane's programs, else the user's."""
        return shutil.which("kubectl", path=str(self.plane.binaries.folder)) or shutil.which("kubectl")

    def start(self, say: Say) -> None:
        """Start the control plane, then the node."""
        self.plane.start()
        say(f"control plane ready: {self.plane.server} ({self.plane.binaries.folder})")
        self.node.start()
        say("process node ready")

    def stop(self) -> None:
        """End both, the node and its pods first."""
        self.node.stop()
        self.plane.stop()


@dataclass
class GivenCluster:
    """A cluster of the user's: nothing of it is started or stopped but, if asked for, a process node."""

    kubeconfig: Path
    folder: Path
    process_node: bool = False

    host = LOOPBACK
    images = Images()

    def __post_init__(self) -> None:
        self.health_port = free_port() if self.process_node else 8080
        self.node = ProcessNode(self.folder / "node", self.kubeconfig, name="trainwright-devstack")

    @property
    def description(self) -> str:
        """The address and version of the API server."""
        with Api(self.kubeconfig) as api:
            version = api.get("/version")["gitVersion"]
            return f"{'process-node on ' if self.process_node else ''}{api.server} {version}"

    @property
    def kubectl(self) -> str | None:
        """The user's kubectl."""
        return shutil.which("kubectl")

    def start(self, say: Say) -> None:
        """Start the process node if one is asked for."""
        if self.process_node:
            self.node.start()
            say("process node ready")

    def stop(self) -> None:
        """End the process node, and forget it."""
        if self.process_node:
            self.node.stop()
            with Api(self.kubeconfig) as api:
                api.delete(f"/api/v1/nodes/{self.node.name}")
