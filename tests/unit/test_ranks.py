"""A rank that ends while it is spoken to: told by what it died of, not by the broken connection."""

from __future__ import annotations

import multiprocessing
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

import psutil
import pytest

from trainwright.errors import HostOutOfMemoryError
from trainwright_trainer.ranks import _Called, _listen, _Rank, open_rendezvous


def ask(connection: Connection) -> None:
    """Call a hook, and never read that it is done."""
    connection.send(_Called("on_validation_batch", ()))
    time.sleep(60)


class Killing:
    """A hook while which the rank is killed, or after which it dies with the answer unread."""

    def __init__(self, process: Any, after: float) -> None:
        self.process, self.after = process, after

    def on_validation_batch(self) -> None:
        if self.after:
            threading.Timer(self.after, self.process.kill).start()
        else:
            self.process.kill()
            self.process.join()


@pytest.mark.parametrize("after", [0.0, 0.3])
def test_a_rank_that_is_killed_while_a_hook_runs_ran_out_of_memory(after: float) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=ask, args=(theirs,))
    process.start()
    theirs.close()
    rank = _Rank(0, "cpu", process, ours)
    try:
        with pytest.raises(HostOutOfMemoryError, match="device cpu was ended by SIGKILL"):
            _listen([rank], Killing(process, after))  # type: ignore[arg-type]
    finally:
        process.kill()
        process.join()
        ours.close()


def test_ranks_find_each_other_where_nobody_from_outside_listens_in() -> None:
    before = set(psutil.Process().net_connections())
    store = open_rendezvous()
    opened = set(psutil.Process().net_connections()) - before
    assert [each.laddr for each in opened if each.status == "LISTEN"] == [("127.0.0.1", store.port)]
    store.set("who", "rank 0")
    assert store.get("who") == b"rank 0"
