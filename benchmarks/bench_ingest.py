"""Reads generated annotations from a real RabbitMQ into data trees, in turns with a consumer that drops them.

    python benchmarks/bench_ingest.py --rounds 5

Every consumer is a process of its own, and reads the same stream from its beginning. The results are in
results/ingest.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainwright_devstack.annotating import publish_annotations
from trainwright_devstack.annotations import AnnotationMessage, generate_annotations
from trainwright_devstack.certificates import Authority
from trainwright_devstack.rabbitmq import RabbitMq
from trainwright_trainer.ingestion.address import StreamAddress

RESULTS = Path(__file__).parent / "results" / "ingest.json"
CONSUMERS = Path(__file__).with_name("stream_consumers.py")
KINDS = ("drop", "dropLargeReads", "noSync", "sync")


@dataclass(frozen=True)
class Load:
    """A stream: so many messages, about images of so many pixels a side with so much noise."""

    name: str
    messages: int
    image_size: int
    grain: int


LOADS = (
    Load("cameraFrames", 4_000, 960, 8),
    Load("smallFrames", 10_000, 480, 16),
    Load("smallImages", 40_000, 128, 4),
)
"""The first one's figures are the benchmark's: its images have as many pixels as a frame of 1280 x 720. The
others show what each message costs besides its bytes.
"""


@dataclass
class Measured:
    """What was published, counted on its way."""

    messages: int = 0
    bytes: int = 0
    images: int = 0
    image_bytes: int = 0

    def count(self, messages: Iterator[AnnotationMessage]) -> Iterator[AnnotationMessage]:
        """Yield the messages."""
        for message in messages:
            self.messages += 1
            self.bytes += len(message.body)
            if len(message.body) > 2048:  # no other is so large, but for one of many names
                self.images += 1
                self.image_bytes += len(message.body)
            yield message


def measure(load: Load, broker: RabbitMq, folder: Path, rounds: int) -> dict[str, Any]:
    """Publish a stream and read it with every consumer in turns; the trees stay until all is done.

    Files that were just removed slow down the making of new ones on ext4.
    """
    account = broker.account
    address = StreamAddress(broker.host, broker.port, load.name, account.user, account.password)
    sent = Measured()
    made = generate_annotations(load.messages, image_size=load.image_size, grain=load.grain)
    publish_annotations(address, sent.count(made), create=True)
    goes: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for number in range(rounds):
        for kind in KINDS:
            root = folder / f"{load.name}-{kind}-{number}"
            root.mkdir()
            goes[kind].append(consume(kind, address, load.messages - 1, root))
            print(load.name, kind, json.dumps(goes[kind][-1]), flush=True)
    found = {kind: describe(goes[kind], sent) for kind in KINDS}
    rates = {kind: found[kind]["messagesPerSecond"] for kind in KINDS}
    return {
        "load": load.name,
        "messages": sent.messages,
        "messageBytes": round(sent.bytes / sent.messages),
        "imageMessages": sent.images,
        "imageMessageBytes": round(sent.image_bytes / sent.images),
        **found,
        "ratio": round(rates["noSync"] / rates["drop"], 2),
        "ratioWithSync": round(rates["sync"] / rates["drop"], 2),
        "ratioToLargeReads": round(rates["noSync"] / rates["dropLargeReads"], 2),
    }


def consume(kind: str, address: StreamAddress, last: int, root: Path) -> dict[str, float]:
    """Read the stream up to an offset in a process of its own, after what is unwritten is on disk."""
    os.sync()
    settings = {
        "kind": kind,
        "host": address.host,
        "port": address.port,
        "stream": address.stream,
        "user": address.user,
        "password": address.password,
        "last": last,
        "root": str(root),
    }
    command = [sys.executable, str(CONSUMERS)]
    done = subprocess.run(
        command, input=json.dumps(settings), check=True, stdout=subprocess.PIPE, text=True, cwd=root
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[0])
    return {name: round(value, 3) for name, value in found.items()}


def describe(goes: list[dict[str, float]], sent: Measured) -> dict[str, Any]:
    """Return the figures of the median round; the seconds are those of all."""
    middle = sorted(goes, key=lambda go: go["seconds"])[(len(goes) - 1) // 2]
    return {
        "messagesPerSecond": round(sent.messages / middle["seconds"]),
        "mebibytesPerSecond": round(sent.bytes / 2**20 / middle["seconds"], 1),
        "cpuMicrosecondsPerMessage": round(
            1e6 * statistics.median(go["cpuSeconds"] for go in goes) / sent.messages, 1
        ),
        "peakMiB": round(max(go["peakMiB"] for go in goes), 1),
        "seconds": [go["seconds"] for go in goes],
    }


def main() -> None:
    """Measure every load, print and write down the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where broker and trees are; a temporary one else")
    options = parser.parse_args()
    load_before = os.getloadavg()[0]
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    broker = RabbitMq(folder / "rabbitmq", Authority(folder / "pki").create())
    broker.start()
    try:
        found = [measure(load, broker, folder, options.rounds) for load in LOADS]
    finally:
        broker.stop()
        shutil.rmtree(folder)
    record = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {"processor": platform.machine(), "cpus": os.cpu_count(), "load": load_before},
        "ours": found[0]["noSync"]["messagesPerSecond"],
        "oursWithSync": found[0]["sync"]["messagesPerSecond"],
        "baseline": found[0]["drop"]["messagesPerSecond"],
        "ratio": found[0]["ratio"],
        "ratioWithSync": found[0]["ratioWithSync"],
        "ratioToLargeReads": found[0]["ratioToLargeReads"],
        "rounds": options.rounds,
        "loads": found,
    }
    RESULTS.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(RESULTS.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
