"""One run, all the way: applied with kubectl, watched, published, fetched and opened by a reader."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from stack_cluster import SYSTEM, Cluster
from whole_stack import Team, condition

from trainwright.contract import Stage

Object = dict[str, Any]

RUN = "parts-1"
# A JSON web token, an AWS-like signature, a private key of ours or in PEM.
SECRET_FORMS = re.compile(r"eyJ[\w-]{10,}\.[\w-]{10,}|X-Amz-Signature|PRIVATE KEY")


@dataclass(frozen=True)
class Finished:
    """A finished run, and what was to be seen on the way."""

    run: Object
    watched: list[str]
    waited: str
    pod: Object

    @property
    def status(self) -> Object:
        status: Object = self.run["status"]
        return status


@pytest.fixture(scope="module")
def finished(team: Team, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    output = tmp_path_factory.mktemp("watch") / "columns"
    watch = cluster.start("get", "trun", "-n", team.namespace, "--watch", output=output)
    try:
        team.apply(team.manifest(RUN))
        waited = team.kubectl("wait", "--for=condition=Succeeded", f"trun/{RUN}", "--timeout=600s")
        time.sleep(0.5)  # the watch is another connection: it may be told a little later
    finally:
        watch.kill()
        watch.wait()
    return Finished(team.get("trun", RUN), output.read_text().splitlines(), waited, team.pod(RUN, 1))


@pytest.fixture(scope="module")
def second(team: Team, finished: Finished) -> Object:
    """The status of a second run of the same model, made after the first."""
    del finished
    training = team.manifest(RUN)["spec"]["training"] | {"epochs": 1, "seed": 1}
    team.apply(team.manifest("parts-2", training=training))
    return team.wait_for_phase("parts-2", "Succeeded")


def test_kubectl_wait_returns_when_the_run_has_succeeded(finished: Finished) -> None:
    assert finished.waited == f"trainingrun.trainwright.dev/{RUN} condition met\n"
    assert finished.status["phase"] == "Succeeded"


def test_a_watch_shows_the_progress_moving_through_the_stages(finished: Finished) -> None:
    heading, *lines = finished.watched
    assert heading.split()[:7] == ["NAME", "PHASE", "STAGE", "PROGRESS", "EPOCH", "MAP", "ATTEMPT"]
    order = {str(stage): number for number, stage in enumerate(Stage)}
    rows = [line.split() for line in lines if line.startswith(f"{RUN} ")]
    running = [words for words in rows if words[1] == "Running" and words[2] in order]
    percents = [int(words[3]) for words in running]
    assert percents == sorted(percents)
    assert len(set(percents)) >= 5, lines
    stages = [order[words[2]] for words in running]
    assert stages == sorted(stages), lines
    assert {order[stage] for stage in ("Dataset", "Training", "Export")} <= set(stages), lines
    assert lines[-1].split()[1:4] == ["Succeeded", "Publishing", "100"]


def test_the_status_tells_the_dataset_the_metrics_and_the_model(cluster: Cluster, finished: Finished) -> None:
    status = finished.status
    assert status["dataset"]["digest"].startswith("sha256:")
    assert sum(status["dataset"]["images"].values()) == 40
    assert status["dataset"]["quarantined"] == 0
    assert {"mAP50", "mAP50to95", "precision", "recall"} <= status["metrics"].keys()
    model = status["model"]
    assert model["name"] == "parts"
    assert model["digest"].startswith("sha256:")
    for part in ("small", "big"):
        assert model["parts"][part]["size"] > 0
        assert model["parts"][part]["digest"].startswith("sha256:")
    (attempt,) = status["attempts"]
    assert (attempt["number"], attempt["outcome"], attempt["exitCode"]) == (1, "Succeeded", 0)
    assert attempt["node"] == cluster.node
    assert set(status["trainer"]["finishedStages"]) == set(Stage)


def test_every_condition_tells_what_is(finished: Finished) -> None:
    held = {item["type"]: item["status"] for item in finished.status["conditions"]}
    assert held == {
        **dict.fromkeys(("Accepted", "Admitted", "DatasetReady", "Trained", "Verified"), "True"),
        **{"Published": "True", "Promoted": "True"},
        **{"Succeeded": "True", "Failed": "False", "Suspended": "False"},
        **{"Ready": "True", "Reconciling": "False", "Stalled": "False"},
    }
    assert {item["observedGeneration"] for item in finished.status["conditions"]} == {1}
    message = condition(finished.status, "Succeeded")["message"]
    assert message == f"model parts@{finished.status['model']['version']} is published"


def test_the_status_stays_small(finished: Finished) -> None:
    assert len(json.dumps(finished.status)) < 16 * 1024
    assert len(json.dumps(finished.status["trainer"])) <= 4096


def test_every_child_is_owned_by_the_run(team: Team, finished: Finished) -> None:
    uid = finished.run["metadata"]["uid"]
    children = team.get("jobs,configmaps,persistentvolumeclaims", "-l", f"trainwright.dev/run={RUN}")
    kinds = sorted(child["kind"] for child in children["items"])
    assert kinds == ["ConfigMap", "Job", "PersistentVolumeClaim"]
    for child in children["items"]:
        (owner,) = child["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"]) == (uid, True)


def test_nothing_of_ours_is_on_the_users_object(finished: Finished) -> None:
    metadata = finished.run["metadata"]
    assert metadata["annotations"].keys() == {"kubectl.kubernetes.io/last-applied-configuration"}
    assert "labels" not in metadata
    assert "finalizers" not in metadata


def test_the_events_can_be_read_as_a_story(team: Team, finished: Finished) -> None:
    told = team.kubectl("events", "--for", f"trun/{RUN}")
    assert "AttemptStarted" in told
    assert f"attempt 1 is Job {RUN}-1" in told
    assert f"model parts@{finished.status['model']['version']} is published" in told


def test_no_secret_is_to_be_seen_anywhere(team: Team, cluster: Cluster, finished: Finished) -> None:
    state = team.stack.state
    cdn = yaml.safe_load(state.s3.uploader_cdn_yaml) | yaml.safe_load(state.s3.downloader_cdn_yaml)
    private = [path.read_text().split()[-1] for path in team.folder.glob("*.private")]
    secrets = [
        state.resource_api.publisher.password,
        state.resource_api.reader.password,
        cdn["uploader_access_secret"],
        cdn["downloader_access_secret"],
        *private,
    ]
    operator = cluster.operator_pods()[0]["metadata"]["name"]
    seen = {
        "run": json.dumps(finished.run),
        "pod": json.dumps(finished.pod),
        "children": json.dumps(team.get("jobs,configmaps,events")["items"]),
        "trainer's log": team.kubectl("logs", finished.pod["metadata"]["name"]),
        "operator's log": cluster.kubectl("logs", operator, "-n", SYSTEM),
    }
    assert len(private) == 2
    assert min(map(len, secrets)) >= 20
    assert all(len(text) > 100 for text in seen.values()), {name: len(text) for name, text in seen.items()}
    for where, text in seen.items():
        found = SECRET_FORMS.findall(text)
        leaked = [secret[:4] + "…" for secret in secrets if secret in text]
        assert (found, leaked) == ([], []), where


def test_a_reader_opens_the_very_model_and_it_runs(team: Team, finished: Finished) -> None:
    import numpy as np
    import onnxruntime

    fetched = team.fetch("parts")
    assert fetched["digest"] == finished.status["model"]["digest"]
    assert fetched["version"] == finished.status["model"]["version"]
    for part in ("small", "big"):
        told = finished.status["model"]["parts"][part]
        assert fetched["parts"][part] == {"size": told["size"], "digest": told["digest"]}
    session = onnxruntime.InferenceSession(Path(fetched["path"]), providers=["CPUExecutionProvider"])
    image = np.zeros((2, 3, 64, 64), dtype=np.float32)
    (output,) = session.run(None, {session.get_inputs()[0].name: image})
    assert output.shape == (2, 300, 6)


def test_the_same_file_applied_again_trains_nothing(team: Team, finished: Finished) -> None:
    assert "unchanged" in team.apply(team.manifest(RUN))
    assert team.get("trun", RUN)["metadata"]["generation"] == finished.run["metadata"]["generation"]
    assert [job["metadata"]["name"] for job in team.get("jobs")["items"]] == [f"{RUN}-1"]


def test_a_finished_run_without_its_job_and_plan_stays_finished(
    team: Team, cluster: Cluster, finished: Finished
) -> None:
    team.kubectl("delete", "job", f"{RUN}-1")
    team.kubectl("delete", "pods", "-l", f"trainwright.dev/run={RUN}")
    team.kubectl("delete", "configmap", f"{RUN}-plan")
    cluster.kubectl("delete", "pods", "-n", SYSTEM, "--all")  # an operator that remembers nothing
    cluster.wait_for_operator()
    time.sleep(3)
    assert team.get("jobs", "-l", f"trainwright.dev/run={RUN}")["items"] == []
    assert team.status(RUN) == finished.status


def test_a_second_run_makes_the_newest_version_and_the_first_can_still_be_fetched(
    team: Team, finished: Finished, second: Object
) -> None:
    assert second["model"]["version"] != finished.status["model"]["version"]
    assert second["model"]["digest"] != finished.status["model"]["digest"]
    assert team.fetch("parts")["digest"] == second["model"]["digest"]
    first = team.fetch(f"parts@{finished.status['model']['version']}")
    assert first["digest"] == finished.status["model"]["digest"]


def test_a_deleted_run_takes_its_children_along_and_leaves_what_it_published(
    team: Team, finished: Finished, second: Object
) -> None:
    volume = team.volume("parts-2-workspace")
    assert volume.is_dir()
    team.kubectl("delete", "trun", RUN, "parts-2", "--timeout=30s")
    deadline = time.monotonic() + 45
    while left := team.kubectl("get", "jobs,pods,configmaps,pvc", "-l", "trainwright.dev/run", "-o", "name"):
        assert time.monotonic() < deadline, left
        time.sleep(0.5)
    while volume.exists():
        assert time.monotonic() < deadline, "the workspace is still there"
        time.sleep(0.5)
    for status in (finished.status, second):
        fetched = team.fetch(f"parts@{status['model']['version']}")
        assert fetched["digest"] == status["model"]["digest"]
