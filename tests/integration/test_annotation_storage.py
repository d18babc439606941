"""Data trees on volumes that are full, read-only or damaged: told what to do, and nothing is lost."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from annotation_stream import bulk, detection, draw, received, single
from annotation_trees import digest_tree
from PIL import Image
from small_volumes import filled, read_only, small_volume

from trainwright.errors import ConfigurationError, StepError, StorageError
from trainwright_trainer.ingestion.events import Status
from trainwright_trainer.ingestion.ingestor import Ingestor, Received

CREATED, EDITED, VALIDATED, DELETED = Status
PAGE = 4096
BATCH = 2


def story() -> list[Received]:
    """Return messages of each kind, poison among them."""
    bodies = [single(f"frame-{n}", CREATED, n, image=draw(n)) for n in range(6)]
    bodies[3:3] = [b"\xc1 nonsense"]
    bodies += [bulk(["frame-1", "frame-2"], VALIDATED, 20), bulk(["frame-3"], DELETED, 21), b"\xc1 more"]
    bodies += [single(f"frame-{n}", CREATED, n, image=draw(n)) for n in range(6, 12)]
    return [received(offset, body) for offset, body in enumerate(bodies)]


def go_on(root: Path, messages: list[Received]) -> None:
    """Open the trees, and apply what the offset says is left."""
    with Ingestor(root) as ingestor:
        done = -1 if ingestor.offset is None else ingestor.offset
        left = [message for message in messages if message.offset > done]
        for start in range(0, len(left), BATCH):
            ingestor.apply(left[start : start + BATCH])


def state_of(root: Path) -> dict[str, str]:
    """Everything that matters: trees, dead letters, the offset in words."""
    found = digest_tree(root)
    return {path: digest for path, digest in found.items() if "ledger" not in path and ".lock" not in path}


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    with small_volume(tmp_path / "volume", 4096) as folder:
        yield folder


def heavy_story() -> list[Received]:
    """Return messages that take much room in each place in turn."""
    image, detections = noise(), [detection(n % 9) for n in range(900)]
    bodies = [single(f"frame-{n}", CREATED, n, image=image) for n in range(3)]
    bodies += [b"\xc1" + bytes(60_000), single("frame-1", EDITED, 9, detections=detections)]
    bodies += [bulk(["frame-2"], VALIDATED, 20), bulk([f"frame-{n}" for n in range(700)], DELETED, 21)]
    return [received(offset, body) for offset, body in enumerate(bodies)]


def noise() -> bytes:
    """Return an image that can't be compressed."""
    file = BytesIO()
    Image.effect_noise((200, 200), 90).save(file, "PNG")
    return file.getvalue()


def test_a_disk_that_is_full_at_any_moment_is_told_of_and_loses_nothing(volume: Path, tmp_path: Path) -> None:
    messages = heavy_story()
    begin(tmp_path / "whole")
    go_on(tmp_path / "whole", messages)
    whole, told = state_of(tmp_path / "whole"), set()
    for pages in range(0, 400, 4):
        root = begin(volume / "root")
        with filled(volume, leaving=pages * PAGE):
            try:
                go_on(root, messages)
            except StorageError as error:
                place = next((place for place in PLACES if place in str(error)), str(error))
                told.add((place, error.hint.partition(".")[0]))
            else:
                break
        go_on(root, messages)
        assert state_of(root) == whole, pages
        shutil.rmtree(root)
    else:
        pytest.fail("it never fitted")
    assert told == {(place, "Make room on the volume") for place in PLACES}


PLACES = ("ledger.sqlite", "dead-letters", "offset.yaml", "/images", "/labels")


def begin(root: Path) -> Path:
    """Make a root whose offset file takes room too: what else is in it stays."""
    root.mkdir()
    (root / "offset.yaml").write_text(f"offset: 0\nother: {'x' * 60_000}\n")
    return root


