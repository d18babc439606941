"""Jobs and pods on a process node behave as on any other."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from kubernetes import client

    from trainwright_devstack.controlplane import ControlPlane
    from trainwright_devstack.processnode import ProcessNode


Object = dict[str, Any]

pytestmark = pytest.mark.usefixtures("process_node")


class Cluster:
    """Creates and reads objects of one namespace as plain JSON."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        from kubernetes import client

        self.api, self.namespace = api, namespace
        self.core, self.batch = client.CoreV1Api(api), client.BatchV1Api(api)

    def pod(self, name: str, script: str = "", **spec: Any) -> None:
        """Create a pod of one container that runs a shell script."""
        container = {"name": "main", "image": "any", "command": ["sh", "-c", script]}
        container |= spec.pop("container", {})
        body = {
            "metadata": {"name": name},
            "spec": {"restartPolicy": "Never", "containers": [container], **spec},
        }
        self.core.create_namespaced_pod(self.namespace, body)

    def read(self, name: str) -> Object:
        found: Object = self.api.sanitize_for_serialization(
            self.core.read_namespaced_pod(name, self.namespace)
        )
        return found

    def status(self, name: str) -> Object:
        """Return the status of the pod's first container."""
        statuses: list[Object] = self.read(name)["status"].get("containerStatuses") or [{"state": {}}]
        return statuses[0]

    def ended(self, name: str) -> Object:
        """Wait for the pod's end and return how its first container terminated."""
        wait_for(lambda: self.read(name)["status"]["phase"] in {"Succeeded", "Failed"})
        state: Object = self.status(name)["state"]["terminated"]
        return state


@pytest.fixture
def cluster(kube: client.ApiClient, namespace: str) -> Cluster:
    return Cluster(kube, namespace)


def wait_for(holds: Callable[[], Any], seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)
    return value


def job(script: str) -> Object:
    container = {"name": "main", "image": "any", "command": ["sh", "-c", script]}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    return {"metadata": {"name": "work"}, "spec": {"backoffLimit": 0, "template": template}}


def job_condition(cluster: Cluster) -> str:
    conditions = cluster.batch.read_namespaced_job("work", cluster.namespace).status.conditions or []
    return next((each.type for each in conditions if each.type in {"Complete", "Failed"}), "")


def test_a_job_completes(cluster: Cluster) -> None:
    cluster.batch.create_namespaced_job(cluster.namespace, job("exit 0"))
    assert wait_for(lambda: job_condition(cluster)) == "Complete"


def test_a_job_fails_with_its_exit_code(cluster: Cluster) -> None:
    cluster.batch.create_namespaced_job(cluster.namespace, job("exit 65"))
    assert wait_for(lambda: job_condition(cluster)) == "Failed"
    (pod,) = cluster.core.list_namespaced_pod(cluster.namespace).items
    assert pod.status.container_statuses[0].state.terminated.exit_code == 65


def test_the_first_process_writes_the_termination_message(cluster: Cluster) -> None:
    container = {"command": ["sh", "-c", 'echo done > "$0"; exit 3', "/dev/termination-log"]}
    cluster.pod("work", container=container)
    end = cluster.ended("work")
    assert (end["exitCode"], end["reason"], end["message"]) == (3, "Error", "done\n")


def test_without_a_message_the_log_is_told(cluster: Cluster) -> None:
    container = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    cluster.pod("work", "echo first; echo last >&2; exit 1", container=container)
    assert cluster.ended("work")["message"] == "first\nlast\n"


def test_a_command_that_does_not_exist_is_named(cluster: Cluster) -> None:
    cluster.pod("work", container={"command": ["no-such-program"]})
    end = cluster.ended("work")
    assert (end["exitCode"], end["reason"]) == (128, "StartError")
    assert "no-such-program" in end["message"]


