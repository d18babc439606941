"""The process node's decisions that need neither processes nor an API server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainwright_devstack.node.container import Terminated
from trainwright_devstack.node.environment import (
    MissingReference,
    command_line,
    container_environment,
    expand,
    field,
)
from trainwright_devstack.node.paths import PathMap
from trainwright_devstack.node.podstatus import ContainerView, PodView, pod_phase, status
from trainwright_devstack.node.refusals import entrypoint, refusals

Object = dict[str, Any]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/data", "/local/data"),
        ("/data/images/a.jpg", "/local/data/images/a.jpg"),
        ("/data/inner", "/local/inner"),
        ("/data/inner/x", "/local/inner/x"),
        ("/database", "/database"),
        ("--data=/data", "--data=/data"),
        ("see /data", "see /data"),
        ("", ""),
    ],
)
def test_only_a_leading_whole_mount_path_is_rewritten(text: str, expected: str) -> None:
    paths = PathMap({"/data": Path("/local/data"), "/data/inner": Path("/local/inner")})
    assert paths.rewrite(text) == expected


def test_a_mount_path_may_end_with_a_slash() -> None:
    assert PathMap({"/data/": Path("/local")}).rewrite("/data/x") == "/local/x"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("$(A)", "1"), ("$$(A)", "$(A)"), ("$(B)", "$(B)"), ("$A", "$A"), ("$$", "$"), ("$(A)$(A)", "11")],
)
def test_references_are_expanded_as_kubernetes_does(text: str, expected: str) -> None:
    assert expand(text, {"A": "1"}) == expected


def pod(**spec: Any) -> Object:
    containers = [{"name": "main", "image": "any", "command": ["true"]}]
    metadata = {"name": "work", "namespace": "ml", "uid": "u1", "labels": {"colour": 'a "red" one'}}
    return {"metadata": metadata, "spec": {"containers": containers, **spec}}


def test_fields_of_the_downward_api() -> None:
    assert field(pod(), "metadata.uid") == "u1"
    assert field(pod(), "metadata.labels['colour']") == 'a "red" one'
    assert field(pod(), "metadata.labels") == 'colour="a \\"red\\" one"'
    assert field(pod(), "metadata.annotations['none']") == ""


def test_a_key_that_is_missing_is_named_unless_it_is_optional() -> None:
    reference = {"name": "colours", "key": "third"}
    container = {"env": [{"name": "C", "valueFrom": {"configMapKeyRef": reference}}]}
    with pytest.raises(MissingReference, match="configmaps colours has no key third, for variable C"):
        container_environment(pod(), container, {}, lambda _plural, _name: {"first": "red"})
    reference["optional"] = True
    assert container_environment(pod(), container, {}, lambda _plural, _name: {}) == {}


def test_words_are_expanded_before_they_are_rewritten() -> None:
    container = {"image": "any", "command": ["run"], "args": ["$(FOLDER)/x"]}
    paths = PathMap({"/data": Path("/local")})
    assert command_line(container, {"FOLDER": "/data"}, paths) == ["run", "/local/x"]


@pytest.mark.parametrize(
    "image",
    [
        "trainwright-operator",
        "registry.example:5000/team/trainwright-operator:1.2",
        "registry.example/trainwright-operator:1.2@sha256:00",
    ],
)
def test_our_images_need_no_command(image: str) -> None:
    assert entrypoint(image) == "trainwright-operator"
    assert command_line({"image": image, "args": ["run"]}, {}, PathMap({})) == ["trainwright-operator", "run"]


def test_every_refusal_is_a_sentence_with_a_name() -> None:
    container = {
        "name": "main",
        "image": "nginx",
        "securityContext": {"privileged": True},
        "lifecycle": {"preStop": {"exec": {"command": ["true"]}}},
        "livenessProbe": {"exec": {"command": ["true"]}},
        "volumeMounts": [{"name": "v", "mountPath": "/v", "subPathExpr": "$(X)"}],
        "env": [{"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}],
    }
    volumes = [
        {"name": "v", "nfs": {}},
        {"name": "p", "projected": {"sources": [{"clusterTrustBundle": {}}]}},
    ]
    told = "\n".join(refusals(pod(containers=[container], volumes=volumes, hostPID=True)))
    for name in ("nfs", "clusterTrustBundle", "privileged", "lifecycle", "livenessProbe", "subPathExpr"):
        assert name in told
    for name in ("resourceFieldRef", "hostPID", "image nginx"):
        assert name in told


def test_an_ordinary_pod_is_not_refused() -> None:
    assert refusals(pod(hostNetwork=True, securityContext={"runAsUser": 65532})) == []


def ended(code: int) -> Terminated:
    return Terminated(code, "x", "", "2026-01-01T00:00:00+00:00", "2026-01-01T00:00:01+00:00", "process://u1")


def view(*, code: int | None = None, running: bool = False, run: int = 0) -> ContainerView:
    return ContainerView(
        spec={"name": "main", "image": "any"},
        container_id="process://u1/main/0",
        run=run,
        running_since="2026-01-01T00:00:00+00:00" if running else None,
        terminated=None if code is None else ended(code),
        last=None,
        waiting=("", ""),
        started=True,
        ready=True,
    )


@pytest.mark.parametrize(
    ("policy", "container", "phase"),
    [
        ("Never", view(run=-1), "Pending"),
        ("Never", view(running=True), "Running"),
        ("Never", view(code=0), "Succeeded"),
        ("Never", view(code=1), "Failed"),
        ("OnFailure", view(code=0), "Succeeded"),
        ("OnFailure", view(code=1), "Running"),
        ("Always", view(code=0), "Running"),
        ("Always", view(code=1), "Running"),
    ],
)
def test_the_phase_follows_the_restart_policy(policy: str, container: ContainerView, phase: str) -> None:
    assert pod_phase(PodView(pod(restartPolicy=policy), [container], [], None, ending=False)) == phase


def test_a_pod_that_is_deleted_ends_by_its_exit_codes_whatever_its_policy() -> None:
    always = pod(restartPolicy="Always")
    assert pod_phase(PodView(always, [view(code=0)], [], None, ending=True)) == "Succeeded"
    assert pod_phase(PodView(always, [view(code=143)], [], None, ending=True)) == "Failed"
    assert pod_phase(PodView(always, [view(running=True)], [], None, ending=True)) == "Running"


def test_a_pod_with_two_containers_runs_until_both_have_ended() -> None:
    both = [view(code=1), view(running=True)]
    assert pod_phase(PodView(pod(restartPolicy="Never"), both, [], None, ending=False)) == "Running"


def test_a_condition_keeps_its_time_until_it_changes() -> None:
    known = [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
    body = pod() | {"status": {"conditions": known}}
    same = status(PodView(body, [view(running=True)], [], None, ending=False))
    changed = status(PodView(body, [view(code=1)], [], None, ending=False))
    times = [
        {each["type"]: each["lastTransitionTime"] for each in patch["conditions"]}["Ready"]
        for patch in (same, changed)
    ]
    assert times[0] == "2026-01-01T00:00:00Z"
    assert times[1] != times[0]
