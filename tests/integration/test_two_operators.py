"""Two operators at once, on a real API server: one acts, and the other when the first can't."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from builders import make_success
from installation import find_kubectl, install
from operator_process import OperatorProcess
from run_bench import Bench

if TYPE_CHECKING:
    from kubernetes import client

    from trainwright_devstack.controlplane import ControlPlane

LEASE_SECONDS = 3  # as operators of tests have it


@pytest.fixture
def operators(
    control_plane: ControlPlane,
    kube: client.ApiClient,
    assets: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[OperatorProcess, OperatorProcess]]:
    """The one that leads, and the one that waits; both are started again where a test ended one."""
    install(find_kubectl(assets, control_plane))
    first, second = (
        OperatorProcess(tmp_path_factory.mktemp("operator"), control_plane, kube).start() for _ in range(2)
    )
    await_that(lambda: first.leads() or second.leads(), "one of them leads", 2 * LEASE_SECONDS)
    yield (first, second) if first.leads() else (second, first)
    for operator in (first, second):
        if operator.alive():
            operator.stop()


@pytest.fixture
def bench(kube: client.ApiClient, namespace: str) -> Bench:
    return Bench(kube, namespace)


def await_that(holds: Callable[[], bool], what: str, seconds: float) -> float:
    """Return how long it took."""
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() < begun + seconds, what
        time.sleep(0.05)
    return time.monotonic() - begun


def assert_trained_once(bench: Bench) -> None:
    status = bench.wait_for_phase("Succeeded")
    assert [attempt["number"] for attempt in status["attempts"]] == [1]
    jobs = bench.batch.list_namespaced_job(bench.namespace).items
    assert [job.metadata.name for job in jobs] == ["run-1"]


def test_one_acts_and_the_other_follows_when_it_is_killed(
    operators: tuple[OperatorProcess, OperatorProcess], bench: Bench
) -> None:
    leader, follower = operators
    bench.create()
    pod = bench.wait_for_pod(1)
    assert (leader.leads(), follower.leads()) == (True, False)
    leader.kill()
    bench.end_pod(pod, 0, make_success(1))
    await_that(follower.leads, "the other takes over", LEASE_SECONDS + 3)
    assert_trained_once(bench)


def test_a_leader_that_is_asked_to_stop_hands_over_and_ends_at_once(
    operators: tuple[OperatorProcess, OperatorProcess], bench: Bench
) -> None:
    leader, follower = operators
    bench.create()
    bench.end_pod(bench.wait_for_pod(1), 0, make_success(1))
    begun = time.monotonic()
    assert leader.stop() == 0
    assert time.monotonic() - begun < 4  # on a busy machine
    assert await_that(follower.leads, "the other takes over", 5) < 2
    assert_trained_once(bench)


def test_a_leader_that_was_frozen_acts_no_more_when_it_wakes(
    operators: tuple[OperatorProcess, OperatorProcess], bench: Bench
) -> None:
    leader, follower = operators
    bench.create()
    pod = bench.wait_for_pod(1)
    leader.send(signal.SIGSTOP)
    await_that(follower.leads, "the other takes over", LEASE_SECONDS + 3)
    bench.end_pod(pod, 0, make_success(1))
    leader.send(signal.SIGCONT)
    await_that(lambda: not leader.leads(), "the first one sees that it leads no more", 2)
    assert follower.leads()
    assert_trained_once(bench)
