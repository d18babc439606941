"""What a name's events make of it: the same in every order, however often they come."""

from __future__ import annotations

from annotation_stream import at
from hypothesis import given
from hypothesis import strategies as st

from trainwright_trainer.ingestion.events import ADOPTED, Event, Status, Tree, settle


def created(minute: float, *, validated: bool = False, image: str = "a", labels: str = "0 box\n") -> Event:
    return Event("frame", at(minute), Status.CREATED, validated, labels, image, ".png")


def edited(minute: float, labels: str, *, validated: bool = False) -> Event:
    return Event("frame", at(minute), Status.EDITED, validated, labels)


def validated(minute: float) -> Event:
    return Event("frame", at(minute), Status.VALIDATED, validated=True)


def deleted(minute: float) -> Event:
    return Event("frame", at(minute), Status.DELETED, validated=True)


def test_what_an_operator_creates_is_a_seed_until_somebody_validates_it() -> None:
    assert settle([created(1)]).tree is Tree.SEED
    assert settle([created(1), validated(2)]).tree is Tree.VALIDATED


def test_what_a_validator_creates_or_edits_is_validated() -> None:
    assert settle([created(1, validated=True)]).tree is Tree.VALIDATED
    placement = settle([created(1), edited(2, "1 box\n", validated=True)])
    assert (placement.tree, placement.labels) == (Tree.VALIDATED, "1 box\n")


def test_an_operators_edit_of_what_is_validated_waits_for_a_validator() -> None:
    events = [created(1, validated=True), edited(2, "1 box\n")]
    assert settle(events).labels == "0 box\n"
    assert settle([*events, validated(3)]).labels == "1 box\n"


def test_what_is_deleted_stays_deleted_when_it_is_validated_or_edited_later() -> None:
    events = [created(1), deleted(2), validated(3), edited(4, "1 box\n", validated=True)]
    assert settle(events).tree is Tree.DELETED


def test_another_image_of_the_name_is_another_annotation() -> None:
    events = [created(1, validated=True), deleted(2), created(3, image="b", labels="2 box\n")]
    placement = settle(events)
    assert (placement.tree, placement.image, placement.labels) == (Tree.SEED, "b", "2 box\n")


def test_what_was_judged_by_a_clock_that_runs_ahead_of_its_makers_stays_judged() -> None:
    assert settle([deleted(1), created(2)]).tree is Tree.DELETED
    assert settle([validated(1), created(2)]).tree is Tree.VALIDATED
    assert settle([edited(1, "1 box\n", validated=True), created(2)]).labels == "1 box\n"


def test_the_same_image_created_again_is_an_edit_and_takes_no_judgement_back() -> None:
    events = [created(1), validated(2)]
    assert settle([*events, created(3)]).tree is Tree.VALIDATED
    assert settle([*events, created(3, labels="1 box\n"), validated(4)]).labels == "1 box\n"
    assert settle([created(1), deleted(2), created(3)]).tree is Tree.DELETED


def test_a_name_without_an_image_has_no_files_until_that_comes() -> None:
    assert not settle([validated(2)]).has_files
    late = settle([validated(2), created(1)])
    assert late.has_files
    assert late.tree is Tree.VALIDATED


def test_an_image_that_an_earlier_consumer_left_is_not_taken_for_another_one() -> None:
    adopted = Event("frame", -1, Status.CREATED, validated=True, labels=None, image=ADOPTED, suffix=".png")
    placement = settle([adopted, created(1)])
    assert (placement.tree, placement.image) == (Tree.VALIDATED, "a")


events = st.one_of(
    st.builds(
        created,
        st.integers(0, 5),
        validated=st.booleans(),
        image=st.sampled_from("ab"),
        labels=st.sampled_from(["0 box\n", "1 box\n"]),
    ),
    st.builds(edited, st.integers(0, 5), st.sampled_from(["2 box\n", "3 box\n"]), validated=st.booleans()),
    st.builds(validated, st.integers(0, 5)),
    st.builds(deleted, st.integers(0, 5)),
)


@given(st.lists(events, max_size=7), st.randoms())
def test_the_order_in_which_events_come_does_not_matter(told: list[Event], random: object) -> None:
    shuffled = list(told)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert settle(told) == settle(shuffled)


@given(st.lists(events, min_size=1, max_size=7))
def test_the_newest_image_is_always_the_one_that_is_kept(told: list[Event]) -> None:
    """So its bytes are at hand when it comes, and nobody needs those of an older one."""
    brought = sorted((e for e in told if e.image), key=lambda e: (e.at, e.status, e.key))
    assert settle(told).image == (brought[-1].image if brought else None)
