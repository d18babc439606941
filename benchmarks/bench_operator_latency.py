"""How long a run waits for its Job while the operator is idle, beside a client that only writes.

    python benchmarks/bench_operator_latency.py --runs 100

Both are measured in turns, one run at a time, on one control plane with all of its controllers; the clock
stops when a watch tells of the Job. The figures are in results/operator-latency.json.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import Any

from bare_client import FOLDERS, RUNS, BareClient, Copies, connect, copy_run
from benched_cluster import OperatorUnderTest, control_plane, percentile, sample_run, write_result

from trainwright_devstack.controlplane import ControlPlane

Object = dict[str, Any]

OURS, BARE = "ours", "bare"
TEMPLATE = "template-run"
WARM_UP = 10
PAUSE = 0.3  # between two runs: what the one before still causes is over
LONGEST_WAIT = 30.0


class Jobs:
    """When a watch told of each Job."""

    def __init__(self) -> None:
        self._seen: dict[str, asyncio.Future[float]] = {}

    async def watch(self, client: BareClient, namespace: str) -> None:
        """Note the time of each new Job of a namespace."""
        path = FOLDERS["Job"].format(namespace=namespace)
        found = await client.get(path)
        async for event in client.watch(path, found["metadata"]["resourceVersion"]):
            if event["type"] == "ADDED":
                self._future(event["object"]["metadata"]["name"]).set_result(time.perf_counter())

    async def time_of(self, name: str) -> float:
        """Return when the Job was seen first."""
        return await asyncio.wait_for(self._future(name), LONGEST_WAIT)

    def _future(self, name: str) -> asyncio.Future[float]:
        return self._seen.setdefault(name, asyncio.get_running_loop().create_future())


async def measure(plane: ControlPlane, runs: int) -> Object:
    """Return the figures of so many runs."""
    async with connect(plane.kubeconfig) as client:
        for namespace in (OURS, BARE):
            await client.post("/api/v1/namespaces", {"metadata": {"name": namespace}})
        operator = OperatorUnderTest(plane, OURS)
        operator.start()
        jobs = Jobs()
        watches = [asyncio.create_task(jobs.watch(client, namespace)) for namespace in (OURS, BARE)]
        try:
            await time_operator(client, jobs, TEMPLATE)
            await asyncio.sleep(2)
            copies = await copy_run(client, OURS, TEMPLATE)
            ours, bare = [], []
            for number in range(-WARM_UP, runs):
                ours.append(await time_operator(client, jobs, f"ours-{number + WARM_UP}"))
                bare.append(await time_bare(client, jobs, f"bare-{number + WARM_UP}", copies))
        finally:
            for watch in watches:
                watch.cancel()
            await asyncio.gather(*watches, return_exceptions=True)
            operator.stop()
    return summarize(ours[WARM_UP:], bare[WARM_UP:])


async def time_operator(client: BareClient, jobs: Jobs, name: str) -> float:
    """Return the milliseconds from the run's creation to the operator's Job."""
    started = time.perf_counter()
    await client.post(RUNS.format(namespace=OURS), sample_run(name, OURS))
    seconds = await jobs.time_of(f"{name}-1") - started
    await asyncio.sleep(PAUSE)
    return seconds * 1000


async def time_bare(client: BareClient, jobs: Jobs, name: str, copies: Copies) -> float:
    """Return the milliseconds from the run's creation to the Job when this client itself makes everything."""
    started = time.perf_counter()
    run = await client.post(RUNS.format(namespace=BARE), sample_run(name, BARE))
    await copies.make_children(client, run)
    seconds = await jobs.time_of(f"{name}-1") - started
    await copies.tell(client, run)
    await asyncio.sleep(PAUSE)
    return seconds * 1000


def summarize(ours: list[float], bare: list[float]) -> Object:
    """Return the figures that are written down, in milliseconds."""
    p50, bare_p50 = percentile(ours, 0.5), percentile(bare, 0.5)
    return {
        "sizes": {"runs": len(ours), "warmUp": WARM_UP},
        "ours": {"p50Ms": round(p50, 1), "p95Ms": round(percentile(ours, 0.95), 1)},
        "baseline": {"p50Ms": round(bare_p50, 1), "p95Ms": round(percentile(bare, 0.95), 1)},
        "ratio": round(p50 / bare_p50, 2),
        "p50Ms": round(p50, 1),
        "p95Ms": round(percentile(ours, 0.95), 1),
        "bareP50Ms": round(bare_p50, 1),
    }


def main() -> None:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    arguments = parser.parse_args()
    with control_plane() as plane:
        write_result("operator-latency", plane.version(), asyncio.run(measure(plane, arguments.runs)))


if __name__ == "__main__":
    main()
