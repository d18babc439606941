"""Pods without nodes: written as Job controller, scheduler and kubelet would write them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from bare_client import FOLDERS, BareClient, for_each

Object = dict[str, Any]

NODE = "bench-node"
PODS = "/api/v1/namespaces/{namespace}/pods"
WORKERS = 16
KUBELET_SECONDS = 1.0  # from a pod's binding to its container's start


async def run_pods(client: BareClient, namespace: str) -> None:
    """Bring a pod of every Job to Running, in the writes a real one takes: made, bound, creating, running."""
    found = await client.get(FOLDERS["Job"].format(namespace=namespace))
    folder = PODS.format(namespace=namespace)
    starting: list[asyncio.Task[None]] = []

    async def start(job: Object) -> None:
        pod = await client.post(folder, _pod(job))
        name = pod["metadata"]["name"]
        await client.post(f"{folder}/{name}/binding", _binding(name, namespace))
        starting.append(asyncio.create_task(_become_running(client, f"{folder}/{name}/status")))

    await for_each(found["items"], start, WORKERS)
    await asyncio.gather(*starting)


async def _become_running(client: BareClient, path: str) -> None:
    waiting = {"waiting": {"reason": "ContainerCreating"}}
    await client.patch(path, {"status": {"phase": "Pending", "containerStatuses": [_container(waiting)]}})
    await asyncio.sleep(KUBELET_SECONDS)
    running = {"running": {"startedAt": _now()}}
    await client.patch(path, {"status": {"phase": "Running", "containerStatuses": [_container(running)]}})


async def finish_pods(client: BareClient, namespace: str) -> None:
    """End every pod with success, and every Job after it."""
    found = await client.get(PODS.format(namespace=namespace))

    async def finish(pod: Object) -> None:
        ended = {"exitCode": 0, "reason": "Completed", "startedAt": _now(), "finishedAt": _now()}
        status = {"phase": "Succeeded", "containerStatuses": [_container({"terminated": ended})]}
        path = f"{PODS.format(namespace=namespace)}/{pod['metadata']['name']}/status"
        await client.patch(path, {"status": status})
        owner = pod["metadata"]["ownerReferences"][0]["name"]
        path = f"{FOLDERS['Job'].format(namespace=namespace)}/{owner}/status"
        await client.patch(path, {"status": _complete()}, "application/merge-patch+json")

    await for_each(found["items"], finish, WORKERS)


def _pod(job: Object) -> Object:
    template, metadata = job["spec"]["template"], job["metadata"]
    owner = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    named = {"generateName": f"{metadata['name']}-", "ownerReferences": [owner]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**template["metadata"], **named},
        "spec": template["spec"],
    }


def _binding(pod: str, namespace: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": pod, "namespace": namespace},
        "target": {"apiVersion": "v1", "kind": "Node", "name": NODE},
    }


def _container(state: Object) -> Object:
    image = "registry.example/trainer:bench"
    ready = "running" in state
    return {
        "name": "trainer",
        "image": image,
        "imageID": image,
        "ready": ready,
        "restartCount": 0,
        "state": state,
    }


def _complete() -> Object:
    now = _now()
    conditions = [
        {"type": type_, "status": "True", "lastTransitionTime": now, "lastProbeTime": now}
        for type_ in ("SuccessCriteriaMet", "Complete")
    ]
    return {"conditions": conditions, "startTime": now, "completionTime": now, "succeeded": 1}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
