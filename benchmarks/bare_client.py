"""The baseline: a client without any logic that sends the operator's own writes, as fast as it can.

It is a Python process with asyncio and aiohttp, like the operator, so that what is compared is the work the
operator does and not the language it is written in.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from trainwright_operator.login import Login

Object = dict[str, Any]

RUNS = "/apis/trainwright.dev/v1alpha1/namespaces/{namespace}/trainingruns"
FOLDERS = {
    "ConfigMap": "/api/v1/namespaces/{namespace}/configmaps",
    "PersistentVolumeClaim": "/api/v1/namespaces/{namespace}/persistentvolumeclaims",
    "Job": "/apis/batch/v1/namespaces/{namespace}/jobs",
    "Event": "/apis/events.k8s.io/v1/namespaces/{namespace}/events",
}
WRITTEN_BY_SERVER = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "selfLink")


class BareClient:
    """Requests to one API server; an answer that is no success ends the benchmark."""

    def __init__(self, server: str, session: aiohttp.ClientSession) -> None:
        self._server = server
        self._session = session

    async def get(self, path: str, **query: str) -> Object:
        """Return an object or a list."""
        return await self._request("GET", path, None, "application/json", query)

    async def post(self, path: str, body: Object) -> Object:
        """Create an object."""
        return await self._request("POST", path, body, "application/json", {})

    async def patch(
        self, path: str, body: Object, kind: str = "application/strategic-merge-patch+json", **query: str
    ) -> Object:
        """Patch an object."""
        return await self._request("PATCH", path, body, kind, query)

    async def read_text(self, path: str) -> str:
        """Return a document that is no JSON."""
        async with self._session.get(self._server + path) as answer:
            answer.raise_for_status()
            return await answer.text()

    async def watch(self, path: str, version: str) -> AsyncIterator[Object]:
        """Yield each event from a version on."""
        query = {"watch": "true", "resourceVersion": version}
        async with self._session.get(
            self._server + path, params=query, timeout=aiohttp.ClientTimeout(total=None)
        ) as answer:
            answer.raise_for_status()
            async for line in answer.content:
                yield json.loads(line)

    async def _request(
        self, method: str, path: str, body: Object | None, kind: str, query: dict[str, str]
    ) -> Object:
        data = None if body is None else json.dumps(body, separators=(",", ":"))
        headers = {"Content-Type": kind}
        async with self._session.request(
            method, self._server + path, params=query, data=data, headers=headers
        ) as answer:
            if not answer.ok:
                raise RuntimeError(f"{method} {path}: {answer.status} {(await answer.text())[:500]}")
            found: Object = await answer.json()
            return found


@asynccontextmanager
async def connect(kubeconfig: Path, connections: int = 32) -> AsyncIterator[BareClient]:
    """Open a session with the rights of a kubeconfig; as many connections as the operator has."""
    login = Login.from_kubeconfig(kubeconfig)
    connector = aiohttp.TCPConnector(ssl=login.ssl_context(), limit=connections)
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, read_bufsize=2**22) as session:
        yield BareClient(login.server, session)


class Copies:
    """The writes the operator made for one run, to be made again for others by name."""

    def __init__(self, run: Object, children: list[Object], events: list[Object]) -> None:
        self._run = run["metadata"]["name"]
        self._uid = run["metadata"]["uid"]
        self._status = {key: value for key, value in run["status"].items() if key != "trainer"}
        self._children = [_as_written(child) for child in children]
        self._events = [_as_written(event) for event in events]

    @property
    def writes(self) -> int:
        """How many writes of the operator one run takes."""
        return len(self._children) + 1 + len(self._events)

    async def make_children(self, client: BareClient, run: Object) -> None:
        """Make what the operator makes before and with the Job, one after another as it does."""
        for child in self._children:
            await client.post(_folder(child, run), self._rename(child, run))

    async def tell(self, client: BareClient, run: Object) -> None:
        """Write the status and the events."""
        metadata = run["metadata"]
        body = {
            "apiVersion": run["apiVersion"],
            "kind": run["kind"],
            "metadata": {"name": metadata["name"], "uid": metadata["uid"]},
            "status": self._rename(self._status, run),
        }
        path = f"{RUNS.format(namespace=metadata['namespace'])}/{metadata['name']}/status"
        await client.patch(path, body, "application/apply-patch+yaml", fieldManager="trainwright-operator")
        for event in self._events:
            await client.post(_folder(event, run), self._rename(event, run))

    def _rename(self, body: Object, run: Object) -> Object:
        """Return the body for another run: its names and uids replaced wherever they stand."""
        metadata = run["metadata"]
        text = json.dumps(body).replace(self._uid, metadata["uid"]).replace(self._run, metadata["name"])
        found: Object = json.loads(text)
        if "metadata" in found:
            found["metadata"]["namespace"] = metadata["namespace"]
            found.get("regarding", {}).update(namespace=metadata["namespace"])
        return found


async def copy_run(client: BareClient, namespace: str, name: str) -> Copies:
    """Read what the operator made of a run, so that the same can be written without it."""
    run = await client.get(f"{RUNS.format(namespace=namespace)}/{name}")
    names = {"ConfigMap": f"{name}-plan", "PersistentVolumeClaim": f"{name}-workspace", "Job": f"{name}-1"}
    children = []
    for kind, child in names.items():
        found = await client.get(f"{FOLDERS[kind].format(namespace=namespace)}/{child}")
        children.append(found)
    told = await client.get(FOLDERS["Event"].format(namespace=namespace))
    events = [item for item in told["items"] if item.get("regarding", {}).get("name") == name]
    for event in events:
        event |= {"apiVersion": "events.k8s.io/v1", "kind": "Event"}
    return Copies(run, children, events)


async def for_each(items: Iterable[Object], work: Callable[[Object], Awaitable[Any]], workers: int) -> None:
    """Do the work for every item, for so many at a time."""
    left = iter(items)

    async def take() -> None:
        for item in left:
            await work(item)

    await asyncio.gather(*(take() for _ in range(workers)))


def _folder(body: Object, run: Object) -> str:
    return FOLDERS[body["kind"]].format(namespace=run["metadata"]["namespace"])


def _as_written(found: Object) -> Object:
    """Return an object without what the API server added and would refuse or ignore."""
    body = copy.deepcopy({key: value for key, value in found.items() if key != "status"})
    for field in WRITTEN_BY_SERVER:
        body["metadata"].pop(field, None)
    if body["kind"] == "Job":
        body["metadata"]["labels"] = {
            key: value for key, value in body["metadata"]["labels"].items() if "batch." not in key
        }
        body["spec"].pop("selector", None)
        labels = body["spec"]["template"]["metadata"]["labels"]
        body["spec"]["template"]["metadata"]["labels"] = {
            key: value
            for key, value in labels.items()
            if "controller-uid" not in key and "job-name" not in key
        }
    if body["kind"] == "PersistentVolumeClaim":
        body["metadata"].pop("finalizers", None)
    return body
