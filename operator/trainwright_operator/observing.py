"""Looks at what is there of a run: what the watches told, and more where an attempt's fate hangs on it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from trainwright_operator.attempts import Observation
from trainwright_operator.cluster import JOBS, NODES, PODS, ApiError, Cluster
from trainwright_operator.names import ATTEMPT_LABEL, RUN_LABEL
from trainwright_operator.packed import controller_uid
from trainwright_operator.store import Store
from trainwright_operator.verdicts import ENDED, Patience, doubted_since

Object = dict[str, Any]

logger = logging.getLogger(__name__)


async def observe(
    cluster: Cluster, store: Store, run: Object, now: datetime, patience: Patience
) -> Observation:
    """Return what is there of a run; absence in the store is doubted, and a node its pod speaks against."""
    jobs = {job["metadata"]["name"]: job for job in store.jobs(run)}
    outlived: dict[str, list[Object]] = {}
    records = (run.get("status") or {}).get("attempts", ())
    for record in records:
        if "outcome" in record or record["job"] in jobs:
            continue
        job = await cluster.get(JOBS, run["metadata"]["namespace"], record["job"])
        if job and controller_uid(job) == run["metadata"]["uid"]:
            store.keep("Job", job)
            jobs[record["job"]] = job
        elif live := await _live_pods(cluster, run, record["number"]):
            outlived[record["job"]] = live
    pods = {name: store.pods(run, job) for name, job in jobs.items()} | outlived
    # A pod that an earlier attempt left on a lost node concerns nobody any more.
    settled = {record["job"] for record in records[:-1] if "outcome" in record}
    newest = [each[-1] for name, each in pods.items() if each and name not in settled]
    nodes = await _doubted_nodes(cluster, newest, now)
    return Observation(run, jobs, pods, now, frozenset(outlived), nodes, patience)


async def _live_pods(cluster: Cluster, run: Object, attempt: int) -> list[Object]:
    """Return the pods of an attempt whose Job is gone that still run: they end a grace period later."""
    selector = f"{RUN_LABEL}={run['metadata']['name']},{ATTEMPT_LABEL}={attempt}"
    pods = await cluster.list(PODS, run["metadata"]["namespace"], selector)
    return [pod for pod in pods.items if pod.get("status", {}).get("phase") not in ENDED]


async def _doubted_nodes(cluster: Cluster, pods: Iterable[Object], now: datetime) -> dict[str, Object | None]:
    """Return the nodes of the pods that give reason to ask for them: usually none."""
    names = {pod["spec"]["nodeName"] for pod in pods if doubted_since(pod, now) is not None}
    nodes: dict[str, Object | None] = {}
    for name in sorted(names):
        try:
            nodes[name] = await cluster.get(NODES, None, name)
        except ApiError as error:
            if error.status != 403:
                raise
            logger.warning("may not look at node %s: a lost node would not be noticed (%s)", name, error)
    return nodes
