"""The cluster of a whole stack through kubectl, and the processes behind its pods and servers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import yaml
from trainer_process import PATIENCE_SECONDS, TrainerProcess

if TYPE_CHECKING:
    from real_node import RealNodeCluster

    from trainwright_devstack.processes import Process
    from trainwright_devstack.stack import Devstack

Object = dict[str, Any]

SYSTEM = "trainwright-system"
OPERATOR = "trainwright-operator"


@dataclass(frozen=True)
class Cluster:
    """kubectl as administrator, and the processes behind pods and servers."""

    stack: Devstack

    def start(self, *arguments: str, output: Path) -> subprocess.Popen[bytes]:
        """Start kubectl, which writes to a file until it is ended."""
        with output.open("wb") as file:
            return subprocess.Popen(self._command(arguments), stdout=file, stderr=subprocess.STDOUT)

    def run(self, *arguments: str, manifest: Object | None = None) -> subprocess.CompletedProcess[str]:
        """Run kubectl; a manifest goes to its standard input."""
        return subprocess.run(
            self._command(arguments),
            input=None if manifest is None else json.dumps(manifest),
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )

    def kubectl(self, *arguments: str, manifest: Object | None = None) -> str:
        """Run kubectl and return what it prints; it must not fail."""
        done = self.run(*arguments, manifest=manifest)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def get(self, *arguments: str) -> Object:
        """Return what `kubectl get` prints as JSON."""
        found: Object = json.loads(self.kubectl("get", *arguments, "-o", "json"))
        return found

    @property
    def node(self) -> str:
        """The name of the only node."""
        (node,) = self.get("nodes")["items"]
        return str(node["metadata"]["name"])

    @property
    def real_node(self) -> RealNodeCluster | None:
        """The node, if it is a real one."""
        return self.stack.options.cluster

    def container(self, pod: Object) -> Process:
        """Return the process of a pod's only container."""
        from trainwright_devstack.processes import Process

        name = pod["spec"]["containers"][0]["name"]
        runs = self._pod_folder(pod) / "containers" / name
        newest = max((int(run.name) for run in runs.glob("[0-9]*")), default=0)
        return Process(runs / str(newest))

    def trainer(self, pod: Object) -> TrainerProcess | None:
        """Return a pod's trainer, or None before it runs."""
        if self.real_node:
            return self.real_node.trainer(pod)
        process = self.container(pod)
        pid = process.pid()
        return TrainerProcess(pid, process.log) if pid else None

    @contextmanager
    def cut_off(self, pod: Object) -> Iterator[None]:
        """Keep a pod's trainer from the API server as long as this lasts: it finds nobody to trust."""
        authority = self.account_folder(pod) / "ca.crt"
        content, over = authority.read_bytes(), Event()

        def spoil() -> None:
            while not over.is_set():
                if authority.stat().st_size:  # the node brings it back from time to time
                    authority.write_bytes(b"")
                over.wait(0.05)

        thread = Thread(target=spoil)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            authority.write_bytes(content)

    def account_folder(self, pod: Object) -> Path:
        """Return where a pod's token and certificate authority lie."""
        if self.real_node:
            return self.real_node.account_folder(pod)
        return self._pod_folder(pod) / "volumes/account"

    def _pod_folder(self, pod: Object) -> Path:
        """Return the folder of a pod on whichever process node runs it."""
        uid = pod["metadata"]["uid"]
        found = list(self.stack.folder.glob(f"node*/pods/{uid}"))
        return found[0] if found else self.stack.folder / "node/pods" / uid

    def server(self, name: str) -> Server:
        """Return a program of the stack: kube-apiserver, s3, or the kubelet of a real node."""
        from trainwright_devstack.processes import Process

        folders = {
            "s3": "s3/process",
            "kube-apiserver": "control-plane/processes/kube-apiserver",
            "kubelet": "node/processes/kubelet",
        }
        return Server(Process(self.stack.folder / folders[name]))

    def operator_pods(self) -> list[Object]:
        """Return the operator's pods."""
        items: list[Object] = self.get("pods", "-n", SYSTEM)["items"]
        return [pod for pod in items if pod["metadata"]["name"].startswith(OPERATOR)]

    def kill_operator(self) -> None:
        """End the operator as a crash would, ready or not; another pod takes its place at once."""
        names = [pod["metadata"]["name"] for pod in self.operator_pods()]
        self.kubectl("delete", "pods", *names, "-n", SYSTEM, "--grace-period=0", "--force")

    @contextmanager
    def second_operator(self) -> Iterator[None]:
        """Run another operator that acts beside the first: its port is its own, and so is its Lease."""
        from trainwright_devstack.processes import free_port

        name = "another-operator"
        objects = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}]
        for kind in ("role", "rolebinding"):
            objects.append(self._copy(kind, f"{OPERATOR}-lease", namespace=name))
        config, port = self._copy("configmap", OPERATOR), free_port()
        settings = yaml.safe_load(config["data"]["settings.yaml"]) | {"healthPort": port}
        config["data"] = {"settings.yaml": yaml.safe_dump(settings)}
        deployment = self._copy("deployment", OPERATOR)
        labels = {"app.kubernetes.io/name": name}
        spec, template = deployment["spec"], deployment["spec"]["template"]
        spec["selector"], template["metadata"]["labels"] = {"matchLabels": labels}, labels
        template["spec"]["volumes"][0]["configMap"]["name"] = config["metadata"]["name"]
        container = template["spec"]["containers"][0]
        container["ports"][0]["containerPort"] = port
        place = next(each for each in container["env"] if each["name"] == "POD_NAMESPACE")
        place |= {"value": name, "valueFrom": None}
        for each in (*objects, config, deployment):
            self.kubectl("apply", "-f", "-", manifest=each)
        try:
            wait(lambda: self._leader(name), "the second operator leads, too")
            assert self._leader(SYSTEM)
            yield
        finally:
            copy = config["metadata"]["name"]
            self.kubectl("delete", f"deployment/{copy}", f"configmap/{copy}", "-n", SYSTEM)
            self.kubectl("delete", "namespace", name, "--wait=false")

    def _copy(self, kind: str, name: str, namespace: str = SYSTEM) -> Object:
        """Return an object of the operator's under another name, or in another namespace."""
        found = self.get(kind, name, "-n", SYSTEM)
        kept = {key: value for key, value in found.items() if key not in {"metadata", "status"}}
        renamed = f"another-{name}" if namespace == SYSTEM else name
        return kept | {"metadata": {"name": renamed, "namespace": namespace}}

    def _leader(self, namespace: str) -> str:
        """Return the operator's pod that holds the Lease of a namespace."""
        found = self.run("get", "lease", OPERATOR, "-n", namespace, "-o", "jsonpath={.spec.holderIdentity}")
        return found.stdout

    def scale_operator(self, replicas: int) -> None:
        """Take the operator away, or bring it back."""
        self.kubectl("scale", f"deployment/{OPERATOR}", "-n", SYSTEM, f"--replicas={replicas}")
        if replicas:
            self.wait_for_operator()
        else:
            wait(lambda: not self.operator_pods(), "the operator's pod is gone")

    def wait_for_operator(self) -> None:
        """Return when the newest operator is ready, and acts."""
        self.kubectl("rollout", "status", f"deployment/{OPERATOR}", "-n", SYSTEM, "--timeout=600s")
        names = [pod["metadata"]["name"] for pod in self.operator_pods()]
        wait(lambda: self._leader(SYSTEM) in names, "the operator leads")

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        state = self.stack.state.cluster
        return [str(state.kubectl), "--kubeconfig", str(state.kubeconfig), *arguments]


@dataclass(frozen=True)
class Server:
    """A program of the stack that can be frozen, or stopped and started again as it was."""

    process: Process

    def freeze(self) -> None:
        """Stop it in the middle of whatever it does: connections stay open, and nobody answers."""
        os.kill(self._pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self._pid, signal.SIGCONT)

    def stop(self) -> Callable[[], None]:
        """End it; what is returned starts it again, with its data, address and accounts."""
        root = Path("/proc") / str(self._pid)
        command = root.joinpath("cmdline").read_text().rstrip("\0").split("\0")
        environment = dict(
            entry.split("=", 1) for entry in root.joinpath("environ").read_text().split("\0") if "=" in entry
        )
        directory = root.joinpath("cwd").resolve()
        self.process.stop()

        def start_again() -> None:
            self.process.start(command, environment=environment, directory=directory)

        return start_again

    @property
    def _pid(self) -> int:
        pid = self.process.pid()
        assert pid is not None
        return pid


def wait(reached: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Return as soon as something holds."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
