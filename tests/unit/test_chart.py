"""The chart: its values explain themselves, and what it renders fits the operator's names and settings."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart_rendering import (
    CHART,
    CRDS,
    HELM,
    Render,
    find,
    render_chart,
)

from trainwright_operator import names
from trainwright_operator.settings import read_settings

# --- values --------------------------------------------------------------------------------------------


def test_each_value_is_described_and_the_schema_says_the_same() -> None:
    text = (CHART / "values.yaml").read_text()
    comments = dict(_comments(yaml.compose(text), text.splitlines()))
    assert all(comments.values()), [path for path, comment in comments.items() if not comment]

    schema = json.loads((CHART / "values.schema.json").read_text())
    described = dict(_descriptions(schema))
    described.pop("global")
    assert described == comments


def _comments(node: yaml.MappingNode, lines: list[str], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield each value's path and the comment above it."""
    for key, value in node.value:
        path = f"{prefix}{key.value}"
        first = line = key.start_mark.line
        while line > 0 and lines[line - 1].strip().startswith("#"):
            line -= 1
        yield path, " ".join(text.strip().removeprefix("# ") for text in lines[line:first])
        if isinstance(value, yaml.MappingNode) and not path.endswith("resources"):
            yield from _comments(value, lines, f"{path}.")


def _descriptions(schema: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, field in schema.get("properties", {}).items():
        yield f"{prefix}{name}", field["description"]
        yield from _descriptions(field, f"{prefix}{name}.")


def test_helm_finds_nothing_to_say(helm: str) -> None:
    done = subprocess.run(
        [helm, "lint", "--strict", "--kube-version", "1.30.0", CHART],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"logLevel": "loud"}, "logLevel"),
        ({"trainer": {"picture": "x"}}, "picture"),
        ({"namespaces": ["Big"]}, "namespaces"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"annotationStream": {"host": "rabbitmq:5551"}}, "host"),
        ({"annotationStream": {"path": "a/../b"}}, "path"),
    ],
)
def test_a_wrong_value_is_refused_by_name(helm: str, values: dict[str, Any], name: str) -> None:
    done = render_chart(helm, values)
    assert done.returncode != 0
    assert name in done.stderr


# --- what is rendered ----------------------------------------------------------------------------------


def test_the_committed_manifest_is_the_chart_with_its_default_values(helm: str, tmp_path: Path) -> None:
    subprocess.run(
        [HELM / "render.sh", tmp_path / "install.yaml"],
        check=True,
        timeout=60,
        env={**os.environ, "PATH": f"{Path(helm).parent}{os.pathsep}{os.environ['PATH']}"},
    )
    assert (tmp_path / "install.yaml").read_text() == (HELM / "install.yaml").read_text(), (
        "helm/install.yaml is stale: run helm/render.sh"
    )


def test_the_chart_carries_the_crds_byte_by_byte(helm: str) -> None:
    rendered = render_chart(helm, {"crds": {"keep": False}}).stdout
    assert CRDS
    for path in CRDS:
        assert path.read_text() in rendered


def test_crds_outlive_the_chart_unless_told_otherwise(render: Render) -> None:
    def policies(**values: Any) -> list[Any]:
        definitions = find(render(**values), "CustomResourceDefinition")
        return [
            item["metadata"].get("annotations", {}).get("helm.sh/resource-policy") for item in definitions
        ]

    assert policies() == ["keep"] * len(CRDS)
    assert policies(crds={"keep": False}) == [None] * len(CRDS)
    assert policies(crds={"install": False}) == []


def test_the_operator_can_read_its_settings(render: Render, tmp_path: Path) -> None:
    defaults = {"delivery": {"api": {"url": "https://example.com"}}, "compute": {"gpus": 0}}
    objects = render(
        trainer={"image": "registry.example/t@sha256:" + "0" * 64, "imagePullPolicy": "Always"},
        namespaces=["ml", "vision"],
        defaults=defaults,
        secretAccess=False,
        fence={"require": False},
        logLevel="debug",
        healthPort=9090,
        notifications={"allowedNetworks": ["10.0.3.0/24"], "giveUpSeconds": 60},
    )
    (settings,) = find(objects, "ConfigMap")
    path = tmp_path / "settings.yaml"
    path.write_text(settings["data"]["settings.yaml"])
    read = read_settings(path)
    assert read.trainer.image == "registry.example/t@sha256:" + "0" * 64
    assert read.trainer.image_pull_policy == "Always"
    assert read.namespaces == ("ml", "vision")
    assert read.defaults == defaults
    assert (read.secret_access, read.require_fence) == (False, False)
    assert (read.log_level, read.health_port) == ("debug", 9090)
    assert [str(network) for network in read.notifications.allowed_networks] == ["10.0.3.0/24"]
    assert read.notifications.give_up_seconds == 60


def test_changed_settings_make_a_new_pod(render: Render) -> None:
    def mark(**values: Any) -> str:
        (deployment,) = find(render(**values), "Deployment")
        return str(deployment["spec"]["template"]["metadata"]["annotations"]["trainwright.dev/settings"])

    assert mark() == mark()
    assert mark() != mark(secretAccess=False)


