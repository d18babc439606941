"""The chart's follower of the annotation stream: alone, restricted, and told what it understands."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from chart_rendering import (
    CHART,
    Render,
    find,
    render_chart,
)

from trainwright_trainer.standalone.variables import read_stream_settings

FOLLOWER = {
    "enabled": True,
    "namespace": "ml",
    "host": "rabbitmq.messaging",
    "credentialsSecret": "stream",
    "claim": "annotations",
}
NAME = "trainwright-annotations"


def test_nothing_follows_a_stream_unless_asked_to(render: Render) -> None:
    assert [item for item in render() if item["metadata"]["name"] == NAME] == []


def test_what_a_follower_lacks_is_told_at_once(helm: str) -> None:
    done = render_chart(helm, {"annotationStream": {"enabled": True, "host": "rabbitmq"}})
    assert done.returncode != 0
    assert (
        "annotationStream.enabled needs annotationStream.credentialsSecret, annotationStream.claim"
        in done.stderr
    )


def test_helm_finds_nothing_to_say_of_a_follower_either(helm: str, tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({"annotationStream": FOLLOWER}))
    done = subprocess.run(
        [helm, "lint", "--strict", "--kube-version", "1.30.0", "--values", values, CHART],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout


def test_the_follower_is_restricted_and_alone(render: Render) -> None:
    objects = render(annotationStream=FOLLOWER)
    (deployment,) = find(objects, "Deployment", NAME)
    (operator,) = find(objects, "Deployment", "trainwright-operator")
    spec = deployment["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"].items() <= labels.items()
    assert not operator["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert deployment["metadata"]["namespace"] == "ml"
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    probes = {name: container[name]["httpGet"]["path"] for name in container if name.endswith("Probe")}
    assert probes == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}


def test_the_followers_credentials_are_files_and_nothing_else(render: Render) -> None:
    (deployment,) = find(render(annotationStream=FOLLOWER), "Deployment", NAME)
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert all(set(variable) == {"name", "value"} for variable in container["env"])
    assert not {"RABBITMQ_USER", "RABBITMQ_PASSWORD"} & {each["name"] for each in container["env"]}
    (volume,) = [each["secret"] for each in pod["volumes"] if "secret" in each]
    assert volume["secretName"] == "stream"


def test_the_follower_may_write_one_config_map(render: Render) -> None:
    objects = render(annotationStream=FOLLOWER)
    (role,), (binding,) = find(objects, "Role", NAME), find(objects, "RoleBinding", NAME)
    assert role["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": ["annotations-revision"],
            "verbs": ["create", "patch"],
        }
    ]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": NAME, "namespace": "ml"}]
    assert {item["metadata"]["namespace"] for item in (role, binding)} == {"ml"}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, {"port": "5551", "--tls": True, "--sync": True, "root": "/annotations"}),
        (
            {"tls": False, "sync": False, "path": "/vehicles/"},
            {"port": "5552", "--tls": False, "--sync": False, "root": "/annotations/vehicles"},
        ),
        ({"port": 15551}, {"port": "15551", "--tls": True, "--sync": True, "root": "/annotations"}),
    ],
)
def test_the_follower_understands_what_it_is_told(
    render: Render, values: dict[str, Any], told: dict[str, Any]
) -> None:
    from trainwright_trainer.__main__ import app

    (deployment,) = find(render(annotationStream={**FOLLOWER, **values}), "Deployment", NAME)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    words = [*container["command"], *container["args"]]
    command: Any = typer.main.get_command(app)
    for word in words[1:3]:
        command = command.commands[word]
    parsed = command.make_context("follow", words[3:]).params
    assert parsed["claim"] == FOLLOWER["claim"]
    environment = {each["name"]: each["value"] for each in container["env"]}
    settings = read_stream_settings(
        Path("none"), {**environment, "RABBITMQ_USER": "reader", "RABBITMQ_PASSWORD": "secret-9"}
    )
    assert {
        "port": str(settings.annotation_stream.port),
        "--tls": parsed["tls"],
        "--sync": parsed["sync"],
        "root": str(settings.folders.root),
    } == told
    assert (settings.annotation_stream.host, settings.annotation_stream.queue) == (
        "rabbitmq.messaging",
        "azaion-annotations",
    )


@pytest.mark.parametrize(
    ("value", "command"), [("replayDeadLetters", "replay-dead-letters"), ("rewind", "rewind")]
)
def test_what_is_to_be_done_before_the_follower_starts_is(render: Render, value: str, command: str) -> None:
    (deployment,) = find(render(annotationStream={**FOLLOWER, value: True}), "Deployment", NAME)
    pod = deployment["spec"]["template"]["spec"]
    (before,), (follower,) = pod["initContainers"], pod["containers"]
    assert before["args"][:2] == ["annotations", command]
    own = {"name", "args", "ports", "startupProbe", "livenessProbe", "readinessProbe"}
    common = [{key: value for key, value in each.items() if key not in own} for each in (before, follower)]
    assert common[0] == common[1]


def test_the_follower_is_scraped_and_fenced_in_like_the_operator(render: Render) -> None:
    objects = render(
        annotationStream=FOLLOWER,
        metrics={"scrapeAnnotations": True, "serviceMonitor": {"enabled": True}},
        networkPolicy={"enabled": True, "apiServerPorts": [6443]},
    )
    (deployment,) = find(objects, "Deployment", NAME)
    template = deployment["spec"]["template"]
    assert template["metadata"]["annotations"]["prometheus.io/port"] == "8081"
    (monitor,), (service,) = (
        find(objects, "ServiceMonitor", NAME),
        find(objects, "Service", NAME),
    )
    (policy,) = find(objects, "NetworkPolicy", NAME)
    labels = template["metadata"]["labels"].items()
    for selector in (service["spec"]["selector"], policy["spec"]["podSelector"]["matchLabels"]):
        assert selector.items() <= labels
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert {item["metadata"]["namespace"] for item in (monitor, service, policy)} == {"ml"}
    ports = {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}
    assert ports == {53, 6443, 5551}


NAMED = {"name", "namespace", "claimName", "secretName", "priorityClassName", "interval"}
WORDS = {"args", "resourceNames", "labels", "matchLabels", "selector"}


def test_names_of_digits_are_names_too(helm: str) -> None:
    values = {
        "annotationStream": FOLLOWER
        | {"namespace": "1234", "claim": "2024", "credentialsSecret": "5", "priorityClassName": "6"}
        | {"imagePullSecrets": ["7"]},
        "namespaces": ["1234", "8"],
        "priorityClassName": "6",
        "imagePullSecrets": ["7"],
        "replicas": 2,
        "metrics": {"serviceMonitor": {"enabled": True}},
        "networkPolicy": {"enabled": True},
    }
    done = render_chart(helm, values, release="9", namespace="10")
    assert done.returncode == 0, done.stderr
    objects = [item for item in yaml.safe_load_all(done.stdout) if item]
    found = [
        (key, word) for item in objects if "Definition" not in item["kind"] for key, word in _words(item)
    ]
    assert [pair for pair in found if not isinstance(pair[1], str)] == []
    assert {"1234", "2024", "2024-revision", "5", "6", "7", "8", "9", "10"} <= {word for _, word in found}


def _words(item: Any) -> Iterator[tuple[str, Any]]:
    """Yield what has to be text wherever it is in an object, with its field."""
    if isinstance(item, list):
        for each in item:
            yield from _words(each)
    if isinstance(item, dict):
        for key, value in item.items():
            if isinstance(value, dict | list):
                plain = value.values() if isinstance(value, dict) else value
                if key in WORDS:
                    yield from ((key, word) for word in plain if not isinstance(word, dict | list))
                yield from _words(value)
            elif key in NAMED:
                yield key, value
