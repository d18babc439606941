"""What the next attempt does differently, for what an earlier one failed by."""

from __future__ import annotations

from typing import Any

import pytest
from builders import RunBuilder

from trainwright.contract import Adjustments, Cause
from trainwright_operator.attempts import Attempt
from trainwright_operator.events import describe_changes
from trainwright_operator.names import AttemptOutcome
from trainwright_operator.plan import merge_spec, resolve_plan
from trainwright_operator.remedies import Remedies, apply_remedies, find_remedies, keep_away

Object = dict[str, Any]


def failed(number: int, cause: Cause, node: str = "node-a", **fields: Any) -> Attempt:
    known: Object = {"start_time": "2026-01-02T03:04:05Z", "outcome": AttemptOutcome.FAILED} | fields
    return Attempt(number=number, job=f"parts-1-{number}", node=node, cause=cause, **known)


def remedies_for(
    *attempts: Attempt, compute: Object | None = None, workers: int = 24, **spec: Any
) -> Remedies:
    training = {"batchSize": 11, "workers": workers, "imageSize": 1280}
    run = RunBuilder().spec(training=training, compute=compute or {}, **spec).build()
    merged = merge_spec({}, run["spec"])
    plan = resolve_plan(run, merged, None).plan
    assert plan is not None
    return find_remedies(attempts, run, merged, plan)


def test_a_first_attempt_and_one_after_a_preemption_are_as_planned() -> None:
    assert remedies_for() == Remedies()
    assert remedies_for(failed(1, Cause.PREEMPTED)) == Remedies()


def test_an_attempt_after_the_gpu_ran_out_of_memory_has_half_the_batch_and_so_have_those_after_it() -> None:
    assert remedies_for(failed(1, Cause.CUDA_OOM)).adjustments == Adjustments(batch_size=5)
    half = Adjustments(batch_size=5)
    assert remedies_for(failed(2, Cause.PREEMPTED, adjustments=half)).adjustments == half
    quarter = remedies_for(failed(2, Cause.CUDA_OOM, adjustments=half)).adjustments
    assert quarter == Adjustments(batch_size=2)
    least = Adjustments(batch_size=1)
    assert remedies_for(failed(3, Cause.CUDA_OOM, adjustments=least)).adjustments == least


def test_an_attempt_after_the_container_ran_out_of_memory_has_half_the_workers() -> None:
    assert remedies_for(failed(1, Cause.HOST_OOM)).adjustments == Adjustments(workers=12)
    one = Adjustments(workers=1, batch_size=5)
    assert remedies_for(failed(2, Cause.HOST_OOM, adjustments=one)).adjustments == Adjustments(
        workers=0, batch_size=5
    )


def test_where_there_are_no_workers_nothing_is_said_to_be_adjusted() -> None:
    assert remedies_for(failed(1, Cause.HOST_OOM), workers=0) == Remedies()


@pytest.mark.parametrize(
    ("compute", "expected"),
    [
        ({"sharedMemory": "1Gi"}, Adjustments(shared_memory="2048Mi")),
        (
            {"sharedMemory": "1Gi", "resources": {"limits": {"memory": "3Gi"}}},
            Adjustments(shared_memory="1536Mi"),
        ),
        ({"sharedMemory": "2Gi", "resources": {"limits": {"memory": "3Gi"}}}, Adjustments(workers=12)),
        ({}, Adjustments(shared_memory="10028Mi")),
    ],
    ids=["no limit", "as far as the limit allows", "no room: fewer workers", "computed"],
)
def test_shared_memory_that_ran_full_is_enlarged_within_the_memory_limit(
    compute: Object, expected: Adjustments
) -> None:
    assert remedies_for(failed(1, Cause.SHM_EXHAUSTED), compute=compute).adjustments == expected


def test_a_node_with_a_broken_gpu_is_never_used_again_one_that_was_lost_only_if_no_other_has_room() -> None:
    history = [
        failed(1, Cause.GPU_FAULT, "node-a"),
        failed(2, Cause.NODE_LOST, "node-b"),
        failed(3, Cause.HANG, "node-c"),
        failed(4, Cause.NETWORK, "node-d"),
    ]
    found = remedies_for(*history)
    assert set(found.excluded) == {"node-a"}
    assert set(found.avoided) == {"node-b", "node-c"}


def test_what_a_person_asks_for_anew_is_tried_on_every_node() -> None:
    broken = failed(1, Cause.GPU_FAULT)
    suspended = Attempt(2, "parts-1-2", "2026-01-02T03:04:05Z", outcome=AttemptOutcome.STOPPED)
    assert remedies_for(broken).excluded == ("node-a",)
    assert remedies_for(broken, suspended).excluded == ()
    assert remedies_for(broken, retryRequest="again").excluded == ()


def test_nodes_are_excluded_beside_the_runs_own_affinity_in_each_of_its_terms() -> None:
    zone = {"key": "zone", "operator": "In", "values": ["a"]}
    terms = [{"matchExpressions": [zone]}, {"matchFields": [{"key": "metadata.name"}]}]
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    own = {"nodeAffinity": {required: {"nodeSelectorTerms": terms}}, "podAffinity": {"x": 1}}
    without = {"key": "metadata.name", "operator": "NotIn", "values": ["node-a"]}
    changed = keep_away(own, ["node-a"], [])
    assert changed["podAffinity"] == {"x": 1}
    assert changed["nodeAffinity"][required]["nodeSelectorTerms"] == [
        {"matchExpressions": [zone], "matchFields": [without]},
        {"matchFields": [{"key": "metadata.name"}, without]},
    ]
    assert own["nodeAffinity"][required]["nodeSelectorTerms"] == terms
    assert keep_away({}, ["node-a"], [])["nodeAffinity"][required]["nodeSelectorTerms"] == [
        {"matchFields": [without]}
    ]


def test_nodes_are_avoided_by_a_preference() -> None:
    (term,) = keep_away({}, [], ["node-b"])["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert term["preference"]["matchFields"][0]["values"] == ["node-b"]


def test_the_spec_itself_stays_as_it_is() -> None:
    spec = merge_spec({}, RunBuilder().build()["spec"])
    assert apply_remedies(spec, Remedies()) is spec
    changed = apply_remedies(spec, Remedies(Adjustments(shared_memory="2048Mi"), ("node-a",)))
    assert changed.compute is not None
    assert changed.compute.shared_memory == "2048Mi"
    assert spec.compute is None or spec.compute.shared_memory is None


def test_an_event_tells_that_training_goes_on_otherwise_than_asked_for_and_why() -> None:
    first = {"number": 1, "job": "parts-1-1", "outcome": "Failed", "cause": "CudaOOM"}
    second = {"number": 2, "job": "parts-1-2", "adjustments": {"batchSize": 5}}
    before = {"attempts": [first], "phase": "Pending"}
    told = describe_changes(before, {"attempts": [first, second], "phase": "Pending"})
    note = "attempt 2 goes on with batchSize 5, as attempt 1 failed for cause CudaOOM"
    assert ("Warning", "Adjusted", note) in told
    third = second | {"number": 3, "job": "parts-1-3"}
    after = {"attempts": [first, second, third], "phase": "Pending"}
    assert [change[1] for change in describe_changes(before, after)] == ["AttemptStarted"]
