"""The operator as a program of its own, with the rights the chart gives it and no others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import requests
import yaml

from trainwright_devstack.processes import free_port

if TYPE_CHECKING:
    from kubernetes import client

    from trainwright_devstack.controlplane import ControlPlane

SETTINGS = {
    "trainer": {"image": "registry.example/trainer:test"},
    "retryBackoffSeconds": 0.2,
    "relistSeconds": 5,
    "leaseSeconds": 3,
}


class OperatorProcess:
    """The operator, logged in as its ServiceAccount; started, stopped and killed at will."""

    def __init__(self, folder: Path, plane: ControlPlane, kube: client.ApiClient, **settings: Any) -> None:
        self.name = f"operator-{folder.name}"  # as that of a pod whose container is started again
        self.port = free_port()
        self.log = folder / "operator.log"
        self._settings = folder / "settings.yaml"
        self._settings.write_text(yaml.safe_dump({**SETTINGS, "healthPort": self.port, **settings}))
        self._kubeconfig = folder / "operator.kubeconfig"
        self._write_kubeconfig(plane, kube)
        self.environment = {**os.environ, "POD_NAME": self.name}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it, and return when it has seen the cluster."""
        command = [sys.executable, "-m", "trainwright_operator", "run"]
        command += ["--settings", str(self._settings), "--kubeconfig", str(self._kubeconfig)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment)
        deadline = time.monotonic() + 30
        while not self._healthy():
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)
        return self

    def leads(self) -> bool:
        """Whether it is the one that acts."""
        return bool(requests.get(f"http://127.0.0.1:{self.port}/healthz", timeout=2).json()["leader"])

    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> int:
        """Ask it to end, and return its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout=15)

    def kill(self) -> None:
        """End it as a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(timeout=15)

    def _healthy(self) -> bool:
        try:
            return requests.get(f"http://127.0.0.1:{self.port}/readyz", timeout=2).ok
        except requests.ConnectionError:
            return False

    def _write_kubeconfig(self, plane: ControlPlane, kube: client.ApiClient) -> None:
        from kubernetes import client

        core = client.CoreV1Api(kube)
        answer = core.create_namespaced_service_account_token(
            "trainwright-operator", "trainwright-system", {"spec": {"expirationSeconds": 7200}}
        )
        admin = yaml.safe_load(plane.kubeconfig.read_text())
        admin["users"][0]["user"] = {"token": answer.status.token}
        self._kubeconfig.touch(mode=0o600)
        self._kubeconfig.write_text(yaml.safe_dump(admin))