def test_another_log_level_makes_no_new_pod(render: Render) -> None:
    (usual,), (loud,) = (find(render(**values), "Deployment") for values in ({}, {"logLevel": "debug"}))
    assert usual["spec"]["template"] == loud["spec"]["template"]


def test_two_operators_are_spread_and_drained_one_after_the_other(render: Render) -> None:
    assert find(render(), "PodDisruptionBudget") == []
    objects = render(replicas=2)
    (deployment,), (budget,) = (
        find(objects, "Deployment"),
        find(objects, "PodDisruptionBudget"),
    )
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    (spread,) = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert deployment["spec"]["replicas"] == 2
    for selector in (budget["spec"]["selector"], spread["labelSelector"]):
        assert selector["matchLabels"].items() <= labels.items()


def test_the_lease_is_the_only_one_the_operator_may_write(render: Render) -> None:
    (role,) = find(render(), "Role")
    rules = {verb: rule.get("resourceNames") for rule in role["rules"] for verb in rule["verbs"]}
    assert role["metadata"]["namespace"] == "trainwright-system"
    assert rules == {"create": None, "get": [names.LEASE_NAME], "update": [names.LEASE_NAME]}


def test_the_operators_pod_is_restricted(render: Render) -> None:
    (deployment,) = find(render(), "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    (mount,) = container["volumeMounts"]
    assert (
        container["args"][container["args"].index("--settings") + 1] == f"{mount['mountPath']}/settings.yaml"
    )


def test_an_image_digest_wins_over_the_tag(render: Render) -> None:
    digest = "sha256:" + "1" * 64
    (deployment,) = find(render(image={"tag": "2", "digest": digest}), "Deployment")
    image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == f"registry.example/trainwright-operator@{digest}"


def test_rights_end_at_the_namespaces(render: Render) -> None:
    objects = render(namespaces=["ml", "vision"])
    bindings = find(objects, "RoleBinding", "trainwright-operator")
    assert [binding["metadata"]["namespace"] for binding in bindings] == ["ml", "vision"]
    everywhere = [binding["roleRef"]["name"] for binding in find(objects, "ClusterRoleBinding")]
    assert everywhere == ["trainwright-operator-cluster"]
    assert find(render(), "RoleBinding", "trainwright-operator") == []


def test_access_to_secrets_can_be_turned_off(render: Render) -> None:
    def verbs(**values: Any) -> list[Any]:
        (role,) = find(render(**values), "ClusterRole", "trainwright-operator")
        return [rule["verbs"] for rule in role["rules"] if "secrets" in rule["resources"]]

    assert verbs() == [["get"]]
    assert verbs(secretAccess=False) == []


def test_the_names_are_those_the_operator_uses(render: Render) -> None:
    objects = render()
    (policy,) = find(objects, "ValidatingAdmissionPolicy")
    (binding,) = find(objects, "ValidatingAdmissionPolicyBinding")
    assert policy["metadata"]["name"] == binding["metadata"]["name"] == names.FENCE_POLICY
    assert binding["spec"]["policyName"] == names.FENCE_POLICY
    assert policy["spec"]["failurePolicy"] == "Fail"
    assert f":{names.TRAINER_ACCOUNT}$" in policy["spec"]["matchConditions"][0]["expression"]
    (role,) = find(objects, "ClusterRole", names.TRAINER_CLUSTER_ROLE)
    assert role["rules"] == [
        {"apiGroups": [names.GROUP], "resources": [f"{names.RUN_PLURAL}/status"], "verbs": ["get", "patch"]}
    ]


def test_a_network_policy_lets_the_health_check_in(render: Render) -> None:
    assert find(render(), "NetworkPolicy") == []
    ports = {"apiServerPorts": [6443], "notificationPorts": [443, 587]}
    (policy,) = find(render(networkPolicy={"enabled": True, **ports}), "NetworkPolicy")
    assert policy["spec"]["ingress"] == [{"ports": [{"protocol": "TCP", "port": "health"}]}]
    assert {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]} == {
        53,
        443,
        587,
        6443,
    }


def test_a_service_monitor_selects_the_service_of_the_operators_pod(render: Render) -> None:
    assert find(render(), "ServiceMonitor") + find(render(), "Service") == []
    values = {"serviceMonitor": {"enabled": True, "interval": "30s", "labels": {"release": "prometheus"}}}
    objects = render(metrics=values)
    (monitor,), (service,) = find(objects, "ServiceMonitor"), find(objects, "Service")
    (deployment,) = find(objects, "Deployment")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["endpoints"] == [{"port": "metrics", "path": "/metrics", "interval": "30s"}]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    pod = deployment["spec"]["template"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    (port,), (container,) = service["spec"]["ports"], pod["spec"]["containers"]
    assert (port["name"], port["targetPort"]) == ("metrics", container["ports"][0]["name"])


def test_scrape_annotations_name_the_port_of_the_health_check(render: Render) -> None:
    def annotations(**values: Any) -> dict[str, str]:
        (deployment,) = find(render(healthPort=9090, metrics=values), "Deployment")
        found = deployment["spec"]["template"]["metadata"]["annotations"]
        return {name: text for name, text in found.items() if name.startswith("prometheus.io/")}

    assert annotations() == {}
    assert annotations(scrapeAnnotations=True) == {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": "9090",
        "prometheus.io/path": "/metrics",
    }
