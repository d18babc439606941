"""Consumers of a stream for bench_ingest.py, each a process of its own: its settings come on stdin.

`drop` is the library's consumer with a callback that does nothing; `dropLargeReads` the same with larger
reads, as ours are; `noSync` and `sync` are the follower, into new trees.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from pathlib import Path
from threading import Event
from typing import Any

import rstream.connection
from rstream import Consumer, ConsumerOffsetSpecification, OffsetType

LARGE_READS = 256 * 1024


async def drop(settings: dict[str, Any]) -> None:
    """Read up to the last message, and keep nothing."""
    done = asyncio.Event()

    def forget(_message: bytes, context: Any) -> None:
        if context.offset >= settings["last"]:
            done.set()

    consumer = Consumer(
        settings["host"], settings["port"], username=settings["user"], password=settings["password"]
    )
    await consumer.start()
    first = ConsumerOffsetSpecification(OffsetType.FIRST, None)
    await consumer.subscribe(settings["stream"], forget, offset_specification=first)
    await done.wait()
    tell(settings)
    await consumer.close()


def ingest(settings: dict[str, Any], *, sync: bool) -> None:
    """Apply up to the last message."""
    # Not above: who drops everything has neither their memory nor their settings of the library.
    from trainwright_trainer.ingestion.address import StreamAddress  # noqa: PLC0415
    from trainwright_trainer.ingestion.following import Follower, Moment  # noqa: PLC0415
    from trainwright_trainer.ingestion.ingestor import Ingestor  # noqa: PLC0415

    names = ("host", "port", "stream", "user", "password")
    address, stop = StreamAddress(*(settings[name] for name in names)), Event()

    def look(moment: Moment) -> None:
        if (moment.offset or 0) >= settings["last"] and not stop.is_set():
            tell(settings)
            stop.set()

    with Ingestor(Path(settings["root"]), sync=sync) as ingestor:
        gc.freeze()  # as the command does
        settings["start"], settings["cpu"] = time.perf_counter(), time.process_time()
        Follower(address, ingestor, stop, look).follow()


def tell(settings: dict[str, Any]) -> None:
    """Print what it took; the peak is the kernel's, of this program alone."""
    seconds, cpu = time.perf_counter() - settings["start"], time.process_time() - settings["cpu"]
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    print(json.dumps({"seconds": seconds, "cpuSeconds": cpu, "peakMiB": peak / 1024}), flush=True)


def main() -> None:
    """Consume as the settings say."""
    settings = json.load(sys.stdin)
    settings["start"], settings["cpu"] = time.perf_counter(), time.process_time()
    kind = settings["kind"]
    if kind == "dropLargeReads":
        rstream.connection.CHUNK_SIZE = LARGE_READS
    if kind.startswith("drop"):
        asyncio.run(drop(settings))
    else:
        ingest(settings, sync=kind == "sync")


if __name__ == "__main__":
    main()
