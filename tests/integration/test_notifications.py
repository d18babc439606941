"""Notifications of runs on a real API server: told once, whatever fails or is started again in between."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from builders import make_failure, make_success
from certificates import write_certificate
from installation import find_kubectl, install
from operator_process import OperatorProcess
from receivers import Hook, https_hook
from run_bench import RUNS, Bench

from trainwright.contract import Cause, ExitCode

if TYPE_CHECKING:
    from kubernetes import client

    from trainwright_devstack.controlplane import ControlPlane

Object = dict[str, Any]
NETWORKS = {"allowedNetworks": ["127.0.0.0/8"], "retrySeconds": 0.2}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_certificate(tmp_path_factory.mktemp("hook"))


@pytest.fixture(scope="module")
def operator(
    control_plane: ControlPlane,
    kube: client.ApiClient,
    assets: Path,
    certificate: tuple[Path, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[OperatorProcess]:
    install(find_kubectl(assets, control_plane))
    folder = tmp_path_factory.mktemp("operator")
    operator = OperatorProcess(folder, control_plane, kube, notifications=NETWORKS)
    operator.environment["REQUESTS_CA_BUNDLE"] = str(certificate[0])
    yield operator.start()
    operator.stop()


@pytest.fixture
def hook(certificate: tuple[Path, Path]) -> Iterator[Hook]:
    with https_hook(*certificate) as hook:
        yield hook


@pytest.fixture
def bench(operator: OperatorProcess, kube: client.ApiClient, namespace: str) -> Bench:
    assert operator.alive()
    return Bench(kube, namespace)


def wanting(*phases: str, address: str = "chat") -> list[Object]:
    return [{"urlFrom": {"secretName": address, "key": "url"}, "on": list(phases)}]


def keep_address(bench: Bench, url: str, **labels: str) -> None:
    metadata = {"name": "chat", "labels": labels or {"trainwright.dev/use": "notify"}}
    bench.core.create_namespaced_secret(bench.namespace, {"metadata": metadata, "stringData": {"url": url}})


def await_that(holds: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def told(bench: Bench) -> list[str]:
    """Return what the run's status says of its notices, the newest last."""
    notices = bench.get().get("status", {}).get("notices", [])
    return [outcome for notice in notices for outcome in notice["told"].values()]


def test_phases_are_told_once_also_when_the_operator_is_killed_and_started_again(
    bench: Bench, operator: OperatorProcess, hook: Hook
) -> None:
    keep_address(bench, hook.url)
    bench.create(notify=wanting("Succeeded", "Failed"), retry={"unknown": 0})
    bench.end_pod(bench.wait_for_pod(1), 0, make_success(1))
    await_that(lambda: told(bench) == ["Sent"])
    operator.kill()
    operator.start()
    bench.create("another", notify=wanting("Succeeded"))
    bench.end_pod(bench.wait_for_pod(1, "another"), 0, make_success(1))
    await_that(lambda: len(hook.got) == 2)
    assert [(body["run"], body["phase"]) for body in hook.got] == [
        ("run", "Succeeded"),
        ("another", "Succeeded"),
    ]
    assert hook.got[0]["model"]["name"] == "parts"


def test_what_ended_while_no_operator_ran_is_told_by_the_next_one(
    bench: Bench, operator: OperatorProcess, hook: Hook
) -> None:
    keep_address(bench, hook.url)
    bench.create(notify=wanting("Failed"))
    pod = bench.wait_for_pod(1)
    bench.core.delete_namespaced_secret("chat", bench.namespace)
    bench.end_pod(pod, ExitCode.DATA, make_failure(1, Cause.DATA, ExitCode.DATA, "no images"))
    await_that(lambda: told(bench) == ["Pending"])
    operator.kill()
    keep_address(bench, hook.url)
    operator.start()
    await_that(lambda: told(bench) == ["Sent"])
    assert [body["failure"]["message"] for body in hook.got] == ["no images"]


def test_an_address_that_fails_is_tried_again_and_never_told_to_anybody(
    bench: Bench, operator: OperatorProcess, hook: Hook
) -> None:
    keep_address(bench, hook.url)
    hook.answers = [500, 502, 503]
    bench.create(notify=wanting("Suspended"), suspend=True)
    await_that(lambda: told(bench) == ["Sent"])
    assert len(hook.got) == 1
    events = bench.core.list_namespaced_event(bench.namespace).items
    (event,) = [event for event in events if event.reason == "NotificationDelayed"]
    assert "answered 503" in event.message
    everything = f"{events} {bench.get()} {operator.log.read_text()}"
    assert "secret-kind" not in everything


def test_a_run_that_never_starts_tells_no_host_that_its_profile_does_not_allow(
    bench: Bench, hook: Hook
) -> None:
    keep_address(bench, hook.url)
    versions = [{"name": "v1", "image": "registry.example/trainer:v1", "default": True}]
    spec = {"versions": versions, "limits": {"endpoints": ["example.org"]}}
    profile = {"apiVersion": "/".join(RUNS), "kind": "TrainingProfile", "metadata": {"name": "small"}}
    bench.runs.create_namespaced_custom_object(
        *RUNS, bench.namespace, "trainingprofiles", profile | {"spec": spec}
    )
    for name in ("small", "absent"):
        bench.create(name, profile={"name": name}, notify=wanting("Suspended"), suspend=True)

    def delays() -> dict[str, str]:
        events = bench.core.list_namespaced_event(bench.namespace).items
        delayed = [event for event in events if event.reason == "NotificationDelayed"]
        return {event.involved_object.name: event.message for event in delayed}

    await_that(lambda: len(delays()) == 2)
    assert "limits.endpoints" in delays()["small"]
    assert "profile allows is not known" in delays()["absent"]
    assert hook.got == []


def test_a_run_waits_for_its_address_and_its_label(bench: Bench, hook: Hook) -> None:
    keep_address(bench, hook.url, **{"trainwright.dev/use": "delivery"})
    bench.create(notify=[*wanting("Running"), *wanting("Failed", address="mail")])
    status = bench.wait(lambda status: "notify[1]" in str(status.get("conditions")))
    (accepted,) = [item for item in status["conditions"] if item["type"] == "Accepted"]
    assert "Secret 'mail' does not exist" in accepted["message"]
    assert "trainwright.dev/use=notify" in accepted["message"]


def test_an_address_that_is_given_after_the_end_is_told_of_it(bench: Bench, hook: Hook) -> None:
    bench.create()
    bench.end_pod(bench.wait_for_pod(1), 0, make_success(1))
    bench.wait_for_phase("Succeeded")
    bench.patch(notify=wanting("Succeeded"))
    await_that(lambda: told(bench) == ["Pending"])
    keep_address(bench, hook.url)
    await_that(lambda: told(bench) == ["Sent"])
    assert [body["phase"] for body in hook.got] == ["Succeeded"]


def test_each_phase_of_a_run_is_told_in_its_order(bench: Bench, hook: Hook) -> None:
    keep_address(bench, hook.url)
    bench.create(notify=wanting("Suspended", "Failed", "Cancelled"), suspend=True)
    await_that(lambda: told(bench) == ["Sent"])
    bench.patch(suspend=False)
    bench.wait_for_pod(1)
    bench.patch(cancel=True)
    await_that(lambda: told(bench) == ["Sent", "Sent"])
    time.sleep(1)
    assert [body["phase"] for body in hook.got] == ["Suspended", "Cancelled"]