def test_deleting_a_pod_asks_first_and_kills_after_the_grace_period(cluster: Cluster) -> None:
    polite = "trap 'echo bye > \"$0\"; exit 0' TERM; while true; do sleep 0.1; done"
    stubborn = "trap '' TERM; while true; do sleep 0.1; done"
    for name, script in (("polite", polite), ("stubborn", stubborn)):
        container = {"command": ["sh", "-c", script, "/dev/termination-log"]}
        # The finalizer keeps the object, so that the test can read what the pod's end looked like.
        cluster.pod(name, container=container, terminationGracePeriodSeconds=2)
        cluster.core.patch_namespaced_pod(
            name, cluster.namespace, {"metadata": {"finalizers": ["test.example/keep"]}}
        )
        wait_for(lambda name=name: "running" in cluster.status(name)["state"])
    begun = time.monotonic()
    for name in ("polite", "stubborn"):
        cluster.core.delete_namespaced_pod(name, cluster.namespace)
    polite_end = cluster.ended("polite")
    assert time.monotonic() - begun < 2
    assert (polite_end["exitCode"], polite_end["message"]) == (0, "bye\n")
    assert cluster.ended("stubborn")["exitCode"] == 137
    assert time.monotonic() - begun >= 1.5
    for name in ("polite", "stubborn"):
        cluster.core.patch_namespaced_pod(name, cluster.namespace, {"metadata": {"finalizers": None}})
    wait_for(lambda: not cluster.core.list_namespaced_pod(cluster.namespace).items)


def test_everything_a_container_started_ends_with_it(cluster: Cluster, tmp_path: Path) -> None:
    volume = {"name": "out", "hostPath": {"path": str(tmp_path)}}
    container = {
        "command": ["sh", "-c", 'setsid sleep 300 & echo $! > "$0"', "/out/pid"],
        "volumeMounts": [{"name": "out", "mountPath": "/out"}],
    }
    cluster.pod("work", container=container, volumes=[volume])
    cluster.ended("work")
    left_behind = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(left_behind, 0)


def test_volumes_of_every_kind_are_where_the_arguments_say(cluster: Cluster) -> None:
    cluster.core.create_namespaced_config_map(
        cluster.namespace, {"metadata": {"name": "plan"}, "data": {"plan.json": "plan"}}
    )
    cluster.core.create_namespaced_secret(
        cluster.namespace, {"metadata": {"name": "key"}, "stringData": {"key": "secret"}}
    )
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    cluster.core.create_namespaced_persistent_volume_claim(
        cluster.namespace, {"metadata": {"name": "data"}, "spec": claim}
    )
    label = {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}
    volumes = {
        "plan": {"configMap": {"name": "plan"}},
        "key": {"secret": {"secretName": "key", "defaultMode": 0o440}},
        "data": {"persistentVolumeClaim": {"claimName": "data"}},
        "scratch": {"emptyDir": {}},
        "all": {
            "projected": {"sources": [{"configMap": {"name": "plan"}}, {"downwardAPI": {"items": [label]}}]}
        },
    }
    script = """
        set -e
        cat "$PLAN" "$1" "$2/plan.json" "$2/name" > "$3/written"
        test "$(stat -c %a "$1")" = 440
        mv "$3/written" "$4/kept"; cat "$4/kept" > "$5"
    """
    arguments = ["/etc/key/key", "/etc/all", "/scratch", "/data", "/dev/termination-log"]
    container = {
        "command": ["sh", "-c", script, "sh", *arguments],
        "env": [{"name": "PLAN", "value": "/etc/plan/plan.json"}],
        "volumeMounts": [
            {"name": "plan", "mountPath": "/etc/plan"},
            {"name": "key", "mountPath": "/etc/key", "readOnly": True},
            {"name": "all", "mountPath": "/etc/all"},
            {"name": "scratch", "mountPath": "/scratch", "subPath": "below"},
            {"name": "data", "mountPath": "/data"},
        ],
    }
    cluster.pod(
        "writer", container=container, volumes=[{"name": name, **kind} for name, kind in volumes.items()]
    )
    end = cluster.ended("writer")
    assert (end["exitCode"], end["message"]) == (0, "plansecretplanwriter")
    reader = {
        "command": ["cp", "/data/kept", "/dev/termination-log"],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    cluster.pod("reader", container=reader, volumes=[{"name": "data", **volumes["data"]}])
    assert cluster.ended("reader")["message"] == end["message"]


def test_the_folder_of_a_claim_goes_with_it(cluster: Cluster) -> None:
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    cluster.core.create_namespaced_persistent_volume_claim(
        cluster.namespace, {"metadata": {"name": "data"}, "spec": claim}
    )

    def volume_name() -> Any:
        found = cluster.core.read_namespaced_persistent_volume_claim("data", cluster.namespace)
        return found.status.phase == "Bound" and found.spec.volume_name

    name = wait_for(volume_name)
    folder = Path(cluster.core.read_persistent_volume(name).spec.host_path.path)
    assert folder.is_dir()
    cluster.core.delete_namespaced_persistent_volume_claim("data", cluster.namespace)
    wait_for(lambda: name not in {each.metadata.name for each in cluster.core.list_persistent_volume().items})
    assert not folder.exists()


def test_the_token_is_bound_to_the_pod(cluster: Cluster) -> None:
    token = {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}}
    container = {
        "command": ["cp", "/account/token", "/dev/termination-log"],
        "volumeMounts": [{"name": "account", "mountPath": "/account"}],
    }
    volumes = [{"name": "account", "projected": {"sources": [token]}}]
    cluster.pod("work", container=container, volumes=volumes)
    from kubernetes import client

    review = client.AuthenticationV1Api(cluster.api).create_token_review(
        {"spec": {"token": cluster.ended("work")["message"]}}
    )
    assert review.status.user.username == f"system:serviceaccount:{cluster.namespace}:default"
    extra = review.status.user.extra
    assert extra["authentication.kubernetes.io/pod-uid"] == [cluster.read("work")["metadata"]["uid"]]


