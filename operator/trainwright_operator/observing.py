"""Looks at what is there of a run: what the watches told, and more where an attempt's fate hangs on it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from trainwright_operator.attempts import Observation, find_condition, group_of, place_of
from trainwright_operator.cluster import JOBS, NODES, PODS, ApiError, Cluster
from trainwright_operator.names import ATTEMPT_LABEL, RUN_LABEL, job_name
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
    status = run.get("status") or {}
    records = status.get("attempts", ())
    current = (status.get("currentPod") or {}).get("uid")
    for record in records:
        if "outcome" in record or record["job"] in jobs:
            continue
        job = await cluster.get(JOBS, run["metadata"]["namespace"], record["job"])
        if job and controller_uid(job) == run["metadata"]["uid"]:
            store.keep("Job", job)
            jobs[record["job"]] = job
        elif live := await _live_pods(cluster, run, record["number"]):
            # Labels can be copied: others may delay the attempt's end, but only the known pod is ours.
            outlived[record["job"]] = [pod for pod in live if pod["metadata"]["uid"] == current]
    for job in _ended_unheard(store, run, jobs):
        for pod in await _list_pods(cluster, run, job["metadata"]["labels"][ATTEMPT_LABEL]):
            if controller_uid(pod) == job["metadata"]["uid"]:
                store.keep("Pod", pod)
    pods = {name: store.pods(run, job) for name, job in jobs.items()} | outlived
    # A pod that an earlier attempt left on a lost node concerns nobody any more.
    settled = {record["job"] for record in records[:-1] if "outcome" in record}
    newest = [each[-1] for name, each in pods.items() if each and name not in settled]
    nodes = await _doubted_nodes(cluster, newest, now)
    return Observation(run, jobs, pods, now, frozenset(outlived), nodes, patience)


def _ended_unheard(store: Store, run: Object, jobs: Mapping[str, Object]) -> list[Object]:
    """Return the Jobs that ended, and are not recorded yet, whose pod's end the watch has not told of.

    Jobs and pods are watched apart: without its pod's last word an attempt is recorded wrongly for ever.
    """
    records = (run.get("status") or {}).get("attempts", ())
    settled = {record["job"] for record in records if "outcome" in record}
    oldest = min(((record["number"], place_of(record.get("group"))) for record in records), default=(0, 0))
    found = []
    for name, job in jobs.items():
        number, group = int(job["metadata"]["labels"].get(ATTEMPT_LABEL, 0)), group_of(job)
        known = name == job_name(run["metadata"]["name"], number, group)
        if not known or name in settled or (number, place_of(group)) < oldest:
            continue
        if find_condition(job, "Complete") or find_condition(job, "Failed"):
            pods = store.pods(run, job)
            if not pods or _is_live(pods[-1]):
                found.append(job)
    return found


async def _list_pods(cluster: Cluster, run: Object, attempt: int | str) -> list[Object]:
    selector = f"{RUN_LABEL}={run['metadata']['name']},{ATTEMPT_LABEL}={attempt}"
    return (await cluster.list(PODS, run["metadata"]["namespace"], selector)).items


async def _live_pods(cluster: Cluster, run: Object, attempt: int) -> list[Object]:
    """Return the pods of an attempt whose Job is gone that still run: they end a grace period later."""
    return [pod for pod in await _list_pods(cluster, run, attempt) if _is_live(pod)]


def _is_live(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") not in ENDED


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
