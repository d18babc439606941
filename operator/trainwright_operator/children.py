"""Makes child objects: by POST, so that an object somebody else made is never adopted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any

from trainwright_operator.cluster import CLAIMS, JOBS, KINDS, AlreadyExistsError, Cluster
from trainwright_operator.manifests import trainer_access
from trainwright_operator.names import API_VERSION, PLAN_DIGEST_ANNOTATION, RUN_KIND, workspace_name
from trainwright_operator.packed import controller_uid, find_controller
from trainwright_operator.recently import Recently

Object = dict[str, Any]


class NameTakenError(Exception):
    """An object of a child's name exists and is not this run's."""


class LeftOverError(Exception):
    """An object of a child's name is being deleted, or about to be: wait until it is gone."""


async def create_children(cluster: Cluster, recently: Recently, run: Object, bodies: list[Object]) -> None:
    """Make what all attempts share: the trainers' access, and what else is given."""
    namespace = run["metadata"]["namespace"]
    makings = [create_child(cluster, run, body) for body in bodies]
    if recently.holds(access_to(namespace)):
        await _make_all(*makings)
        return
    await _make_all(*(_create_shared(cluster, item) for item in trainer_access(namespace)), *makings)
    recently.note(access_to(namespace))


async def _make_all(*makings: Awaitable[object]) -> None:
    """Make objects that don't need each other at the same time; tells of every name that is taken."""
    outcomes = await asyncio.gather(*makings, return_exceptions=True)
    errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    taken = [str(error) for error in errors if isinstance(error, NameTakenError)]
    if errors:
        raise NameTakenError("; ".join(taken)) if taken else errors[0]


async def delete_children(cluster: Cluster, run: Object, jobs: Iterable[Object]) -> None:
    """Delete a finished run's Jobs, with their pods, and its workspace; the plan stays as a record."""
    namespace = run["metadata"]["namespace"]
    for job in jobs:
        await cluster.delete(JOBS, namespace, job["metadata"]["name"], job["metadata"]["uid"])
    claim = await cluster.get(CLAIMS, namespace, workspace_name(run["metadata"]["name"]))
    if claim is not None and controller_uid(claim) == run["metadata"]["uid"]:
        await cluster.delete(CLAIMS, namespace, claim["metadata"]["name"], claim["metadata"]["uid"])


def access_to(namespace: str) -> str:
    """Return the name of the fact that a namespace's trainers have their access."""
    return f"access to {namespace}"


async def create_child(cluster: Cluster, run: Object, body: Object) -> Object:
    """Make a child and return it; one that an earlier call made from the same plan is returned as it is."""
    try:
        return await cluster.create(body)
    except AlreadyExistsError:
        found = await _get_existing(cluster, body)
    if found["metadata"].get("deletionTimestamp") or _is_of_an_earlier_run(found, run):
        raise LeftOverError(f"{_name(body)} is still being deleted")
    if controller_uid(found) != run["metadata"]["uid"]:
        raise NameTakenError(
            f"{_name(body)} exists and is not this run's: delete it, or give the run another name"
        )
    wanted = body["metadata"]["annotations"][PLAN_DIGEST_ANNOTATION]
    made_from = found["metadata"].get("annotations", {}).get(PLAN_DIGEST_ANNOTATION)
    # Anybody can write an annotation and name an owner: what a ConfigMap says is compared itself.
    if made_from != wanted or found.get("data") != body.get("data"):
        raise NameTakenError(
            f"{_name(body)} was made from another plan than the run's: delete it, or make a new run"
        )
    return found


def _is_of_an_earlier_run(found: Object, run: Object) -> bool:
    """Whether the controller had the run's kind and name: it is gone, and garbage collection will follow."""
    owner = find_controller(found) or {}
    named = (owner.get("apiVersion"), owner.get("kind"), owner.get("name"))
    same_name = named == (API_VERSION, RUN_KIND, run["metadata"]["name"])
    return same_name and owner.get("uid") != run["metadata"]["uid"]


async def _create_shared(cluster: Cluster, body: Object) -> None:
    """Make an object that all runs of a namespace share; one that grants something else is not used."""
    try:
        await cluster.create(body)
    except AlreadyExistsError:
        found = await _get_existing(cluster, body)
        for field in ("roleRef", "subjects"):
            if found.get(field) != body.get(field):
                raise NameTakenError(
                    f"{_name(body)} exists with another {field}: delete it, and it is made as it must be"
                ) from None


async def _get_existing(cluster: Cluster, body: Object) -> Object:
    metadata = body["metadata"]
    found = await cluster.get(KINDS[body["kind"]], metadata["namespace"], metadata["name"])
    if found is None:
        raise LeftOverError(f"{_name(body)} was deleted just now")
    return found


def _name(body: Object) -> str:
    return f"{body['kind']} {body['metadata']['name']!r}"
