"""What the operator remembers of the cluster: never what was, once it has seen what is."""

from __future__ import annotations

from typing import Any

import pytest
from builders import RunBuilder, make_job, make_pod

from trainwright_operator.packed import pack
from trainwright_operator.queue import Key
from trainwright_operator.store import Store

Object = dict[str, Any]
KEY = Key("ml", "parts-1")


def run_at(version: int, uid: str = "", **status: Any) -> Object:
    run = RunBuilder().status(status).build()
    run["metadata"]["resourceVersion"] = str(version)
    run["metadata"]["uid"] = uid or run["metadata"]["uid"]
    return run


def test_a_watch_that_lags_does_not_take_back_what_was_written() -> None:
    store = Store()
    store.keep("TrainingRun", run_at(9, phase="Succeeded"))
    store.keep("TrainingRun", run_at(7, phase="Running"))
    assert store.run(KEY) == run_at(9, phase="Succeeded")


def test_a_list_does_not_take_back_what_was_learned_while_it_was_read() -> None:
    store = Store()
    store.keep("TrainingRun", run_at(9, phase="Succeeded"))
    assert store.replace("TrainingRun", [pack("TrainingRun", run_at(7, phase="Running"))], 8) == set()
    assert store.run(KEY) == run_at(9, phase="Succeeded")


@pytest.mark.parametrize(("version", "kept"), [(8, True), (9, False)])
def test_what_a_list_lacks_is_gone_unless_it_is_newer_than_the_list(version: int, kept: bool) -> None:
    store = Store()
    job = make_job(1)
    job["metadata"]["resourceVersion"] = "9"
    store.keep("TrainingRun", run_at(9))
    store.keep("Job", job)
    for kind in ("TrainingRun", "Job"):
        assert store.replace(kind, [], version) == (set() if kept else {KEY})
    assert (store.run(KEY) is not None) is kept
    assert bool(store.jobs(run_at(9))) is kept


def test_a_list_tells_what_is_new_in_it() -> None:
    store = Store()
    store.keep("TrainingRun", run_at(7))
    same, newer = run_at(7), run_at(8)
    assert store.pack("TrainingRun", same) is store.pack("TrainingRun", same), (
        "what is known is not packed anew"
    )
    assert store.replace("TrainingRun", [store.pack("TrainingRun", same)], 9) == set()
    assert store.replace("TrainingRun", [store.pack("TrainingRun", newer)], 9) == {KEY}
    assert store.keys() == [KEY]


def test_the_list_of_a_namespace_says_nothing_of_the_others() -> None:
    store = Store()
    store.keep("TrainingRun", run_at(7))
    assert store.replace("TrainingRun", [], 9, "elsewhere") == set()
    assert store.keys() == [KEY]
    assert store.replace("TrainingRun", [], 9, "ml") == {KEY}


def test_the_end_of_an_earlier_run_is_not_that_of_the_run_made_since_by_its_name() -> None:
    store = Store()
    store.keep("TrainingRun", run_at(9, uid="second"))
    store.forget("TrainingRun", run_at(8, uid="first"))
    assert store.run(KEY) == run_at(9, uid="second")
    store.keep("TrainingRun", run_at(11, uid="third"))
    assert store.run(KEY) == run_at(11, uid="third")


def test_only_what_is_never_asked_for_is_left_out() -> None:
    store, job, pod = Store(), make_job(1), make_pod(1)
    job["metadata"]["managedFields"] = [{"manager": "somebody"}]
    job["spec"] = {"suspend": True, "template": {"spec": {"containers": [{"name": "trainer"}]}}}
    store.keep("TrainingRun", run_at(1))
    store.keep("Job", job)
    store.keep("Pod", pod | {"spec": pod["spec"] | {"containers": [{"name": "trainer"}]}})
    (kept,) = store.jobs(run_at(1))
    assert kept["spec"] == {"suspend": True}
    assert kept["metadata"] == {k: v for k, v in job["metadata"].items() if k != "managedFields"}
    assert "template" in job["spec"], "what was given is the caller's"
    (kept_pod,) = store.pods(run_at(1), kept)
    assert kept_pod == pod


def test_a_version_is_known_once_it_was_kept() -> None:
    store, job = Store(), make_job(1)
    job["metadata"]["resourceVersion"] = "9"
    assert not store.knows("TrainingRun", run_at(9))
    assert not store.knows("Job", job)
    store.keep("TrainingRun", run_at(9))
    store.keep("Job", job)
    assert store.knows("TrainingRun", run_at(9))
    assert store.knows("Job", job)
    assert not store.knows("TrainingRun", run_at(10))
    assert not store.knows("TrainingRun", run_at(9, uid="made since"))


def test_what_is_deleted_does_not_come_back_with_the_answer_to_a_request_of_ours() -> None:
    store = Store()
    store.keep("TrainingRun", run_at(9))
    store.forget("TrainingRun", run_at(11))
    store.keep("TrainingRun", run_at(10, phase="Running"))  # the answer, which was under way meanwhile
    assert store.run(KEY) is None
    store.keep("TrainingRun", run_at(12, uid="another"))
    store.keep("TrainingRun", run_at(10, phase="Running"))
    assert store.run(KEY) == run_at(12, uid="another")


def test_what_a_list_lacks_does_not_come_back_either() -> None:
    store = Store()
    store.keep("TrainingRun", run_at(9))
    store.replace("TrainingRun", [], 11)
    store.keep("TrainingRun", run_at(10, phase="Running"))
    assert store.run(KEY) is None
