"""Brings one run to where it should be: read what is, decide, make what is missing, write one status."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from trainwright_operator.acceptance import Preparation, prepare
from trainwright_operator.accounts import Accounts, Terms, close_accounts
from trainwright_operator.api import TrainingRunSpec
from trainwright_operator.attempts import Attempt, Observation, begin_attempt
from trainwright_operator.basis import Basis, BasisFinder
from trainwright_operator.children import (
    LeftOverError,
    NameTakenError,
    access_to,
    create_child,
    create_children,
    delete_children,
)
from trainwright_operator.cluster import JOBS, ApiError, Cluster
from trainwright_operator.deadlines import Allowance, Holding, find_limits, hold_next, hold_open, hold_stopped
from trainwright_operator.events import Events
from trainwright_operator.finished import TTL_FIELD, describe_finished, seconds_to_expiry
from trainwright_operator.groups import stage_groups
from trainwright_operator.history import read_history
from trainwright_operator.logs import name_attempt
from trainwright_operator.manifests import PatchRefusedError, attempt_job, shared_children
from trainwright_operator.metrics import Metrics
from trainwright_operator.names import FINAL_PHASES, Phase, Reason
from trainwright_operator.notices import note, targets_of
from trainwright_operator.observing import observe
from trainwright_operator.outbox import Outbox
from trainwright_operator.plan import merge_spec
from trainwright_operator.queue import Key
from trainwright_operator.recently import Recently
from trainwright_operator.remedies import apply_remedies, find_remedies
from trainwright_operator.retries import Action, Decision, decide
from trainwright_operator.settings import OperatorSettings
from trainwright_operator.situation import Acceptance, Situation
from trainwright_operator.stalls import Doubts
from trainwright_operator.status import compute_status, is_final, newest_ending
from trainwright_operator.store import Store

Object = dict[str, Any]

logger = logging.getLogger(__name__)

REFUSALS = (400, 403, 422)  # a child the API server won't have: by its schema, a quota, a policy
ENDS = (Action.SUCCEED, Action.FAIL, Action.REST)
LEFT_OVER_SECONDS = 2  # garbage collection takes seconds
RECHECK_SECONDS = 15  # nothing tells that a missing Secret was made: look again this often


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Reconciler:
    """Reconciles runs, one call for one key; of what it saw it believes little, and for seconds only."""

    cluster: Cluster
    store: Store
    settings: OperatorSettings
    clock: Callable[[], datetime] = _now
    metrics: Metrics = field(default_factory=Metrics)
    recently: Recently = field(default_factory=Recently)
    outbox: Outbox = field(default_factory=Outbox)

    def __post_init__(self) -> None:
        """Find what runs are carried out with by the profiles in the store."""
        self.bases = BasisFinder(self.cluster, self.settings, self.store.profiles)
        self.doubts = Doubts(self.cluster)
        self.events = Events(self.cluster)

    async def reconcile(self, key: Key) -> float | None:
        """Bring the run to where it should be; returns when to look again if nothing happens before."""
        run = self.store.run(key)
        if run is None or run["metadata"].get("deletionTimestamp"):
            self.recently.forget(access_to(key.namespace))  # its namespace may be going, and come again
            return None
        if is_final(run) or await self._has_expired(run):
            return await self._rest(run)
        basis = await self.bases.find(run)
        spec = merge_spec(basis.snapshot.defaults, run["spec"])
        observation = await observe(self.cluster, self.store, run, self.clock(), self.settings.patience)
        accounts = close_accounts(observation, read_history(observation), _terms(spec, basis))
        attempts = accounts.attempts
        groups = stage_groups(spec, attempts)
        pause = self.settings.retry_backoff_seconds
        decision = decide(observation, attempts, _budgets(spec), pause, groups)
        holding = await self._hold(_allow(spec, basis), observation, accounts, decision)
        decision, attempts = holding.decision, holding.attempts
        name_attempt(attempts[-1].number if attempts else 0)
        acceptance: Acceptance | None = None
        if decision.action is Action.START:
            acceptance, attempts = await self._start(run, basis, attempts, decision)
        situation = Situation(
            observation, attempts, decision, acceptance, spent=holding.spent, accounts=accounts
        )
        overtaken = await self._write(situation)
        if decision.action in (Action.STOP, Action.RETIRE):  # why is written, and a lost pod named no more
            await self._stop(observation, attempts[-1])
        if overtaken:
            return 0
        if decision.action in ENDS:
            return await self._seconds_at_rest(key)
        if acceptance is not None and not acceptance.accepted:
            return LEFT_OVER_SECONDS if acceptance.reason is Reason.LEFT_OVER else RECHECK_SECONDS
        return decision.wait_seconds

    async def _hold(
        self, allowance: Allowance, observation: Observation, accounts: Accounts, decision: Decision
    ) -> Holding:
        """Keep the run within its deadlines and its budget."""
        attempts, now = accounts.attempts, observation.now
        if decision.action is Action.START and attempts:
            return hold_next(decision, attempts, allowance, accounts.usage)
        if decision.action is Action.STOP:
            return hold_stopped(decision, attempts)
        if decision.action is not Action.WAIT or attempts[-1].outcome:
            return Holding(decision, attempts)
        limits = find_limits(allowance, accounts, newest_ending(observation, attempts).report)
        if attempts[-1].ending is None:
            limits = await self.doubts.weigh(observation.run, limits, allowance.stalled, now)
        return hold_open(decision, attempts, limits, now)

    async def _start(
        self, run: Object, basis: Basis, attempts: list[Attempt], decision: Decision
    ) -> tuple[Acceptance, list[Attempt]]:
        """Make the next attempt's Job, and before it all that it needs; or say everything against it."""
        preparation: Preparation = await prepare(self.cluster, self.settings, self.recently, run, basis)
        plan, spec = preparation.plan, preparation.spec
        if plan is None or spec is None:
            return preparation.acceptance, attempts
        try:
            remedies = find_remedies(attempts, run, spec, plan)
            made_from = apply_remedies(spec, remedies)
            body = attempt_job(run, made_from, plan, basis.snapshot, decision.key, remedies.adjustments)
            shared = shared_children(run, spec, plan, basis.snapshot)
            await create_children(self.cluster, self.recently, run, shared)
            job = await create_child(self.cluster, run, body)
        except PatchRefusedError as error:
            return Acceptance(tuple(error.problems), Reason.NOT_ALLOWED), attempts
        except NameTakenError as error:
            return Acceptance((str(error),), Reason.NAME_TAKEN), attempts
        except LeftOverError as error:
            return Acceptance((str(error),), Reason.LEFT_OVER), attempts
        except ApiError as error:
            if error.status not in REFUSALS:
                raise
            return Acceptance(
                (f"the API server refuses what the run needs: {error}",), Reason.REFUSED
            ), attempts
        self.store.keep("Job", job)
        self.store.profiles.remember(basis.snapshot)
        return preparation.acceptance, [*attempts, begin_attempt(job)]

    async def _stop(self, observation: Observation, attempt: Attempt) -> None:
        job = observation.jobs.get(attempt.job)
        if job and not job["metadata"].get("deletionTimestamp"):
            metadata = job["metadata"]
            await self.cluster.delete(JOBS, metadata["namespace"], metadata["name"], metadata["uid"])

    async def _write(self, situation: Situation) -> bool:
        """Write the status if it says anything new; return whether others changed the run meanwhile.

        The answer to our write tells of their changes first, and its event is none we wait for.
        """
        run = situation.observation.run
        targets = targets_of({**self.settings.defaults, **run["spec"]})
        status = note(compute_status(situation), targets, self.outbox.outcomes(run), self.clock())
        before = {key: value for key, value in (run.get("status") or {}).items() if key != "trainer"}
        if status == before:
            self.outbox.written(run, targets)
            return False
        written = await self.cluster.apply_status(run, status)
        self.store.keep("TrainingRun", written)
        self.outbox.written(written, targets)
        observed = situation.observation, situation.attempts
        self.metrics.count_change(before, status, lambda: newest_ending(*observed).report)
        await self.events.announce(run, before, status)
        return _others_part(written) != _others_part(run)

    async def _seconds_at_rest(self, key: Key) -> float | None:
        """Return when the children of a run that may have ended just now are to be deleted."""
        run = self.store.run(key)
        if run is None or (run.get("status") or {}).get("phase") not in FINAL_PHASES:
            return None
        return await self._seconds_to_expiry(run, self.clock())

    async def _seconds_to_expiry(self, run: Object, now: datetime) -> float | None:
        """Return the same; what a profile says is read only for a run that leaves it open."""
        decided = TTL_FIELD in run["spec"] or "childrenDeletedTime" in run["status"]
        defaults = {} if decided else (await self.bases.find(run)).snapshot.defaults
        return seconds_to_expiry(run, defaults, now)

    async def _has_expired(self, run: Object) -> bool:
        """Whether the time of a failed run's workspace is over: then a retry has nothing to go on from."""
        if (run.get("status") or {}).get("phase") != Phase.FAILED:
            return False
        left = await self._seconds_to_expiry(run, self.clock())
        return left is not None and left <= 0

    async def _rest(self, run: Object) -> float | None:
        """Look after a finished run; returns when its children are to be deleted, if there are any."""
        now = self.clock()
        left = await self._seconds_to_expiry(run, now)
        due = left is not None and left <= 0
        if due:
            await delete_children(self.cluster, run, self.store.jobs(run))
        before = {key: value for key, value in run["status"].items() if key != "trainer"}
        # Not those of the settings: new ones would be told of every run that ever ended.
        named, all_named = targets_of(run["spec"]), targets_of({**self.settings.defaults, **run["spec"]})
        status = describe_finished(run, now, deleted=due)
        status = note(status, named, self.outbox.outcomes(run), now)
        if status == before:
            self.outbox.written(run, all_named)
        else:
            written = await self.cluster.apply_status(run, status)
            self.store.keep("TrainingRun", written)
            self.outbox.written(written, all_named)
            await self.events.announce(run, before, status)
        return None if due else left


def _others_part(run: Object) -> tuple[Any, ...]:
    """Return what in a run is not the operator's, and matters to it."""
    metadata = run["metadata"]
    return metadata["generation"], metadata.get("deletionTimestamp"), (run.get("status") or {}).get("trainer")


def _allow(spec: TrainingRunSpec, basis: Basis) -> Allowance:
    return Allowance.of(spec, basis.snapshot.price_per_gpu_hour, basis.snapshot.bounds.active_seconds)


def _terms(spec: TrainingRunSpec, basis: Basis) -> Terms:
    workspace = spec.compute.workspace if spec.compute else None
    keeps = workspace is None or workspace.empty_dir is None
    return Terms(basis.snapshot.price_per_gpu_hour, keeps)


def _budgets(spec: TrainingRunSpec) -> dict[str, int]:
    return spec.retry.model_dump(by_alias=True, exclude_none=True) if spec.retry else {}
