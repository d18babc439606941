"""What the operator counts and measures, for Prometheus; no label names a run, so that series stay few."""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from trainwright.contract import Outcome, RunReport
from trainwright_operator.names import AttemptOutcome, JobKey, Phase
from trainwright_operator.queue import Key, Reconcile, WorkQueue
from trainwright_operator.store import Store

Object = dict[str, Any]

STAGE_BUCKETS = (1, 10, 60, 300, 900, 3600, 14400, 43200, 86400, 259200, 604800)  # a second to a week
GPU_FIGURES = {
    "useful": "useful",
    "lostToPreemption": "lost_to_preemption",
    "lostToFailure": "lost_to_failure",
    "lostToSuspension": "lost_to_suspension",
}
"""The figures of a run's usage, and the label each is counted under."""

RECONCILE_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)


class Metrics:
    """All metrics of one operator, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._attempts = Counter(
            "trainwright_attempts_ended",
            "Attempts that ended since the operator started; `cause` is empty for one that did not fail.",
            ("outcome", "cause"),
            registry=self.registry,
        )
        self._stages = Histogram(
            "trainwright_stage_seconds",
            "Seconds each stage took, of runs that succeeded since the operator started.",
            ("stage",),
            buckets=STAGE_BUCKETS,
            registry=self.registry,
        )
        self._gpu_seconds = Counter(
            "trainwright_gpu_seconds",
            "GPU-seconds of pods that ended since the operator started, by what became of their work.",
            ("kind",),
            registry=self.registry,
        )
        self._queues = Histogram(
            "trainwright_queue_seconds",
            "Seconds a Job waited until its container ran.",
            buckets=STAGE_BUCKETS,
            registry=self.registry,
        )
        self._reconciles = Histogram(
            "trainwright_reconcile_seconds",
            "Seconds it took to look at a run and act.",
            buckets=RECONCILE_BUCKETS,
            registry=self.registry,
        )
        self._errors = Counter(
            "trainwright_reconcile_errors",
            "Looks at a run that ended in an error, and are repeated.",
            registry=self.registry,
        )
        self._requests = Counter(
            "trainwright_api_requests",
            "Requests to the API server, the watches' aside; status 0 is one without an answer.",
            ("method", "status"),
            registry=self.registry,
        )
        self._notifications = Counter(
            "trainwright_notifications",
            "Tries to send a notification: sent, tried again later, or given up.",
            ("result",),
            registry=self.registry,
        )

    def count_notification(self, result: str) -> None:
        """Count a try to send a notification."""
        self._notifications.labels(result).inc()

    def observe(
        self, store: Store, queue: WorkQueue, ages: Callable[[], dict[str, float]], leads: Callable[[], bool]
    ) -> None:
        """Have every scrape ask these what holds at that moment."""
        self.registry.register(_Moment(store, queue, ages, leads))

    def count_request(self, method: str, status: int) -> None:
        """Count a request to the API server."""
        self._requests.labels(method, status).inc()

    def count_change(
        self, before: Object, after: Object, last_report: Callable[[], RunReport | None]
    ) -> None:
        """Count the attempts that a run's status says have ended, and the status before it did not.

        An attempt's last report tells of all stages, those of earlier attempts too: stages are counted once,
        when the run has succeeded.
        """
        self._count_usage(before, after)
        known = {_key(attempt): "outcome" in attempt for attempt in before.get("attempts", ())}
        oldest = min((number for number, _ in known), default=0)
        for attempt in after["attempts"]:
            # One older than all the status had was cut off there, and counted when it ended.
            if "outcome" not in attempt or known.get(_key(attempt), attempt["number"] < oldest):
                continue
            self._attempts.labels(attempt["outcome"], attempt.get("cause", "")).inc()
            if attempt["outcome"] != AttemptOutcome.SUCCEEDED:
                continue
            report = last_report()
            if report and report.outcome is not Outcome.GROUP_DONE:
                for stage, seconds in report.finished_stages.items():
                    self._stages.labels(stage).observe(seconds)

    def _count_usage(self, before: Object, after: Object) -> None:
        old, new = before.get("usage", {}), after.get("usage", {})
        grown = {figure: new[figure] - old.get(figure, 0) for figure in GPU_FIGURES if figure in new}
        for figure, seconds in grown.items():
            self._gpu_seconds.labels(GPU_FIGURES[figure]).inc(max(seconds, 0))
        started, known = after.get("currentPod") or {}, before.get("currentPod") or {}
        is_known = "startTime" in known and known["uid"] == started.get("uid")
        if "startTime" in started and not is_known:
            self._queues.observe(new["queuedSeconds"] - old.get("queuedSeconds", 0))

    def measure(self, reconcile: Reconcile) -> Reconcile:
        """Return the same reconcile, timed, and its errors counted."""

        async def measured(key: Key) -> float | None:
            start = time.perf_counter()
            try:
                with self._errors.count_exceptions():
                    return await reconcile(key)
            finally:
                self._reconciles.observe(time.perf_counter() - start)

        return measured

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


def _key(attempt: Object) -> JobKey:
    return JobKey(attempt["number"], attempt.get("group"))


class _Moment(Collector):
    """What is read when it is asked for: nothing has to keep it up to date."""

    def __init__(
        self, store: Store, queue: WorkQueue, ages: Callable[[], dict[str, float]], leads: Callable[[], bool]
    ) -> None:
        self._store = store
        self._queue = queue
        self._ages = ages
        self._leads = leads

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauges."""
        phases = Tally(phase or Phase.PENDING for phase in self._store.phases())
        runs = GaugeMetricFamily("trainwright_runs", "Runs there are, by phase.", labels=["phase"])
        for phase in Phase:
            runs.add_metric([phase], phases[phase])
        yield runs
        yield GaugeMetricFamily(
            "trainwright_queue_depth", "Runs that wait to be looked at.", value=self._queue.depth
        )
        ages = GaugeMetricFamily(
            "trainwright_watch_age_seconds",
            "Seconds since the watch of a kind last heard anything, if only that nothing happened.",
            labels=["kind"],
        )
        for kind, age in self._ages().items():
            ages.add_metric([kind], age)
        yield ages
        yield GaugeMetricFamily(
            "trainwright_queue_longest_work_seconds",
            "Seconds the slowest look at a run that goes on has taken so far.",
            value=self._queue.longest_work,
        )
        yield GaugeMetricFamily(
            "trainwright_leader", "1 of the operator that acts, 0 of one that waits.", value=self._leads()
        )
