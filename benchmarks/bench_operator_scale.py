"""What the operator makes of thousands of runs applied at once, beside a client that only writes.

    python benchmarks/bench_operator_scale.py --sizes 1000 5000

README.md in this folder says what each figure is. They are in results/operator-scale.json.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from collections import Counter
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from bare_client import RUNS, BareClient, Copies, connect, copy_run, for_each
from benched_cluster import OperatorUnderTest, control_plane, sample_run, write_result
from fake_pods import finish_pods, run_pods

from trainwright_devstack.controlplane import CONTROLLERS, ControlPlane

Object = dict[str, Any]

OURS, BARE = "ours", "bare"
TEMPLATE = "template-run"
WORKERS = 16
REST_SECONDS = 20.0
# The benchmark makes the pods itself. Who else would make, bind, evict or tidy them away would do so at a
# pace of its own, and the two sides would not be compared under the same load.
OWN_PODS = f"{CONTROLLERS},-job-controller,-node-lifecycle-controller,-pod-garbage-collector-controller"

# Nobody else writes these here, so that the API server's own counter tells what the operator wrote.
OPERATORS_WRITES = {
    ("", "configmaps", ""),
    ("", "persistentvolumeclaims", ""),
    ("", "serviceaccounts", ""),
    ("rbac.authorization.k8s.io", "rolebindings", ""),
    ("batch", "jobs", ""),
    ("events.k8s.io", "events", ""),
    ("trainwright.dev", "trainingruns", "status"),
}
CREATION, CHANGES = {"POST"}, {"POST", "PUT", "PATCH", "APPLY"}
REQUESTS = re.compile(r"^apiserver_request_total\{(.*)\} ([0-9.e+]+)$", re.MULTILINE)


@dataclass
class Usage:
    """What was written, and the processor time it took the operator, up to a moment."""

    writes: float
    status_writes: float
    cpu_seconds: float = 0.0

    def since(self, earlier: Usage) -> Usage:
        """Return what was added after an earlier moment."""
        return Usage(
            self.writes - earlier.writes,
            self.status_writes - earlier.status_writes,
            self.cpu_seconds - earlier.cpu_seconds,
        )


async def read_writes(client: BareClient) -> Usage:
    """Read the API server's counters: every write counts, also one that was refused."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for labels, value in REQUESTS.findall(await client.read_text("/metrics")):
        label = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        resource = (label["group"], label["resource"], label["subresource"])
        own = CHANGES if resource[2] else CREATION
        if resource in OPERATORS_WRITES and label["verb"] in own:
            counts[resource] += float(value)
    return Usage(sum(counts.values()), counts["trainwright.dev", "trainingruns", "status"])


async def read_usage(client: BareClient, operator: OperatorUnderTest) -> Usage:
    """Read the same, and the operator's processor time."""
    return replace(await read_writes(client), cpu_seconds=operator.cpu_seconds())


class Site:
    """One control plane with the operator on it, and the phases of a measurement."""

    def __init__(self, client: BareClient, operator: OperatorUnderTest, size: int) -> None:
        self.client = client
        self.operator = operator
        self.size = size

    async def apply_ours(self) -> Object:
        """Apply all runs at once, until each has its Job and its status and the operator is idle."""
        before, started = await read_usage(self.client, self.operator), time.monotonic()
        await for_each(_runs("ours", OURS, self.size), self._create, WORKERS)
        applied = time.monotonic() - started
        seconds = await asyncio.to_thread(self.operator.wait_until_idle) - started
        used = (await read_usage(self.client, self.operator)).since(before)
        jobs = await _count(self.client, f"/apis/batch/v1/namespaces/{OURS}/jobs")
        assert jobs == self.size + 1, f"{jobs} Jobs of {self.size} runs: see the operator's log"
        return {
            "seconds": round(seconds, 2),
            "applySeconds": round(applied, 2),
            "runsPerSecond": round(self.size / seconds, 1),
            "writesPerSecond": round((used.writes + self.size) / seconds, 1),
            **self._per_run(used),
        }

    async def apply_bare(self, copies: Copies, prefix: str) -> Object:
        """Make the same objects without an operator: the runs too, and all that it wrote for each."""

        async def make(run: Object) -> None:
            created = await self._create(run)
            await copies.make_children(self.client, created)
            await copies.tell(self.client, created)

        started = time.monotonic()
        await for_each(_runs(prefix, BARE, self.size), make, WORKERS)
        seconds = time.monotonic() - started
        return {
            "seconds": round(seconds, 2),
            "runsPerSecond": round(self.size / seconds, 1),
            "writesPerSecond": round((copies.writes + 1) * self.size / seconds, 1),
        }

    async def during(self, work: Awaitable[None]) -> Object:
        """Do something to the pods, and return what the operator did about it."""
        before, started = await read_usage(self.client, self.operator), time.monotonic()
        await work
        seconds = await asyncio.to_thread(self.operator.wait_until_idle) - started
        used = (await read_usage(self.client, self.operator)).since(before)
        return {
            "seconds": round(seconds, 2),
            "statusWritesPerSecond": round(used.status_writes / seconds, 1),
            **self._per_run(used),
        }

    async def rest(self) -> Object:
        """Return what the operator does about runs of which nothing changes."""
        before = await read_usage(self.client, self.operator)
        await asyncio.sleep(REST_SECONDS)
        used = (await read_usage(self.client, self.operator)).since(before)
        return {"seconds": REST_SECONDS, "writes": int(used.writes), "cpuSeconds": round(used.cpu_seconds, 2)}

    async def restart(self) -> Object:
        """End the operator and start it again; return how long it takes until nothing is left to do."""
        await asyncio.to_thread(self.operator.stop)
        before = await read_writes(self.client)
        seconds = await asyncio.to_thread(self.operator.start)
        return {
            "seconds": round(seconds, 2),
            "cpuSeconds": round(self.operator.cpu_seconds(), 2),
            "writes": int((await read_writes(self.client)).writes - before.writes),
            "residentMiB": round(self.operator.resident_mib(), 1),
        }

    async def _create(self, run: Object) -> Object:
        return await self.client.post(RUNS.format(namespace=run["metadata"]["namespace"]), run)

    def _per_run(self, used: Usage) -> Object:
        return {
            "writesPerRun": round(used.writes / self.size, 2),
            "cpuMsPerRun": round(1000 * used.cpu_seconds / self.size, 2),
        }


