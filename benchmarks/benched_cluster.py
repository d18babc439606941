"""What the operator's benchmarks run on: a control plane, the chart's access, the operator as a process."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from trainwright_devstack.api import Api
from trainwright_devstack.binaries import find_binaries
from trainwright_devstack.controlplane import CONTROLLERS, ControlPlane
from trainwright_devstack.installation import MANIFEST, NAMESPACE, apply
from trainwright_devstack.processes import Process, free_port

Object = dict[str, Any]

RESULTS = Path(__file__).parent / "results"
TICKS = os.sysconf("SC_CLK_TCK")
SETTINGS = {"trainer": {"image": "registry.example/trainer:bench"}}
READY_SECONDS = 120.0


@contextmanager
def control_plane(controllers: str = CONTROLLERS) -> Iterator[ControlPlane]:
    """Start etcd, API server, controllers and scheduler, and install the chart but for its Deployment."""
    binaries, problems = find_binaries()
    if binaries is None:
        sys.exit(f"needs a control plane's programs: {'; '.join(problems)}")
    with TemporaryDirectory() as folder, ControlPlane(Path(folder, "plane"), binaries, controllers) as plane:
        documents = [item for item in yaml.safe_load_all(MANIFEST.read_text()) if item]
        with Api(plane.kubeconfig) as api:
            apply(api, [item for item in documents if item["kind"] not in ("Deployment", "ConfigMap")])
        yield plane


class OperatorUnderTest:
    """The operator as a process of its own, with the rights of the chart and no others."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.port = free_port()
        self._folder = plane.folder / "operator"
        self._folder.mkdir(exist_ok=True)
        self._settings = self._folder / "settings.yaml"
        settings = SETTINGS | {"healthPort": self.port, "namespaces": [namespace]}
        self._settings.write_text(yaml.safe_dump(settings))
        self._kubeconfig = self._folder / "kubeconfig"
        self._log_in(plane)
        self._starts = 0

    def start(self) -> float:
        """Start it and wait until nothing is left to do; return the seconds that took.

        Busy is who has keys in the queue or uses the processor: done is the time of the last sign of work
        before two seconds without any.
        """
        command = [sys.executable, "-m", "trainwright_operator", "run"]
        command += ["--settings", str(self._settings), "--kubeconfig", str(self._kubeconfig)]
        started = time.monotonic()
        self._starts += 1
        self._process.start(command)
        self._wait_until_listed(started)
        return self.wait_until_idle() - started

    @property
    def _process(self) -> Process:
        return Process(self._folder / f"process-{self._starts}")

    def stop(self) -> None:
        """End it as a rollout would."""
        self._process.stop(grace=20)

    def wait_until_idle(self, quiet_seconds: float = 2.0) -> float:
        """Return the time at which it last did anything, once it has been idle for some seconds."""
        busy, spent = time.monotonic(), self.cpu_seconds()
        while time.monotonic() - busy < quiet_seconds:
            time.sleep(0.1)
            now = self.cpu_seconds()
            if self._queue_depth() or now - spent > 0.02:
                busy = time.monotonic()
            spent = now
        return busy

    def cpu_seconds(self) -> float:
        """Return the processor time it has used, in user and kernel mode."""
        fields = Path(f"/proc/{self._process.pid()}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def resident_mib(self) -> float:
        """Return the memory it holds now."""
        return self._memory("VmRSS")

    def peak_mib(self) -> float:
        """Return the most memory it held since it was started."""
        return self._memory("VmHWM")

    def _memory(self, field: str) -> float:
        status = Path(f"/proc/{self._process.pid()}/status").read_text()
        found = re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
        assert found is not None
        return int(found.group(1)) / 1024

    def _queue_depth(self) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=30) as answer:
            return int(json.load(answer)["queueDepth"])

    def _wait_until_listed(self, started: float) -> None:
        """The queue is empty before the first list, too: wait until the operator says that it is ready."""
        while not self._is_ready():
            self._process.require_alive("the operator")
            assert time.monotonic() - started < READY_SECONDS, self._process.log.read_text()
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=30):
                return True
        except OSError:  # an answer that is no success is one of these, too
            return False

    def _log_in(self, plane: ControlPlane) -> None:
        account = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/trainwright-operator/token"
        with Api(plane.kubeconfig) as api:
            token = api.post(account, {"spec": {"expirationSeconds": 14400}})["status"]["token"]
        config = yaml.safe_load(plane.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": token}
        self._kubeconfig.touch(mode=0o600)
        self._kubeconfig.write_text(yaml.safe_dump(config))


def sample_run(name: str, namespace: str) -> Object:
    """Return the run that is measured: with a workspace claim, without GPU and delivery."""
    spec = {
        "model": {"name": "parts"},
        "dataset": {"source": {"sample": {"images": 20}}},
        "compute": {"gpus": 0, "schedulerName": "none"},
    }
    return {
        "apiVersion": "trainwright.dev/v1alpha1",
        "kind": "TrainingRun",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def percentile(values: list[float], share: float) -> float:
    """Return the smallest value that so great a share of the values does not exceed."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


def write_result(name: str, kubernetes: str, result: Object) -> None:
    """Write `results/NAME.json`: the figures, and what they were measured on."""
    record = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine() | {"kubernetes": kubernetes},
        **result,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=2))


def describe_machine() -> Object:
    """Return what figures depend on: processor, memory, versions, and how busy the machine was before."""
    processor = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": processor.group(1) if processor else platform.machine(),
        "cores": os.cpu_count(),
        "memoryGiB": round(memory / 1024**3, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{package: version(package) for package in ("aiohttp", "pydantic")},
    }
