"""What is to be told of a run, to whom, and what was: kept in its status. Pure.

A notice is written with the very status that enters its phase, so that no crash forgets one, and says of each
address whether it was told, so that none is told twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from trainwright_operator.names import Phase
from trainwright_operator.times import format_time

Object = dict[str, Any]

KEPT = 5
PENDING, SENT, FAILED = "Pending", "Sent", "Failed"
MOST_METRICS = 12


@dataclass(frozen=True)
class Target:
    """An address that a run names by Secret and key, and the phases it is told of."""

    secret: str
    key: str
    on: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Its name in a status."""
        return hashlib.sha256(f"{self.secret}/{self.key}".encode()).hexdigest()[:8]


class Delivery(NamedTuple):
    """One notice for one address."""

    notice: str
    target: str


Outcomes = Mapping[Delivery, str]


def targets_of(spec: Mapping[str, Any]) -> list[Target]:
    """Return the addresses in a spec as it is written."""
    return [
        Target(entry["urlFrom"]["secretName"], entry["urlFrom"]["key"], tuple(entry["on"]))
        for entry in spec.get("notify") or ()
    ]


def note(status: Object, targets: Sequence[Target], outcomes: Outcomes, now: datetime) -> Object:
    """Return the status with a notice of its phase for who wants one, and with what became of earlier ones.

    Whoever is not yet told of the phase the run is in will be, also an address that was added since.
    """
    notices = [_settle(notice, outcomes) for notice in status.get("notices", ())]
    wanted = {target.digest for target in targets if status["phase"] in target.on}
    newest = notices[-1] if notices else {}
    if (newest.get("phase"), newest.get("attempt")) == (status["phase"], status["attempt"]):
        notices[-1] = newest | {"told": dict.fromkeys(sorted(wanted), PENDING) | newest["told"]}
    elif wanted:
        told = dict.fromkeys(sorted(wanted), PENDING)
        entered = {"phase": status["phase"], "attempt": status["attempt"], "time": format_time(now)}
        notices.append({**entered, "told": told})
    for notice in notices:
        # More than four were named one after the other: the first ones are settled and forgotten.
        notice["told"] = dict(list(notice["told"].items())[-4:])
    return status | {"notices": notices[-KEPT:]} if notices else status


def identify(notice: Object) -> str:
    """Return what tells a notice from the others of its run."""
    return f"{notice['phase']}-{notice['attempt']}-{notice['time']}"


def pending(status: Object, targets: Sequence[Target]) -> list[tuple[Object, Target]]:
    """Return what is still to be told; an address that is not named any more is told nothing."""
    return [
        (notice, target)
        for notice in status.get("notices", ())
        for target in targets
        if notice["told"].get(target.digest) == PENDING
    ]


def compose(run: Object, notice: Object) -> Object:
    """Return the message of a notice: what it says, and what a program reads in it."""
    status, metadata = run["status"], run["metadata"]
    name = f"{metadata['namespace']}/{metadata['name']}"
    facts: Object = {
        "run": metadata["name"],
        "namespace": metadata["namespace"],
        "uid": metadata["uid"],
        "phase": notice["phase"],
        "attempt": notice["attempt"],
        "time": notice["time"],
    }
    if model := status.get("model"):
        facts["model"] = {key: model[key] for key in ("name", "version", "digest") if key in model}
    if notice["phase"] == Phase.SUCCEEDED and (metrics := status.get("metrics")):
        facts["metrics"] = dict(list(metrics.items())[:MOST_METRICS])
    if notice["phase"] == Phase.FAILED and (failure := status.get("failure")):
        known = ("stage", "cause", "message", "hint")
        facts["failure"] = {key: failure[key] for key in known if key in failure}
    identifier = f"{metadata['uid']}-{identify(notice)}"
    title = f"Training {name}: {notice['phase']}"
    return {"id": identifier, "title": title, "text": _describe(facts, identifier), "facts": facts}


def _describe(facts: Object, identifier: str) -> str:
    lines = [f"Run {facts['namespace']}/{facts['run']} is {facts['phase']} (attempt {facts['attempt']})."]
    if model := facts.get("model"):
        lines.append(f"Model: {model.get('name')} {model.get('version')}")
    if metrics := facts.get("metrics"):
        lines.append("Metrics: " + ", ".join(f"{key} {number:.4g}" for key, number in metrics.items()))
    if failure := facts.get("failure"):
        lines.append(f"Cause: {failure['cause']}: {failure['message']}")
        if failure.get("hint"):
            lines.append(f"What to do: {failure['hint']}")
    return "\n".join([*lines, f"({identifier})"])


def _settle(notice: Object, outcomes: Outcomes) -> Object:
    known = identify(notice)
    told = {digest: outcomes.get(Delivery(known, digest), was) for digest, was in notice["told"].items()}
    return notice | {"told": told}
