"""The chart: its values explain themselves, and what it renders fits the operator's names and settings."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from prerequisites import require_program

from trainwright_operator import names
from trainwright_operator.settings import read_settings
from trainwright_trainer.standalone.variables import read_stream_settings

REPOSITORY = Path(__file__).resolve().parents[2]
HELM = REPOSITORY / "helm"
CHART = HELM / "trainwright"
CRDS = sorted((REPOSITORY / "crds").glob("*.yaml"))

Objects = list[dict[str, Any]]
Render = Callable[..., Objects]


@pytest.fixture(scope="module")
def helm() -> str:
    """The program helm; without it the test is skipped, or fails in CI."""
    return require_program("helm")


@pytest.fixture(scope="module")
def render(helm: str) -> Render:
    """Return a function from values to the objects the chart renders."""

    def render(**values: Any) -> Objects:
        done = _template(helm, values)
        assert done.returncode == 0, done.stderr
        return [item for item in yaml.safe_load_all(done.stdout) if item]

    return render


def _template(
    helm: str, values: dict[str, Any], release: str = "trainwright", namespace: str = "trainwright-system"
) -> subprocess.CompletedProcess[str]:
    command = [helm, "template", release, CHART, "--namespace", namespace]
    return subprocess.run(
        [*command, "--kube-version", "1.30.0", "--values", "-"],
        input=yaml.safe_dump(values),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def _find(objects: Objects, kind: str, name: str | None = None) -> Objects:
    return [item for item in objects if item["kind"] == kind and name in (None, item["metadata"]["name"])]


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
    done = _template(helm, values)
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
    rendered = _template(helm, {"crds": {"keep": False}}).stdout
    assert CRDS
    for path in CRDS:
        assert path.read_text() in rendered


def test_crds_outlive_the_chart_unless_told_otherwise(render: Render) -> None:
    def policies(**values: Any) -> list[Any]:
        definitions = _find(render(**values), "CustomResourceDefinition")
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
    (settings,) = _find(objects, "ConfigMap")
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
        (deployment,) = _find(render(**values), "Deployment")
        return str(deployment["spec"]["template"]["metadata"]["annotations"]["trainwright.dev/settings"])

    assert mark() == mark()
    assert mark() != mark(secretAccess=False)


def test_another_log_level_makes_no_new_pod(render: Render) -> None:
    (usual,), (loud,) = (_find(render(**values), "Deployment") for values in ({}, {"logLevel": "debug"}))
    assert usual["spec"]["template"] == loud["spec"]["template"]


def test_two_operators_are_spread_and_drained_one_after_the_other(render: Render) -> None:
    assert _find(render(), "PodDisruptionBudget") == []
    objects = render(replicas=2)
    (deployment,), (budget,) = _find(objects, "Deployment"), _find(objects, "PodDisruptionBudget")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    (spread,) = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert deployment["spec"]["replicas"] == 2
    for selector in (budget["spec"]["selector"], spread["labelSelector"]):
        assert selector["matchLabels"].items() <= labels.items()


def test_the_lease_is_the_only_one_the_operator_may_write(render: Render) -> None:
    (role,) = _find(render(), "Role")
    rules = {verb: rule.get("resourceNames") for rule in role["rules"] for verb in rule["verbs"]}
    assert role["metadata"]["namespace"] == "trainwright-system"
    assert rules == {"create": None, "get": [names.LEASE_NAME], "update": [names.LEASE_NAME]}


def test_the_operators_pod_is_restricted(render: Render) -> None:
    (deployment,) = _find(render(), "Deployment")
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
    (deployment,) = _find(render(image={"tag": "2", "digest": digest}), "Deployment")
    image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == f"registry.example/trainwright-operator@{digest}"


def test_rights_end_at_the_namespaces(render: Render) -> None:
    objects = render(namespaces=["ml", "vision"])
    bindings = _find(objects, "RoleBinding", "trainwright-operator")
    assert [binding["metadata"]["namespace"] for binding in bindings] == ["ml", "vision"]
    everywhere = [binding["roleRef"]["name"] for binding in _find(objects, "ClusterRoleBinding")]
    assert everywhere == ["trainwright-operator-cluster"]
    assert _find(render(), "RoleBinding", "trainwright-operator") == []


def test_access_to_secrets_can_be_turned_off(render: Render) -> None:
    def verbs(**values: Any) -> list[Any]:
        (role,) = _find(render(**values), "ClusterRole", "trainwright-operator")
        return [rule["verbs"] for rule in role["rules"] if "secrets" in rule["resources"]]

    assert verbs() == [["get"]]
    assert verbs(secretAccess=False) == []


def test_the_names_are_those_the_operator_uses(render: Render) -> None:
    objects = render()
    (policy,) = _find(objects, "ValidatingAdmissionPolicy")
    (binding,) = _find(objects, "ValidatingAdmissionPolicyBinding")
    assert policy["metadata"]["name"] == binding["metadata"]["name"] == names.FENCE_POLICY
    assert binding["spec"]["policyName"] == names.FENCE_POLICY
    assert policy["spec"]["failurePolicy"] == "Fail"
    assert f":{names.TRAINER_ACCOUNT}$" in policy["spec"]["matchConditions"][0]["expression"]
    (role,) = _find(objects, "ClusterRole", names.TRAINER_CLUSTER_ROLE)
    assert role["rules"] == [
        {"apiGroups": [names.GROUP], "resources": [f"{names.RUN_PLURAL}/status"], "verbs": ["get", "patch"]}
    ]


def test_a_network_policy_lets_the_health_check_in(render: Render) -> None:
    assert _find(render(), "NetworkPolicy") == []
    ports = {"apiServerPorts": [6443], "notificationPorts": [443, 587]}
    (policy,) = _find(render(networkPolicy={"enabled": True, **ports}), "NetworkPolicy")
    assert policy["spec"]["ingress"] == [{"ports": [{"protocol": "TCP", "port": "health"}]}]
    assert {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]} == {
        53,
        443,
        587,
        6443,
    }


def test_a_service_monitor_selects_the_service_of_the_operators_pod(render: Render) -> None:
    assert _find(render(), "ServiceMonitor") + _find(render(), "Service") == []
    values = {"serviceMonitor": {"enabled": True, "interval": "30s", "labels": {"release": "prometheus"}}}
    objects = render(metrics=values)
    (monitor,), (service,) = _find(objects, "ServiceMonitor"), _find(objects, "Service")
    (deployment,) = _find(objects, "Deployment")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["endpoints"] == [{"port": "metrics", "path": "/metrics", "interval": "30s"}]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    pod = deployment["spec"]["template"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    (port,), (container,) = service["spec"]["ports"], pod["spec"]["containers"]
    assert (port["name"], port["targetPort"]) == ("metrics", container["ports"][0]["name"])


def test_scrape_annotations_name_the_port_of_the_health_check(render: Render) -> None:
    def annotations(**values: Any) -> dict[str, str]:
        (deployment,) = _find(render(healthPort=9090, metrics=values), "Deployment")
        found = deployment["spec"]["template"]["metadata"]["annotations"]
        return {name: text for name, text in found.items() if name.startswith("prometheus.io/")}

    assert annotations() == {}
    assert annotations(scrapeAnnotations=True) == {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": "9090",
        "prometheus.io/path": "/metrics",
    }


# --- the follower of the annotation stream -------------------------------------------------------------

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
    done = _template(helm, {"annotationStream": {"enabled": True, "host": "rabbitmq"}})
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
    (deployment,) = _find(objects, "Deployment", NAME)
    (operator,) = _find(objects, "Deployment", "trainwright-operator")
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
    (deployment,) = _find(render(annotationStream=FOLLOWER), "Deployment", NAME)
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert all(set(variable) == {"name", "value"} for variable in container["env"])
    assert not {"RABBITMQ_USER", "RABBITMQ_PASSWORD"} & {each["name"] for each in container["env"]}
    (volume,) = [each["secret"] for each in pod["volumes"] if "secret" in each]
    assert volume["secretName"] == "stream"


def test_the_follower_may_write_one_config_map(render: Render) -> None:
    objects = render(annotationStream=FOLLOWER)
    (role,), (binding,) = _find(objects, "Role", NAME), _find(objects, "RoleBinding", NAME)
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

    (deployment,) = _find(render(annotationStream={**FOLLOWER, **values}), "Deployment", NAME)
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
    (deployment,) = _find(render(annotationStream={**FOLLOWER, value: True}), "Deployment", NAME)
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
    (deployment,) = _find(objects, "Deployment", NAME)
    template = deployment["spec"]["template"]
    assert template["metadata"]["annotations"]["prometheus.io/port"] == "8081"
    (monitor,), (service,) = _find(objects, "ServiceMonitor", NAME), _find(objects, "Service", NAME)
    (policy,) = _find(objects, "NetworkPolicy", NAME)
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
    done = _template(helm, values, release="9", namespace="10")
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
