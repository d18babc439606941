"""What is believed of a run's pods where the watches lag behind, or others copy our labels."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, cast

from builders import RunBuilder, make_failure, make_job, make_pod, terminated
from memory_cluster import World

from trainwright.contract import Cause, ExitCode
from trainwright_operator.attempts import Attempt, Observation
from trainwright_operator.cluster import Cluster, Kind, Listing
from trainwright_operator.history import read_history
from trainwright_operator.names import ATTEMPT_LABEL, AttemptOutcome
from trainwright_operator.observing import observe
from trainwright_operator.store import Store
from trainwright_operator.verdicts import Patience

Object = dict[str, Any]

NOW = datetime(2026, 1, 2, 4, 0, tzinfo=UTC)


class CountingWorld(World):
    """Counts what is listed."""

    lists = 0

    async def list(self, kind: Kind, namespace: str | None = None, selector: str = "") -> Listing:
        self.lists += 1
        return await super().list(kind, namespace, selector)


def run_with(**record: Any) -> Object:
    attempt = Attempt(number=1, job="parts-1-1", start_time="2026-01-02T03:04:05Z", **record).to_status()
    current = {"name": "parts-1-1-abcde", "uid": "pod-1"}
    return RunBuilder().status({"attempts": [attempt], "currentPod": current}).build()


def labelled(pod: Object, **metadata: Any) -> Object:
    pod["metadata"]["labels"][ATTEMPT_LABEL] = "1"
    pod["metadata"] |= metadata
    return pod


def failed_pod() -> Object:
    word = make_failure(1, Cause.USER_CONFIG, ExitCode.USER_CONFIG).to_json()
    statuses = terminated(ExitCode.USER_CONFIG, word)
    return labelled(make_pod(1, phase="Failed", containerStatuses=statuses))


def look(world: World, store: Store) -> Observation:
    run = world.all("TrainingRun")[0]
    return asyncio.run(observe(cast(Cluster, world), store, run, NOW, Patience()))


def test_a_pod_with_copied_labels_delays_the_end_of_an_attempt_but_is_none_of_its_pods() -> None:
    world = World(run_with())
    world.store(labelled(make_pod(1)))
    world.store(labelled(make_pod(1), name="planted", uid="uid-planted"))
    observation = look(world, Store())
    assert [pod["metadata"]["uid"] for pod in observation.pods["parts-1-1"]] == ["pod-1"]

    world.remove(world.objects["Pod", "parts-1-1-abcde"])
    observation = look(world, Store())
    assert observation.pod("parts-1-1") is None
    assert observation.outlived == {"parts-1-1"}


def test_a_job_heard_of_before_its_pod_is_recorded_with_what_the_pod_says() -> None:
    world = CountingWorld(run_with())
    job, store = make_job(1, condition="Failed"), Store()
    world.store(job)
    world.store(failed_pod())
    world.store(labelled(make_pod(1), name="planted", uid="planted", ownerReferences=[]))
    store.keep("Job", job)
    store.keep("Pod", labelled(make_pod(1)))  # it runs, as far as the watch has told
    [attempt] = read_history(look(world, store))
    assert (attempt.cause, attempt.pod) == (Cause.USER_CONFIG, "parts-1-1-abcde")
    assert world.lists == 1


def test_a_job_whose_pod_is_not_known_at_all_is_asked_for_it() -> None:
    world = CountingWorld(run_with())
    job, store = make_job(1, condition="Failed"), Store()
    world.store(job)
    world.store(failed_pod())
    store.keep("Job", job)
    [attempt] = read_history(look(world, store))
    assert attempt.cause is Cause.USER_CONFIG


def test_nothing_is_listed_where_the_watches_have_told_all_or_the_outcome_is_recorded() -> None:
    world = CountingWorld(run_with())
    job, store = make_job(1, condition="Failed"), Store()
    store.keep("Job", job)
    store.keep("Pod", failed_pod())
    look(world, store)
    recorded = CountingWorld(
        run_with(outcome=AttemptOutcome.FAILED, cause=Cause.DATA, end_time="2026-01-02T03:30:00Z")
    )
    alone = Store()
    alone.keep("Job", job)
    look(recorded, alone)
    assert (world.lists, recorded.lists) == (0, 0)
