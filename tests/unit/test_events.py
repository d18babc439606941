"""Events of a run: what it went through, without a flood."""

from __future__ import annotations

import asyncio
from typing import Any

from builders import RunBuilder

from trainwright_operator.events import BURST, REFILL_SECONDS, SAME_SECONDS, Events

Object = dict[str, Any]
RUN = RunBuilder().build()


class Written:
    """Takes Events as the API server would, at times of its own."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.now = 0.0
        self.events = Events(self, lambda: self.now)  # type: ignore[arg-type]

    async def create(self, body: Object) -> Object:
        self.reasons.append(body["reason"])
        return body

    def tell(self, reason: str, note: str = "") -> None:
        asyncio.run(self.events.tell(RUN, "Normal", reason, note))


def test_the_same_is_told_again_after_some_minutes_only() -> None:
    written = Written()
    for _ in range(3):
        written.tell("Refused", "a quota")
    written.tell("Refused", "another quota")
    written.now = SAME_SECONDS + 1
    written.tell("Refused", "a quota")
    assert len(written.reasons) == 3


def test_a_run_that_changes_all_the_time_is_told_of_now_and_then_and_its_end_always() -> None:
    written = Written()
    for number in range(10 * BURST):
        written.tell("AttemptStarted", f"attempt {number}")
    assert len(written.reasons) == BURST
    written.tell("Failed", "no attempt is left")
    assert written.reasons[-1] == "Failed"
    written.now += 2 * REFILL_SECONDS
    for number in range(5):
        written.tell("Running", f"pod {number}")
    assert written.reasons.count("Running") == 2
