"""Objects as the store keeps them: what is never asked for left out, the rest compressed.

An object of a few kilobytes takes ten times as much as Python's dictionaries, and there may be thousands.
"""

from __future__ import annotations

import sys
import zlib
from dataclasses import dataclass
from typing import Any

import orjson

from trainwright_operator.names import PROFILE_KIND, RUN_KIND, RUN_LABEL
from trainwright_operator.queue import Key

Object = dict[str, Any]

BULK = {"Job": ("template",), "Pod": ("volumes", "containers", "initContainers")}
"""What is large in the specification of a child and never asked for: we wrote it, and it does not change."""

FASTEST = 1  # of zlib's levels: the others save a tenth more, and take twice the time


@dataclass(frozen=True, slots=True)
class Packed:
    """One version of an object, and what is asked of it without unpacking."""

    key: Key | None  # of the run it is, or belongs to
    name: str
    uid: str
    version: int
    controller: str | None
    phase: str | None
    profile: str | None  # that a run names: kind and name
    content: bytes

    def unpack(self) -> Object:
        """Return the object, without its bulk."""
        item: Object = orjson.loads(zlib.decompress(self.content))
        return item


def pack(kind: str, item: Object) -> Packed:
    """Return the object as it is kept; the one that was given stays as it is."""
    metadata = item["metadata"]
    short = item | {"metadata": {key: value for key, value in metadata.items() if key != "managedFields"}}
    if kind in BULK and "spec" in item:
        short["spec"] = {key: value for key, value in item["spec"].items() if key not in BULK[kind]}
    return Packed(
        key=run_key(kind, item),
        name=metadata["name"],
        uid=metadata["uid"],
        version=int(metadata.get("resourceVersion", 0)),
        controller=controller_uid(item),
        phase=(item.get("status") or {}).get("phase"),
        profile=_profile(item) if kind == RUN_KIND else None,
        content=zlib.compress(orjson.dumps(short), FASTEST),
    )


def run_key(kind: str, item: Object) -> Key | None:
    """Return the key of the run that an object is, or belongs to."""
    metadata = item["metadata"]
    run = metadata["name"] if kind == RUN_KIND else metadata.get("labels", {}).get(RUN_LABEL)
    return Key(metadata["namespace"], run) if run else None


def profile_word(kind: str, name: str) -> str:
    """Return kind and name of a profile as one word, kept once however many runs name it."""
    return sys.intern(f"{kind}/{name}")


def _profile(run: Object) -> str | None:
    named = run["spec"].get("profile")
    return profile_word(named.get("kind", PROFILE_KIND), named["name"]) if named else None


def find_controller(item: Object) -> Object | None:
    """Return the reference to the object that controls this one."""
    owners: list[Object] = item["metadata"].get("ownerReferences", [])
    return next((owner for owner in owners if owner.get("controller")), None)


def controller_uid(item: Object) -> str | None:
    """Return the uid of the object that controls this one."""
    owner = find_controller(item)
    return str(owner["uid"]) if owner else None
