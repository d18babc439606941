"""An end at any moment whatever: the next start makes the trees what they would have become."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from annotation_stream import VALIDATOR, bulk, detection, draw, received, single
from annotation_trees import digest_tree

from trainwright_trainer.ingestion import ingestor as module
from trainwright_trainer.ingestion import messages
from trainwright_trainer.ingestion.events import Status
from trainwright_trainer.ingestion.ingestor import Ingestor, Received
from trainwright_trainer.ingestion.ledger import Ledger

CREATED, EDITED, VALIDATED, DELETED = Status


class Killed(BaseException):
    """Nothing in the program is prepared for it."""


@contextmanager
def killed_at(step: int) -> Iterator[None]:
    """End the program at the so manyth of its steps that others could see: files, and the ledger."""
    count = itertools.count()

    def ending(act: Callable[..., Any], *, half: bool = False) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            if next(count) == step:
                if half:
                    descriptor, content = arguments
                    act(descriptor, content[: len(content) // 2])
                raise Killed
            return act(*arguments, **named)

        return wrapped

    with pytest.MonkeyPatch.context() as patch:
        for name in ("rename", "replace", "unlink", "fsync", "open"):
            patch.setattr(os, name, ending(getattr(os, name)))
        patch.setattr(os, "write", ending(os.write, half=True))
        for name in ("begin", "record", "begin_replay", "end_replay"):
            patch.setattr(Ledger, name, ending(getattr(Ledger, name)))
        yield


def earlier_consumer(root: Path) -> Path:
    """Write the trees of an earlier consumer: some names twice, some files that are none of ours."""
    for tree, files in {
        "data": ["old-1.JPG", "old-2.png", "both.png"],
        "data-seed": ["old-3.jpg", "both.png"],
        "data_deleted": ["old-4.bmp", "both.jpg", "old-1.JPG"],
    }.items():
        for folder in ("images", "labels"):
            (root / tree / folder).mkdir(parents=True)
        for file in files:
            (root / tree / "images" / file).write_text(f"{tree}/{file}")
            (root / tree / "labels" / f"{Path(file).stem}.txt").write_text(f"label of {tree}/{file}")
    return root


def story() -> list[Received]:
    """Return every kind of message, some late, some twice, some poison, some of many names."""
    bodies = [
        single("a", CREATED, 1, image=draw(1)),
        single("b", CREATED, 2, image=draw(2), role=VALIDATOR),
        bulk(["old-3", "a", "c", "late"], VALIDATED, 20),
        b"\xc1 nonsense",
        single("c", CREATED, 3, image=draw(3)),
        single("b", EDITED, 4, detections=[detection(4)]),
        single("a", CREATED, 30, image=draw(4), suffix=".jpg"),
        bulk(["old-1", "b", "both", "nobody"], DELETED, 31),
        single("old-2", CREATED, 32, image=draw(5), suffix=".jpg"),
        single("old-4", EDITED, 33, role=VALIDATOR, detections=[detection(5)]),
        single("late", CREATED, 5, image=draw(6)),
        single("b", EDITED, 3.5, detections=[detection(6)]),
        single("old-1", CREATED, 34, image=draw(7), suffix=".webp", role=VALIDATOR),
        b"\xc1 more nonsense",
        bulk(["a", "old-2", "c", "late", "old-3"], DELETED, 40),
        single("c", CREATED, 41, image=draw(8), suffix=".bmp"),
    ]
    twice = [*bodies, bodies[4], bodies[8]]
    return [received(offset, body) for offset, body in enumerate(twice)]


def go_on(root: Path, told: list[Received], size: int) -> None:
    with Ingestor(root, sync=False) as ingestor:
        done = -1 if ingestor.offset is None else ingestor.offset
        left = [message for message in told if message.offset > done]
        for start in range(0, len(left), size):
            ingestor.apply(left[start : start + size])
        while ingestor.has_more:
            ingestor.apply([])


def state_of(root: Path) -> dict[str, str]:
    """Everything but the ledger, whose pages depend on how it came about."""
    return {
        path: digest
        for path, digest in digest_tree(root).items()
        if not path.startswith(".trainwright/") or "dead-letters" in path
    }


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLICE", 2)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no loss of power here


@pytest.mark.parametrize(("size", "other_size"), [(4, 1), (18, 3)])
def test_a_consumer_that_is_killed_at_any_step_leaves_what_the_next_one_finishes(
    tmp_path: Path, size: int, other_size: int
) -> None:
    told = story()
    go_on(earlier_consumer(tmp_path / "whole"), told, 100)
    whole = state_of(tmp_path / "whole")
    for step in itertools.count():
        root = earlier_consumer(tmp_path / "killed")
        finished = False
        with killed_at(step), suppress(Killed):
            go_on(root, told, size)
            finished = True
        if not finished:
            with killed_at(step * 7 % 40), suppress(Killed):  # and once more
                go_on(root, told, size + 1)
            go_on(root, told, other_size)
        assert state_of(root) == whole, f"killed at step {step}"
        shutil.rmtree(root)
        if finished:
            assert step > 60
            return


@pytest.mark.parametrize("kills", [((55, 18), (7, 2)), ((30, 9), (12, 2), (9, 3)), ((70, 18), (20, 4))])
def test_consumers_that_are_killed_one_after_the_other_leave_what_the_last_one_finishes(
    tmp_path: Path, kills: tuple[tuple[int, int], ...]
) -> None:
    """The later ones read less at once than those before them had begun."""
    go_on(earlier_consumer(tmp_path / "whole"), story(), 100)
    root = earlier_consumer(tmp_path / "killed")
    for step, size in kills:
        with killed_at(step), suppress(Killed):
            go_on(root, story(), size)
    go_on(root, story(), 1)
    assert state_of(root) == state_of(tmp_path / "whole")


def test_a_replay_of_dead_letters_that_is_killed_is_finished_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(root: Path) -> Path:
        root.mkdir()
        with monkeypatch.context() as release:  # an earlier one, which knew no WebP
            release.setattr(messages, "SUFFIXES", frozenset({".png"}))
            go_on(root, first, 100)
        return root

    first = [
        received(0, single("a", CREATED, 2, image=draw(1), suffix=".webp")),
        received(1, single("b", CREATED, 3, image=draw(2), suffix=".webp")),
        received(2, single("b", CREATED, 1, image=draw(3))),
        received(3, b"\xc1"),
    ]
    later = [*first, received(4, single("a", CREATED, 9, image=draw(4), role=VALIDATOR))]

    def replay(root: Path) -> None:
        with Ingestor(root, sync=False) as ingestor:
            ingestor.replay_dead_letters()

    whole = begin(tmp_path / "whole")
    replay(whole)
    go_on(whole, later, 100)
    wanted = state_of(whole)
    assert len(wanted) == 7  # two annotations, a letter with its note, the offset
    for step in itertools.count():
        root = begin(tmp_path / "killed")
        finished = False
        with killed_at(step), suppress(Killed):
            replay(root)
            finished = True
        go_on(root, later, 100)
        if step > 1 or finished:  # before that it has not begun
            assert state_of(root) == wanted, f"killed at step {step}"
        shutil.rmtree(root)
        if finished:
            assert step > 10
            return


def test_odd_files_of_an_earlier_consumer_are_left_as_they_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = earlier_consumer(tmp_path / "root")
    images = root / "data" / "images"
    outside = tmp_path / "outside.jpg"
    outside.write_text("outside")
    (images / "linked.jpg").symlink_to(outside)
    (images / "broken.jpg").symlink_to(tmp_path / "nowhere")
    (images / "folder.jpg").mkdir()
    (images / "notes.doc").write_text("notes")
    (images / "no-suffix").write_text("?")
    (images / ".hidden.jpg").write_text("?")
    Path(os.fsdecode(bytes(images) + b"/caf\xe9.jpg")).write_text("latin-1")
    (images / ("n" * 250 + ".jpg")).write_text("a long name")
    before = state_of(root)
    go_on(root, [received(0, bulk(["broken", "folder", "notes", "no-suffix"], DELETED, 1))], 1)
    after = state_of(root)
    assert {path: digest for path, digest in after.items() if path != "offset.yaml"} == before
    assert "10 files are left as they are" in caplog.text
    go_on(root, [received(1, bulk(["linked"], DELETED, 2))], 1)
    moved = root / "data_deleted" / "images" / "linked.jpg"
    assert moved.is_symlink()  # the link was moved, and not what it leads to
    assert outside.read_text() == "outside"


def test_of_a_name_that_is_twice_there_the_one_in_use_counts(tmp_path: Path) -> None:
    root = earlier_consumer(tmp_path / "root")
    go_on(root, [received(0, bulk(["both", "old-1"], DELETED, 1))], 1)
    assert not (root / "data/images/both.png").exists()
    assert (root / "data_deleted/images/both.png").read_text() == "data/both.png"
    assert (root / "data_deleted/images/old-1.JPG").read_text() == "data/old-1.JPG"


@pytest.mark.parametrize(
    "names",
    [("Frame", "frame"), ("caf\u00e9", "cafe\u0301"), ("\u212bngstrom", "\u00c5ngstrom"), ("a", "a ")],
)
def test_names_that_look_alike_are_each_their_own(tmp_path: Path, names: tuple[str, str]) -> None:
    told = [received(n, single(name, CREATED, n, image=draw(n))) for n, name in enumerate(names)]
    go_on(tmp_path, [*told, received(2, bulk([names[0]], DELETED, 9))], 3)
    assert [path.stem for path in (tmp_path / "data-seed/images").iterdir()] == [names[1]]
    assert [path.stem for path in (tmp_path / "data_deleted/images").iterdir()] == [names[0]]


def test_a_name_of_200_bytes_fits_with_all_that_is_put_to_it(tmp_path: Path) -> None:
    name = "\u00e9" * 100
    go_on(tmp_path, [received(0, single(name, CREATED, 1, image=draw(1), suffix=".jpeg"))], 1)
    assert (tmp_path / "data-seed/images" / f"{name}.jpeg").is_file()
