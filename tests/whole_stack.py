"""The whole stack as its users meet it: kubectl, the command `trainwright`, and the two servers of models.

This module is a plugin that the conftests of e2e and faults register, so that both use one stack.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from prerequisites import require
from trainer_process import PATIENCE_SECONDS, TrainerProcess, read_events, stage_of

from trainwright.contract import Stage
from trainwright_operator.times import parse_time

if TYPE_CHECKING:
    from real_node import RealNodeCluster

    from trainwright_devstack.processes import Process
    from trainwright_devstack.stack import Devstack

Object = dict[str, Any]

SYSTEM = "trainwright-system"
OPERATOR = "trainwright-operator"
# Small enough for seconds on two cores, and still a real training.
TRAINING = {
    "baseModel": "yolo11n.yaml",
    "epochs": 2,
    "batchSize": 8,
    "imageSize": 64,
    "workers": 0,
    "optimizer": "AdamW",
    "learningRate": 0.002,
    "nominalBatchSize": 8,
    "augmentation": {"mosaic": 0},
}
SETTINGS = {"retryBackoffSeconds": 0, "leaseSeconds": 3, "nodeLostSeconds": 3}


@pytest.fixture(scope="session")
def devstack(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Devstack]:
    """API server, node, operator, S3 server and resource API, all of them real."""
    from trainwright_devstack.binaries import find_binaries
    from trainwright_devstack.stack import Devstack, StackOptions

    found, problems = find_binaries()
    require(found, f"needs a control plane: {'; '.join(problems)}")
    folder = tmp_path_factory.mktemp("devstack")
    cluster = choose_cluster(request.config.getoption("--cluster"), folder, found)
    options = StackOptions(cluster=cluster, process_node=True, settings=SETTINGS)
    with Devstack(folder, options) as stack:
        require(stack.state.cluster.kubectl, "needs kubectl beside the control plane's programs")
        require(stack.state.s3.checks_credentials, "needs versitygw: moto accepts any credentials")
        yield stack


def choose_cluster(kind: str, folder: Path, binaries: Any) -> Any:
    """Return the real node that was asked for, or None: the devstack's own choice."""
    if kind != "node":
        return None
    import real_node

    lacks = real_node.missing(binaries)
    if lacks:
        pytest.fail(f"--cluster node lacks {', '.join(lacks)}")
    return real_node.RealNodeCluster(folder, binaries)


@pytest.fixture(scope="session")
def cluster(devstack: Devstack) -> Cluster:
    """The stack's cluster through kubectl."""
    return Cluster(devstack)


@pytest.fixture(scope="module")
def team(
    devstack: Devstack, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory, request: Any
) -> Team:
    """A namespace with accounts and keys of its own, named after the test's file."""
    from trainwright_devstack.api import Api
    from trainwright_devstack.demo.secrets import hand_out, write_keys

    name = Path(request.path).stem.removeprefix("test_").replace("_", "-")
    folder = tmp_path_factory.mktemp(name)
    write_keys(folder)
    with Api(devstack.state.cluster.kubeconfig) as api:
        hand_out(api, name, folder, devstack.state)
    # What the strictest level of Pod Security refuses would never run.
    cluster.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    return Team(devstack, cluster, name, folder)


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


