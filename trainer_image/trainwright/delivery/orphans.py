"""What crashed and losing runs of a model left on the CDN: found and removed by its next run.

A big part may be removed only if nobody can be using it and nobody can still be about to commit it:
- it is older than any publishing takes, by the CDN's own clock;
- no pointer names it;
- and its version is published with other parts, or its own small part was never committed.
A run that comes back after longer than that finds its part missing after the commit and uploads it again.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from trainwright.delivery.cdn import Cdn
from trainwright.delivery.pointers import Pointer, name_pointer, split_big_name
from trainwright.delivery.resource_api import FileMissingError, ResourceApi
from trainwright.errors import StepError

LOG = logging.getLogger(__name__)

IN_FLIGHT = timedelta(hours=24)
"""A part younger than this may belong to a run that is still publishing."""


def remove_orphans(
    model: str, folder: str, api: ResourceApi, cdn: Cdn, *, in_flight: timedelta = IN_FLIGHT
) -> list[str]:
    """Remove a model's orphans and return their keys; a failure is logged and never fails a publishing.

    Whatever can't be found out for certain stays.
    """
    removed: list[str] = []
    try:
        _remove(model, folder, api, cdn, in_flight, removed)
    except StepError as error:
        LOG.warning("orphans of %s were not all removed: %s", model, error)
    return removed


def _remove(  # noqa: PLR0913, PLR0917 - two servers and what to look for on them
    model: str, folder: str, api: ResourceApi, cdn: Cdn, in_flight: timedelta, removed: list[str]
) -> None:
    prefix = f"{folder}/{model}."
    before = cdn.read_clock(prefix) - in_flight
    removed.extend(cdn.abort_uploads(prefix, before))
    current = _read_file_id(api, folder, name_pointer(model))
    for item in list(cdn.list_objects(prefix)):
        parts = split_big_name(item.key.removeprefix(f"{folder}/"))
        if parts is None or parts[0] != model or parts[2] == current or item.modified >= before:
            continue
        if _is_orphan(model, parts[1], parts[2], folder, api):
            cdn.delete(item.key)
            removed.append(item.key)
            LOG.info("removed %s, which no version of %s uses", item.key, model)


def _is_orphan(model: str, version: str, file_id: str, folder: str, api: ResourceApi) -> bool:
    published = _read_file_id(api, folder, name_pointer(model, version))
    if published is not None:
        return published != file_id
    return not api.exists(folder, f"{model}.{version}.{file_id}.small")


def _read_file_id(api: ResourceApi, folder: str, name: str) -> str | None:
    try:
        return Pointer.from_text(api.read_text(folder, name), name=name).file_id
    except FileMissingError:
        return None
