"""Whatever was published, in whatever order, batches and repetitions: the trees end the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from annotation_stream import bulk, detection, draw, received, single
from annotation_trees import digest_tree
from hypothesis import event, given, settings
from hypothesis import strategies as st

from trainwright_trainer.ingestion import ingestor as module
from trainwright_trainer.ingestion.events import Status
from trainwright_trainer.ingestion.ingestor import Ingestor, Received

CREATED, EDITED, VALIDATED, DELETED = Status
NAMES = ("a", "b", "c", "old")  # the last one an earlier consumer left
minutes = st.integers(0, 9)
roles = st.sampled_from([10, 20])


def created(name: str, minute: int, role: int, number: int, suffix: str) -> bytes:
    found = [detection(number)]
    return single(name, CREATED, minute, role=role, image=draw(number), detections=found, suffix=suffix)


def edited(name: str, minute: int, role: int, number: int) -> bytes:
    return single(name, EDITED, minute, role=role, detections=[detection(10 + number)])


names = st.sampled_from(NAMES)
told = st.one_of(
    st.builds(created, names, minutes, roles, st.integers(0, 2), st.sampled_from([".png", ".jpg"])),
    st.builds(edited, names, minutes, roles, st.integers(0, 2)),
    st.builds(single, names, st.sampled_from([VALIDATED, DELETED]), minutes, role=st.just(20)),
    st.builds(
        bulk,
        st.lists(names, min_size=1, max_size=4, unique=True),
        st.sampled_from([VALIDATED, DELETED]),
        minutes,
    ),
    st.builds(lambda number: b"\xc1 poison %d" % number, st.integers(0, 2)),
)


def begin(root: Path) -> Path:
    for folder, file in (("images", "old.JPG"), ("labels", "old.txt")):
        (root / "data-seed" / folder).mkdir(parents=True)
        (root / "data-seed" / folder / file).write_text("of an earlier consumer")
    return root


def go_on(root: Path, messages: list[Received], sizes: list[int]) -> None:
    """Apply messages in batches of these sizes, with a new process for each second batch."""
    left = list(messages)
    while left:
        with Ingestor(root, sync=False) as ingestor:
            for size in sizes:
                ingestor.apply(left[:size])
                del left[:size]
            while ingestor.has_more:
                ingestor.apply([])


def state_of(root: Path) -> tuple[dict[str, str], list[bytes]]:
    """The trees, and what the dead letters say: their names are those of offsets."""
    found = {path: digest for path, digest in digest_tree(root).items() if path.startswith("data")}
    letters = sorted({path.read_bytes() for path in root.glob(".trainwright/dead-letters/*.message")})
    return found, letters


def numbered(bodies: list[bytes]) -> list[Received]:
    return [received(offset, body) for offset, body in enumerate(bodies)]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(told, min_size=1, max_size=12),
    st.randoms(use_true_random=False),
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.integers(0, 12),
)
def test_any_order_of_messages_and_any_part_of_them_again_end_in_the_same_trees(
    tmp_path_factory: pytest.TempPathFactory, bodies: list[bytes], random: Any, sizes: list[int], again: int
) -> None:
    folder = tmp_path_factory.mktemp("trees")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SLICE", 2)
        go_on(begin(folder / "whole"), numbered(bodies), [100])
        wanted = state_of(folder / "whole")
        shuffled = [*bodies, *bodies[again:]]
        random.shuffle(shuffled)
        root = begin(folder / "shuffled")
        go_on(root, numbered(shuffled), sizes)
        assert state_of(root) == wanted
        event(f"{len(wanted[0])} files, {len(wanted[1])} letters")

        before = {path: path.stat().st_mtime_ns for path in root.glob("data*/*/*")}
        with Ingestor(root, sync=False) as ingestor:
            count = ingestor.ledger.images
            ingestor.rewind()
        go_on(root, numbered(shuffled)[again:], sizes)
        with Ingestor(root, sync=False) as ingestor:
            assert ingestor.ledger.images == count  # a plan would take another one for a new dataset
        assert state_of(root) == wanted
        assert {path: path.stat().st_mtime_ns for path in root.glob("data*/*/*")} == before
