"""What is told of a run, to whom and how often, whatever its status was written from before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from builders import RunBuilder

from trainwright_operator.notices import Delivery, Target, compose, identify, note, pending, targets_of

Object = dict[str, Any]
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CHAT = Target("chat", "url", ("Running", "Succeeded", "Failed"))
MAIL = Target("mail", "url", ("Failed",))


def status(phase: str, attempt: int = 1, before: Object | None = None) -> Object:
    return {"phase": phase, "attempt": attempt, "notices": (before or {}).get("notices", ())}


def waiting(known: Object, *targets: Target) -> list[tuple[str, str]]:
    return [(notice["phase"], target.secret) for notice, target in pending(known, targets)]


def settled(known: Object, outcome: str = "Sent") -> dict[Delivery, str]:
    return {
        Delivery(identify(notice), target.digest): outcome for notice, target in pending(known, [CHAT, MAIL])
    }


def test_a_phase_is_told_to_those_who_want_it_and_to_no_others() -> None:
    succeeded = note(status("Succeeded"), [CHAT, MAIL], {}, NOW)
    assert waiting(succeeded, CHAT, MAIL) == [("Succeeded", "chat")]
    assert "notices" not in note({"phase": "Pending", "attempt": 0}, [CHAT, MAIL], {}, NOW)


def test_what_was_sent_or_given_up_is_pending_no_more() -> None:
    known = note(status("Failed"), [CHAT, MAIL], {}, NOW)
    outcomes = settled(known)
    assert len(outcomes) == 2
    for outcome in ("Sent", "Failed"):
        after = note(status("Failed", before=known), [CHAT, MAIL], settled(known, outcome), NOW)
        assert waiting(after, CHAT, MAIL) == []
        assert set(after["notices"][0]["told"].values()) == {outcome}


def test_the_same_status_again_makes_no_second_notice() -> None:
    once = note(status("Failed"), [CHAT], {}, NOW)
    again = note(status("Failed", before=once), [CHAT], {}, NOW + timedelta(minutes=1))
    assert again == once


def test_an_earlier_phase_that_could_not_be_told_yet_is_not_forgotten() -> None:
    running = note(status("Running"), [CHAT], {}, NOW)
    done = note(status("Succeeded", before=running), [CHAT], {}, NOW)
    assert waiting(done, CHAT) == [("Running", "chat"), ("Succeeded", "chat")]


def test_each_attempt_is_told_of() -> None:
    known = note(status("Failed", 1), [MAIL], {}, NOW)
    known = note(
        status("Failed", 2, note(status("Failed", 1, known), [MAIL], settled(known), NOW)), [MAIL], {}, NOW
    )
    assert [(notice["attempt"], target.secret) for notice, target in pending(known, [MAIL])] == [(2, "mail")]


def test_an_address_that_is_added_later_is_told_of_the_phase_and_the_others_not_again() -> None:
    known = note(status("Failed"), [CHAT], {}, NOW)
    known = note(status("Failed", before=known), [CHAT, MAIL], settled(known), NOW)
    assert waiting(known, CHAT, MAIL) == [("Failed", "mail")]


def test_an_address_that_is_named_no_more_is_told_nothing() -> None:
    known = note(status("Failed"), [CHAT, MAIL], {}, NOW)
    assert waiting(known, MAIL) == [("Failed", "mail")]


def test_only_the_newest_notices_are_kept() -> None:
    known: Object = {}
    for attempt in range(1, 9):
        known = note(status("Failed", attempt, known), [CHAT, MAIL], {}, NOW)
    assert [notice["attempt"] for notice in known["notices"]] == [4, 5, 6, 7, 8]


def test_a_message_tells_cause_and_hint_and_no_log() -> None:
    failure = {"cause": "Data", "message": "no images", "hint": "add some", "logTail": "password=hunter2"}
    run = RunBuilder("parts-1").status({"phase": "Failed", "attempt": 1, "failure": failure}).build()
    letter = compose(run, {"phase": "Failed", "attempt": 1, "time": "2026-01-02T03:04:05Z"})
    assert letter["title"] == "Training ml/parts-1: Failed"
    assert "Data: no images" in letter["text"]
    assert letter["facts"]["failure"]["hint"] == "add some"
    assert "hunter2" not in str(letter)


def test_a_success_tells_the_model_and_its_metrics() -> None:
    model = {"name": "parts", "version": "2026-01-02-4f2a", "digest": "sha256:00"}
    run = RunBuilder().status({"phase": "Succeeded", "model": model, "metrics": {"mAP50": 0.91234}}).build()
    letter = compose(run, {"phase": "Succeeded", "attempt": 2, "time": "2026-01-02T03:04:05Z"})
    assert "parts 2026-01-02-4f2a" in letter["text"]
    assert "mAP50 0.9123" in letter["text"]
    assert letter["id"].startswith(run["metadata"]["uid"])


def test_addresses_are_read_as_they_are_written() -> None:
    entry = {"urlFrom": {"secretName": "chat", "key": "url"}, "on": ["Running", "Succeeded", "Failed"]}
    assert targets_of({"notify": [entry]}) == [CHAT]
    assert targets_of({}) == []
