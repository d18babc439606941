"""What the health check tells: of an operator that is deaf, or stuck, or only waits for its turn."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from trainwright_operator.health import Health
from trainwright_operator.queue import Key, WorkQueue


async def hang(_: Key) -> float | None:
    await asyncio.Event().wait()
    return None


async def describe(monkeypatch: pytest.MonkeyPatch, later: float) -> dict[str, Any]:
    """Return what is told of a queue whose only worker hangs, some seconds later."""
    queue = WorkQueue(hang, 1)
    begun = time.monotonic()

    def ages() -> dict[str, float]:
        return {"TrainingRun": 30.0, "Pod": time.monotonic() - begun}

    health = Health(ages, queue, lambda: False, relist_seconds=400)
    work = asyncio.create_task(queue.run())
    queue.add(Key("ml", "parts-1"))
    await asyncio.sleep(0.01)
    now = time.monotonic() + later
    with monkeypatch.context() as patched:
        patched.setattr(time, "monotonic", lambda: now)
        told = health.describe()
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    return told


def test_one_that_waits_for_its_turn_is_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    told = asyncio.run(describe(monkeypatch, 1))
    assert (told["healthy"], told["leader"]) == (True, False)


def test_a_run_that_is_worked_on_for_ever_is_a_reason_to_start_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    told = asyncio.run(describe(monkeypatch, 1000))
    assert not told["healthy"]
    assert "worked on" in str(told["problems"])


def test_one_watch_that_hears_nothing_for_three_relists_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    told = asyncio.run(describe(monkeypatch, 1300))
    assert "nothing was heard of Pod objects" in str(told["problems"])
    assert "TrainingRun" not in str(told["problems"])
    assert told["watchAgeSeconds"]["TrainingRun"] == 30