@pytest.mark.parametrize("part", ["", "data-seed/labels", ".trainwright"])
def test_trees_that_are_read_only_are_told_of_and_filled_when_they_are_not(tmp_path: Path, part: str) -> None:
    messages = story()
    go_on(tmp_path, messages[:2])
    before = state_of(tmp_path)
    with read_only(tmp_path / part), pytest.raises(StorageError) as refused:
        go_on(tmp_path, [*messages[2:], received(99, bulk(["frame-0", "frame-4"], VALIDATED, 30))])
    assert "Mount the volume of the data trees writable" in refused.value.hint
    assert str(tmp_path) in str(refused.value)
    if not part:
        assert state_of(tmp_path) == before
    go_on(tmp_path, messages)
    (tmp_path / "other").mkdir()
    go_on(tmp_path / "other", messages)
    whole = state_of(tmp_path / "other")
    shutil.rmtree(tmp_path / "other")
    assert state_of(tmp_path) == whole


def test_trees_on_several_volumes_are_told_of(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with small_volume(root / "data", 256), pytest.raises(StorageError) as refused:
        go_on(root, story())
    assert "Put the three data trees on one volume" in refused.value.hint


def damage(ledger: Path, what: str) -> None:
    if what == "no database":
        ledger.write_bytes(b"these are no tables\n" * 100)
    elif what == "a page of rubbish":
        data = bytearray(ledger.read_bytes())
        data[PAGE:] = b"\xaa" * (len(data) - PAGE)
        ledger.write_bytes(data)
    elif what == "the end is missing":
        ledger.write_bytes(ledger.read_bytes()[: PAGE + 100])
    elif what == "a folder":
        ledger.unlink()
        ledger.mkdir()


@pytest.mark.parametrize("what", ["no database", "a page of rubbish", "the end is missing", "a folder"])
def test_a_damaged_ledger_is_told_of_and_the_trees_are_taken_over_without_it(
    tmp_path: Path, what: str
) -> None:
    messages = story()
    go_on(tmp_path, messages[:-2])
    ledger = tmp_path / ".trainwright" / "ledger.sqlite"
    damage(ledger, what)
    with pytest.raises(StorageError) as refused:
        go_on(tmp_path, messages)
    assert str(ledger) in str(refused.value)
    assert what == "a folder" or "move it away" in refused.value.hint
    ledger.rename(tmp_path / "ledger.damaged")
    go_on(tmp_path, messages)
    (tmp_path / "ledger.damaged").rename(ledger.with_suffix(".damaged"))
    (tmp_path / "whole").mkdir()
    go_on(tmp_path / "whole", messages)
    wanted = state_of(tmp_path / "whole")
    shutil.rmtree(tmp_path / "whole")
    assert state_of(tmp_path) == wanted


def test_a_ledger_of_a_newer_program_is_not_written_to(tmp_path: Path) -> None:
    go_on(tmp_path, story()[:2])
    ledger = tmp_path / ".trainwright" / "ledger.sqlite"
    with sqlite3.connect(ledger) as database:
        database.execute("PRAGMA user_version = 2")
    database.close()
    before = ledger.read_bytes()
    with pytest.raises(ConfigurationError, match="is of version 2, and this program knows 1") as refused:
        go_on(tmp_path, story())
    assert "the newer program" in refused.value.hint
    assert ledger.read_bytes() == before


@pytest.mark.parametrize("content", [b"offset: [", b"- 1\n", b"\xff\xfe\x00", b"a: 2026-99-99\n"])
def test_an_offset_file_that_became_nonsense_is_written_anew_from_the_ledger(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    messages = story()
    go_on(tmp_path, messages[:2])
    (tmp_path / "offset.yaml").write_bytes(content)
    with caplog.at_level("WARNING"):
        go_on(tmp_path, messages)
    assert "written anew" in caplog.text
    assert (tmp_path / "offset.yaml").read_text() == f"offset: {messages[-1].offset}\n"


def test_an_offset_file_that_can_not_be_read_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "offset.yaml").mkdir()
    with pytest.raises(StepError, match=r"offset.yaml can't be used: Is a directory"):
        go_on(tmp_path, story())