async def measure(plane: ControlPlane, size: int) -> Object:
    """Return the figures of one size."""
    async with connect(plane.kubeconfig) as client:
        for namespace in (OURS, BARE):
            await client.post("/api/v1/namespaces", {"metadata": {"name": namespace}})
        operator = OperatorUnderTest(plane, OURS)
        await asyncio.to_thread(operator.start)
        site = Site(client, operator, size)
        try:
            await client.post(RUNS.format(namespace=OURS), sample_run(TEMPLATE, OURS))
            await asyncio.to_thread(operator.wait_until_idle)
            copies = await copy_run(client, OURS, TEMPLATE)
            figures: Object = {"runs": size, "idleMiB": round(operator.resident_mib(), 1)}
            figures["bare"] = [await site.apply_bare(copies, "before")]
            figures["applied"] = await site.apply_ours()
            figures["bare"].append(await site.apply_bare(copies, "after"))
            figures["started"] = await site.during(run_pods(client, OURS))
            figures["rest"] = await site.rest()
            figures["residentMiB"] = round(operator.resident_mib(), 1)
            figures["peakMiB"] = round(operator.peak_mib(), 1)
            figures["restart"] = await site.restart()
            figures["ended"] = await site.during(finish_pods(client, OURS))
        finally:
            operator.stop()
    print(figures, flush=True)
    return figures


def summarize(sizes: list[Object]) -> Object:
    """Return what is written down: the figures of the largest size, and then those of each."""
    return {**_judge(sizes[-1]), "sizes": [{**_judge(figures), **figures} for figures in sizes]}


def _judge(figures: Object) -> Object:
    """Return what one size is judged by."""
    ours = figures["applied"]["runsPerSecond"]
    bare = sum(part["runsPerSecond"] for part in figures["bare"]) / len(figures["bare"])
    before_training = [figures["applied"], figures["started"]]
    return {
        "runs": figures["runs"],
        "ours": {"runsPerSecond": ours},
        "baseline": {"runsPerSecond": round(bare, 1)},
        "ratio": round(ours / bare, 2),
        "cpuMsPerRun": round(sum(part["cpuMsPerRun"] for part in before_training), 2),
        "writesPerRun": round(sum(part["writesPerRun"] for part in before_training), 2),
        "writesAtRest": figures["rest"]["writes"],
        "statusWritesPerSecond": figures["started"]["statusWritesPerSecond"],
        "residentMiB": figures["residentMiB"],
        "peakMiB": figures["peakMiB"],
        "restartSeconds": figures["restart"]["seconds"],
    }


def _runs(prefix: str, namespace: str, count: int) -> Iterator[Object]:
    return (sample_run(f"{prefix}-{number:05}", namespace) for number in range(count))


async def _count(client: BareClient, path: str) -> int:
    page = await client.get(path, limit="1")
    return len(page["items"]) + int(page["metadata"].get("remainingItemCount", 0))


def main() -> None:
    """Measure each size on a fresh control plane, print and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 5000])
    figures = []
    for size in sorted(parser.parse_args().sizes):
        with control_plane(OWN_PODS) as plane:
            version = plane.version()
            figures.append(asyncio.run(measure(plane, size)))
    write_result("operator-scale", version, summarize(figures))


if __name__ == "__main__":
    main()