def test_variables_come_from_everywhere(cluster: Cluster) -> None:
    cluster.core.create_namespaced_config_map(
        cluster.namespace, {"metadata": {"name": "colours"}, "data": {"first": "red", "second": "blue"}}
    )
    variables = [
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "FIRST", "valueFrom": {"configMapKeyRef": {"name": "colours", "key": "first"}}},
        {"name": "BOTH", "value": "$(NAME) is $(FIRST), $(UNKNOWN), $$(FIRST)"},
    ]
    container = {
        "command": ["sh", "-c", 'printf "%s; %s; %s; %s" "$BOTH" "$c_second" "$1" "$LEAK" > "$2"', "sh"],
        "args": ["$(NAME)", "/dev/termination-log"],
        "env": variables,
        "envFrom": [{"prefix": "c_", "configMapRef": {"name": "colours"}}],
    }
    cluster.pod("work", container=container)
    assert cluster.ended("work")["message"] == "work is red, $(UNKNOWN), $(FIRST); blue; work; "


def test_a_pod_waits_for_what_it_names(cluster: Cluster) -> None:
    container = {"volumeMounts": [{"name": "late", "mountPath": "/late"}]}
    cluster.pod("work", container=container, volumes=[{"name": "late", "configMap": {"name": "late"}}])
    waiting = wait_for(lambda: cluster.status("work")["state"].get("waiting", {}).get("message"))
    assert waiting == "configmaps late not found"
    cluster.core.create_namespaced_config_map(cluster.namespace, {"metadata": {"name": "late"}})
    assert cluster.ended("work")["exitCode"] == 0


def test_what_is_not_possible_is_refused_by_name(cluster: Cluster) -> None:
    container = {"command": None, "securityContext": {"privileged": False}}
    volumes = [{"name": "share", "nfs": {"server": "127.0.0.1", "path": "/"}}]
    cluster.pod("work", container=container, volumes=volumes)
    wait_for(lambda: cluster.read("work")["status"]["phase"] == "Failed")
    status = cluster.read("work")["status"]
    assert status["reason"] == "NotPossibleOnProcessNode"
    assert "volume share is of kind nfs" in status["message"]
    assert "image any is not pulled" in status["message"]


def test_init_containers_run_before_and_in_order(cluster: Cluster) -> None:
    mount = {"volumeMounts": [{"name": "out", "mountPath": "/out"}]}

    def step(name: str) -> Object:
        command = ["sh", "-c", f'sleep 0.2; echo {name} >> "$0"', "/out/order"]
        return {"name": name, "image": "any", "command": command, **mount}

    container = {"command": ["cp", "/out/order", "/dev/termination-log"], **mount}
    cluster.pod(
        "work",
        container=container,
        initContainers=[step("one"), step("two")],
        volumes=[{"name": "out", "emptyDir": {}}],
    )
    assert cluster.ended("work")["message"] == "one\ntwo\n"


