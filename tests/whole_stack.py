"""The whole stack as its users meet it: kubectl, the command `trainwright`, and the two servers of models.

This module is a plugin that the conftests of e2e and faults register, so that both use one stack.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prerequisites import require
from stack_cluster import Cluster, wait
from trainer_process import PATIENCE_SECONDS, TrainerProcess, read_events, stage_of

from trainwright.contract import Stage
from trainwright_operator.times import parse_time

if TYPE_CHECKING:
    from trainwright_devstack.stack import Devstack

Object = dict[str, Any]

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
