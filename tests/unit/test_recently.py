"""What is remembered is forgotten in time, and never grows without end."""

from __future__ import annotations

from trainwright_operator.recently import MOST, Recently


class Clock:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_fact_is_believed_for_some_seconds() -> None:
    clock = Clock()
    recently = Recently(seconds=10, clock=clock)
    assert not recently.holds("fenced")
    recently.note("fenced")
    clock.now += 9.9
    assert recently.holds("fenced")
    clock.now += 0.2
    assert not recently.holds("fenced")


def test_a_fact_that_is_forgotten_is_asked_for_again() -> None:
    recently = Recently()
    recently.note("fenced")
    recently.forget("fenced")
    recently.forget("never seen")
    assert not recently.holds("fenced")


def test_so_many_facts_are_kept_and_no_more() -> None:
    recently = Recently()
    for number in range(MOST + 1):
        recently.note(str(number))
    assert recently.holds(str(MOST))
    assert not recently.holds("0")
