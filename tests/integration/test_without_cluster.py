"""A server without a cluster: variables in, a dated dataset and model out; a plan ignores them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import publishing_site
from annotation_trees import digest_tree, folder_plan, write_tree
from publishing_site import EMAIL, PASSWORD, Servers, build_site

from trainwright.contract import ExitCode, RunReport

servers = publishing_site.servers  # fixtures are found by name

SMALL = {
    "TRAINING_MODEL": "yolo11n.yaml",
    "TRAINING_EPOCHS": "1",
    "TRAINING_BATCH_SIZE": "8",
    "TRAINING_IMGSZ": "64",
    "TRAINING_WORKERS": "0",
    "EXPORT_ONNX_IMGSZ": "64",
}


@dataclass
class Server:
    """One machine: a folder with `.env`, and the root of its annotations."""

    home: Path
    keys: tuple[str, ...] = ()
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.home / "azaion"

    def write_env(self, **variables: str) -> None:
        path = self.home / ".env"
        path.write_text("".join(f"{name}='{value}'\n" for name, value in variables.items()))
        path.chmod(0o600)

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "trainwright_trainer", "run", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.home,
            env={"PATH": os.environ["PATH"], "HOME": str(self.home), "OMP_NUM_THREADS": "2", **environment},
        )
        self.processes.append(process)
        return process

    def run(self, *words: str, **environment: str) -> tuple[int, str]:
        process = self.start(*words, **environment)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output

    def find(self, pattern: str) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.root.glob(pattern))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_run_from_variables_survives_a_refusal_and_ends_with_the_newest_model(
    servers: Servers, tmp_path: Path
) -> None:
    site = build_site(tmp_path / "site", servers, "azaion")
    server = Server(tmp_path / "server")
    write_tree(server.root, 30)
    before = digest_tree(server.root)
    account = {"AZAION_API_URL": servers.api_url, "AZAION_API_EMAIL": EMAIL}
    keys = ("--recipients", str(site.places.recipients), "--signing-key", str(site.places.signing_key))
    run = ("--from-env", "--gpus", "0", *keys)
    (server.root / "models").mkdir()
    (server.root / "models" / "azaion.pt").write_bytes(b"the model of an earlier script")

    server.write_env(**account, **SMALL, AZAION_ROOT_DIR=str(server.root), AZAION_API_PASSWORD="not this one")
    first = server.start(*run)
    while not server.find("unfinished/azaion-*/plan.json"):
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.1)
    code, output = server.run(*run)
    assert (code, "in use by another process" in output) == (ExitCode.STORAGE, True), output
    output, _ = first.communicate(timeout=300)
    assert first.returncode == ExitCode.PUBLISHING, output
    assert "not this one" not in output
    (unfinished,) = server.find("unfinished/azaion-*")
    weights = digest(server.root / unfinished / "training" / "weights.pt")
    assert server.find("models/*") == ["models/azaion.pt"], (
        "a model that is not delivered was kept as if it were"
    )

    # The day after, with the right password in the environment: it goes on, and trains nothing again.
    code, output = server.run(*run, AZAION_API_PASSWORD=PASSWORD)
    assert code == 0, output
    name = unfinished.partition("/")[2]
    assert server.find("unfinished/*") == ["unfinished/.lock"]
    assert server.find("datasets/*") == [f"datasets/{name}"]
    assert server.find(f"datasets/{name}/*/*") == [
        f"datasets/{name}/{kind}/{split}"
        for kind in ("images", "labels")
        for split in ("test", "train", "valid")
    ]
    kept = server.root / "models" / name
    assert {path.name for path in kept.iterdir()} == {
        "azaion.pt", "azaion.onnx", "plan.json", "config.yaml", "report.json",
    }  # fmt: skip
    assert digest(kept / "azaion.pt") == weights
    assert digest(server.root / "models" / "azaion.pt") == weights
    after = digest_tree(server.root)
    assert {path: after[path] for path in before} == before, "the trees of annotations were changed"

    report = RunReport.model_validate_json((kept / "report.json").read_text())
    assert report.model is not None
    assert report.model.digest == f"sha256:{digest(kept / 'azaion.onnx')}"
    fetched = site.fetch("azaion", "--json")
    assert fetched.returncode == 0, fetched.stderr
    assert json.loads(fetched.stdout)["digest"] == report.model.digest
    assert json.loads(fetched.stdout)["version"] == name.removeprefix("azaion-")


def test_a_plan_is_carried_out_as_it_is_whatever_the_variables_say(tmp_path: Path) -> None:
    """In a Job only the plan counts."""
    server = Server(tmp_path)
    write_tree(server.root)
    plan = folder_plan()
    (tmp_path / "plan.json").write_text(plan.to_json())
    other = tmp_path / "other"
    variables = {**SMALL, "AZAION_ROOT_DIR": str(other), "AZAION_DATA_DIR": "nowhere", "TRAINING_EPOCHS": "x"}
    server.write_env(**variables)
    (tmp_path / ".env").chmod(0o644)
    reports = []
    for workspace, environment in (("plain", {}), ("with-variables", variables)):
        message = tmp_path / f"{workspace}.json"
        code, output = server.run(
            *("--plan", "plan.json", "--data", str(server.root), "--workspace", workspace),
            *("--termination-message", str(message)),
            **environment,
        )
        assert code == 0, output
        reports.append(RunReport.model_validate_json(message.read_text()))
    assert reports[0].dataset == reports[1].dataset
    assert not other.exists()
    for folder in ("datasets", "models", "unfinished"):
        assert not (server.root / folder).exists()
