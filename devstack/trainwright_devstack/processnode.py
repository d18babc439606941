"""A process node as a program of its own, started and stopped from here."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from trainwright_devstack.api import Api, ApiError, Unreachable
from trainwright_devstack.certificates import Authority
from trainwright_devstack.processes import Process, ProcessError, free_port, stop_below

READY_SECONDS = 60.0
NODE_MODULE = "trainwright_devstack.node"


class ProcessNode:
    """A node that runs pods as processes of this machine, usable as a context manager.

    With the cluster's `authority` it also serves `kubectl logs`. Its pods end when it is stopped, and when
    the process that made it is gone; a node that was killed and is started again takes its pods over.
    """

    def __init__(
        self,
        folder: Path,
        kubeconfig: Path,
        *,
        name: str = "process-node",
        authority: Authority | None = None,
    ) -> None:
        self.folder = folder.resolve()
        self.kubeconfig = kubeconfig
        self.name = name
        self.authority = authority
        self.process = Process(self.folder / "process")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> Self:
        """Start the node, and return when the scheduler may use it."""
        port = free_port()
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        options = {
            "--name": self.name,
            "--kubeconfig": self.kubeconfig,
            "--folder": self.folder,
            "--volumes": self.folder / "volumes",
            "--owner": os.getpid(),
            "--port": port,
        }
        if self.authority:
            pair = self.authority.issue(f"node-{self.name}", common_name=self.name, hosts=["127.0.0.1"])
            options |= {"--certificate": pair.certificate, "--key": pair.key}
            options |= {"--authority": self.authority.certificate}
        words = [str(word) for option in options.items() for word in option]
        self.process.start([sys.executable, "-m", NODE_MODULE, *words], directory=self.folder)
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the node and everything its pods left running, even when the node itself was killed."""
        self.process.stop(grace=10.0)
        stop_below(self.folder / "pods")

    def kill(self) -> None:
        """End the node's own process only, as a crash would; its pods go on."""
        self.process.kill()
        self.process.wait(5.0)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        with Api(self.kubeconfig) as api:
            while not self._schedulable(api):
                self.process.require_alive(f"node {self.name}")
                if time.monotonic() > deadline:
                    raise ProcessError(f"node {self.name} was not ready in time; see {self.process.log}")
                time.sleep(0.1)

    def _schedulable(self, api: Api) -> bool:
        try:
            node = api.find(f"/api/v1/nodes/{self.name}")
        except (ApiError, *Unreachable):
            return False
        if node is None or node["spec"].get("taints"):
            return False
        conditions = {each["type"]: each["status"] for each in node.get("status", {}).get("conditions", [])}
        return conditions.get("Ready") == "True"