@dataclass(frozen=True)
class Team:
    """People who train: a namespace of the cluster, and a reader's account and keys outside of it."""

    stack: Devstack
    cluster: Cluster
    namespace: str
    folder: Path

    def manifest(self, name: str, model: str = "parts", **spec: Any) -> Object:
        """Return a run that trains for seconds and delivers; keyword arguments replace sections."""
        delivery = {
            "api": {
                "url": self.stack.state.resource_api.url,
                "credentials": {"secretName": "publisher-account"},
            },
            "cdn": {"credentials": {"secretName": "publisher-cdn"}},
            "sealing": {
                "recipients": {"configMapName": "recipients"},
                "signingKey": {"secretName": "publisher-key"},
            },
        }
        sections: Object = {
            "model": {"name": model},
            "dataset": {
                "source": {"sample": {"images": 40, "imageSize": 64}},
                "split": {"train": 60, "valid": 15, "test": 25},
            },
            "training": TRAINING,
            "delivery": delivery,
            "compute": {"gpus": 0, "workspace": {"persistentVolumeClaim": {"size": "1Gi"}}},
        }
        return {
            "apiVersion": "trainwright.dev/v1alpha1",
            "kind": "TrainingRun",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": sections | spec,
        }

    def apply(self, manifest: Object) -> str:
        """Apply a manifest as a user does, and return what kubectl says."""
        return self.kubectl("apply", "-f", "-", manifest=manifest)

    def kubectl(self, *arguments: str, manifest: Object | None = None) -> str:
        """Run kubectl in the namespace and return what it prints; it must not fail."""
        return self.cluster.kubectl("-n", self.namespace, *arguments, manifest=manifest)

    def get(self, *arguments: str) -> Object:
        """Return objects of the namespace."""
        return self.cluster.get("-n", self.namespace, *arguments)

    def status(self, run: str) -> Object:
        """Return a run's status, empty before the operator saw the run."""
        status: Object = self.get("trun", run).get("status", {})
        return status

    def wait(
        self, run: str, reached: Callable[[Object], object], what: str, seconds: float = PATIENCE_SECONDS
    ) -> Object:
        """Return the status as soon as it is as wanted; a run that is over can't become so any more."""
        deadline = time.monotonic() + seconds
        while True:
            status = self.status(run)
            if reached(status):
                return status
            over = status.get("phase") in {"Succeeded", "Failed", "Cancelled"}
            assert not over, f"{run}: {what}: it ended: {json.dumps(status, indent=1)}"
            assert time.monotonic() < deadline, f"{run}: {what}: {json.dumps(status, indent=1)}"
            time.sleep(0.1)

    def wait_for_phase(self, run: str, phase: str, seconds: float = PATIENCE_SECONDS) -> Object:
        """Return the status once the run is in a phase."""
        return self.wait(run, lambda status: status.get("phase") == phase, f"phase {phase}", seconds)

    def wait_for_epoch(self, run: str, epoch: int) -> Object:
        """Return the status once an epoch is trained, while there are more to train."""
        return self.wait(run, lambda status: progress(status).get("epoch", 0) >= epoch, f"epoch {epoch}")

    def wait_for_stage(self, run: str, stage: str) -> Object:
        """Return the status once the pod reports a stage or a later one."""
        wanted = list(Stage)[list(Stage).index(Stage(stage)) :]
        return self.wait(run, lambda status: progress(status).get("stage") in wanted, f"stage {stage}")

    def pod(self, run: str, attempt: int) -> Object:
        """Return the pod of an attempt."""
        selector = f"trainwright.dev/run={run},trainwright.dev/attempt={attempt}"
        (pod,) = self.get("pods", "-l", selector)["items"]
        found: Object = pod
        return found

    def trainer(self, run: str, attempt: int) -> TrainerProcess:
        """Return the trainer of an attempt as soon as it runs."""
        found: list[TrainerProcess] = []

        def runs() -> bool:
            selector = f"trainwright.dev/run={run},trainwright.dev/attempt={attempt}"
            pods = self.get("pods", "-l", selector)["items"]
            trainer = self.cluster.trainer(pods[0]) if pods else None
            found.extend([trainer] if trainer else [])
            return bool(found)

        wait(runs, f"the trainer of {run}, attempt {attempt}, runs: {self.status(run)}")
        return found[0]

    def journal(self, run: str) -> Object:
        """Return the entries of a run's stage journal; none before the first stage is done."""
        path = self.volume(f"{run}-workspace") / "journal.json"
        entries: Object = json.loads(path.read_text())["entries"] if path.exists() else {}
        return entries

    def logs(self, run: str, attempt: int) -> list[Object]:
        """Return the lines of an attempt's log that are JSON."""
        text = self.kubectl("logs", self.pod(run, attempt)["metadata"]["name"])
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def volume(self, claim: str) -> Path:
        """Return the folder behind a claim."""
        name = self.get("pvc", claim)["spec"]["volumeName"]
        return Path(self.cluster.get("pv", name)["spec"]["hostPath"]["path"])

    def fetch(self, model: str) -> Object:
        """Fetch and open MODEL or MODEL@VERSION as its reader; return what the command prints."""
        from trainwright_devstack.demo.secrets import write_reader_files

        files = write_reader_files(self.folder, self.stack.state)
        to = self.folder / "opened"
        shutil.rmtree(to, ignore_errors=True)
        options = {
            "--to": to,
            "--api-url": self.stack.state.resource_api.url,
            "--api-credentials": files.api_credentials,
            "--cdn-credentials": files.cdn_credentials,
            "--private-key": files.private_key,
            "--publisher": files.publisher,
        }
        words = [str(word) for option in options.items() for word in option]
        program = Path(sys.executable).with_name("trainwright")
        done = subprocess.run(
            [program, "fetch", model, *words, "--json"],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
            cwd=self.folder,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        fetched: Object = json.loads(done.stdout)
        return fetched

    def assert_published_once(self, run: str, model: str) -> None:
        """One version, one pair of parts, nothing left over, and its reader opens what the run tells of."""
        version = self.status(run)["model"]["version"]
        fetched = self.fetch(model)
        assert fetched["version"] == version
        assert fetched["digest"] == self.status(run)["model"]["digest"]
        left = {name: len(names) for name, names in self.published(model).items()}
        assert left == {"small": 1, "big": 1}, self.published(model)
        pointers = {path.name for path in (self.stack.folder / "api/data/models").glob(f"{model}.*json")}
        assert pointers == {f"{model}.json", f"{model}.{version}.json"}
        uploads = (self.stack.folder / "s3/data/models").rglob(".sgwtmp/multipart/*/*")
        assert [path for path in uploads if path.is_dir() and any(path.iterdir())] == []

    def published(self, model: str) -> dict[str, list[str]]:
        """Return the names of all parts of a model that lie on the two servers."""
        on_api = (self.stack.folder / "api/data/models").glob(f"{model}.*.small")
        on_cdn = (self.stack.folder / "s3/data/models/models").glob(f"{model}.*.big")
        return {
            "small": sorted(path.name for path in on_api),
            "big": sorted(path.name for path in on_cdn),
        }


def progress(status: Object) -> Object:
    """Return what the current pod says of its progress."""
    found: Object = status.get("trainer", {}).get("progress", {})
    return found


def condition(status: Object, type_: str) -> Object:
    """Return one condition of a status."""
    found: Object = next(item for item in status["conditions"] if item["type"] == type_)
    return found


def seconds_of(attempts: list[Object]) -> float:
    """Return the seconds from each attempt's start to its end, together."""
    return sum(
        (parse_time(each["endTime"]) - parse_time(each["startTime"])).total_seconds() for each in attempts
    )


def last_epoch(trainer: TrainerProcess) -> int:
    """Return the last epoch that a trainer tells in its log, and thus saved."""
    return max(trained_epochs(read_events(trainer.log)), default=0)


def freeze_after_epoch(trainer: TrainerProcess, epoch: int, *, resumed_from: int = 0) -> int:
    """Freeze a trainer in the middle of the epoch after this one, or a later one; return the last it trained.

    It runs freely until it trains, and the epoch before is over: slices are a slow way to get anywhere.
    """

    def is_near() -> bool:
        events = read_events(trainer.log)
        trained = max(resumed_from, *trained_epochs(events), 0)
        return stage_of(events) == Stage.TRAINING and trained >= epoch - 1

    wait(is_near, f"the trainer comes near the end of epoch {epoch}")
    trainer.drive(lambda: last_epoch(trainer) >= epoch, f"epoch {epoch} is trained")
    return last_epoch(trainer)


def trained_epochs(lines: list[Object]) -> list[int]:
    """Return the epochs that an attempt's log tells were trained."""
    return [line["epoch"] for line in lines if line.get("event") == "epoch"]


def wait(reached: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Return as soon as something holds."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