def test_a_failed_container_starts_again_until_it_succeeds(cluster: Cluster) -> None:
    container = {
        "command": ["sh", "-c", 'test -e "$0/tried" || { touch "$0/tried"; exit 1; }', "/out"],
        "volumeMounts": [{"name": "out", "mountPath": "/out"}],
    }
    volumes = [{"name": "out", "emptyDir": {}}]
    cluster.pod("work", container=container, volumes=volumes, restartPolicy="OnFailure")
    assert cluster.ended("work")["exitCode"] == 0
    status = cluster.status("work")
    assert (status["restartCount"], status["lastState"]["terminated"]["exitCode"]) == (1, 1)


def test_probes_decide_readiness_and_restarts(cluster: Cluster, tmp_path: Path) -> None:
    from trainwright_devstack.processes import free_port

    port = free_port()
    (tmp_path / "live").touch()
    server = ["python", "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", "/site"]
    timing = {"periodSeconds": 1, "failureThreshold": 1}
    container = {
        "command": server,
        "ports": [{"name": "http", "containerPort": port}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, **timing},
        "livenessProbe": {"httpGet": {"path": "/live", "port": port}, "initialDelaySeconds": 2, **timing},
        "volumeMounts": [{"name": "site", "mountPath": "/site"}],
    }
    volumes = [{"name": "site", "hostPath": {"path": str(tmp_path)}}]
    cluster.pod("web", container=container, volumes=volumes, restartPolicy="Always")
    wait_for(lambda: "running" in cluster.status("web")["state"])
    assert not cluster.status("web")["ready"]
    (tmp_path / "ready").touch()
    wait_for(lambda: cluster.status("web")["ready"])
    (tmp_path / "live").unlink()
    wait_for(lambda: cluster.status("web")["restartCount"] == 1)


def test_kubectl_reads_logs(cluster: Cluster, control_plane: ControlPlane, kubectl: Path) -> None:
    command = [kubectl, "--kubeconfig", control_plane.kubeconfig, "-n", cluster.namespace, "logs", "work"]
    cluster.pod("work", "for i in 1 2 3; do echo line $i; sleep 0.3; done")
    wait_for(lambda: {"running", "terminated"} & set(cluster.status("work")["state"]))
    followed = subprocess.run([*command, "--follow"], check=True, capture_output=True, text=True).stdout
    assert followed == "line 1\nline 2\nline 3\n"
    last = subprocess.run([*command, "--tail=1"], check=True, capture_output=True, text=True).stdout
    assert last == "line 3\n"


def test_logs_are_for_the_api_server_only(process_node: ProcessNode, kube: client.ApiClient) -> None:
    import ssl
    import urllib.request

    from kubernetes import client

    node = client.CoreV1Api(kube).read_node(process_node.name)
    port = node.status.daemon_endpoints.kubelet_endpoint.port
    assert process_node.authority
    trust = ssl.create_default_context(cafile=str(process_node.authority.certificate))
    with pytest.raises(OSError, match="certificate required"):
        urllib.request.urlopen(f"https://127.0.0.1:{port}/healthz", context=trust)


def test_a_pod_may_mount_a_folder_over_the_one_the_node_lives_in(cluster: Cluster) -> None:
    temporary = "/tmp"  # noqa: S108
    script = 'touch "$TMPDIR/a" "$HOME/b" && ls "$0" > "$1"'
    container = {
        "command": ["sh", "-c", script, temporary, "/dev/termination-log"],
        "env": [{"name": "TMPDIR", "value": temporary}],
        "volumeMounts": [{"name": "scratch", "mountPath": temporary}],
    }
    cluster.pod("work", container=container, volumes=[{"name": "scratch", "emptyDir": {}}])
    end = cluster.ended("work")
    assert (end["exitCode"], end["message"]) == (0, "a\n")
