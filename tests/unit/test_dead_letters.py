"""Dead letters: tried again in any state, and never one in another's place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from annotation_stream import VALIDATOR, draw, received, single
from typer.testing import CliRunner

from trainwright_trainer.__main__ import app
from trainwright_trainer.ingestion import messages
from trainwright_trainer.ingestion.events import Status
from trainwright_trainer.ingestion.ingestor import Ingestor, Received

CREATED, EDITED, VALIDATED, DELETED = Status


@pytest.fixture
def letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with three letters of an earlier release, which knew no PNG, and one that is poison."""
    bodies = [single(f"frame-{n}", CREATED, n + 1, image=draw(n)) for n in range(3)]
    with monkeypatch.context() as release:
        release.setattr(messages, "SUFFIXES", frozenset({".jpg"}))
        apply(tmp_path, [*(received(n, body) for n, body in enumerate(bodies)), received(3, b"\xc1")])
    return tmp_path / ".trainwright" / "dead-letters"


def apply(root: Path, told: list[Received]) -> None:
    with Ingestor(root, sync=False) as ingestor:
        ingestor.apply(told)


def replay(root: Path) -> str:
    variables = {
        "RABBITMQ_HOST": "127.0.0.1",
        "RABBITMQ_USER": "any",
        "RABBITMQ_PASSWORD": "any",
        "AZAION_ROOT_DIR": str(root),
    }
    ended = CliRunner().invoke(app, ["annotations", "replay-dead-letters"], env=variables)
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def damage(note: Path, what: Any) -> None:
    if what == "is cut":
        note.write_bytes(note.read_bytes()[:40])
    elif what == "lost its message":
        note.with_suffix(".message").unlink()
    else:
        note.write_text(
            json.dumps({**json.loads(note.read_text()), **what}) if isinstance(what, dict) else what
        )


@pytest.mark.parametrize(
    "what",
    ["is cut", "lost its message", "[]", "", "[" * 100_000, {"offset": "7"}, {"more": 1}, {"properties": []}],
    ids=lambda what: str(what)[:20],
)
def test_a_letter_that_is_damaged_is_named_and_keeps_nobody_else_from_being_applied(
    tmp_path: Path, letters: Path, what: Any
) -> None:
    damage(letters / f"{1:020d}.json", what)
    told = replay(tmp_path)
    assert f"{1:020d}.json: its " in told
    assert "2 applied, 2 left" in told
    assert {path.stem for path in (tmp_path / "data-seed/images").iterdir()} == {"frame-0", "frame-2"}
    assert "0 applied, 2 left" in replay(tmp_path)


def test_a_letter_that_is_applied_after_newer_messages_undoes_none_of_them(
    tmp_path: Path, letters: Path
) -> None:
    assert letters.is_dir()
    newer = [
        received(4, single("frame-0", EDITED, 50, role=VALIDATOR, detections=[])),
        received(5, single("frame-1", DELETED, 51)),
        received(6, single("frame-2", CREATED, 52, image=draw(9))),
    ]
    apply(tmp_path, newer)
    assert "3 applied, 1 left" in replay(tmp_path)
    assert (tmp_path / "data/images/frame-0.png").read_bytes() == draw(0)
    assert (tmp_path / "data/labels/frame-0.txt").read_bytes() == b""
    assert (tmp_path / "data_deleted/images/frame-1.png").read_bytes() == draw(1)
    assert (tmp_path / "data-seed/images/frame-2.png").read_bytes() == draw(9)


def test_two_streams_letters_of_the_same_offset_are_both_kept(tmp_path: Path, letters: Path) -> None:
    with Ingestor(tmp_path, sync=False) as ingestor:
        ingestor.rewind()
        for _ in range(2):  # and each once, however often it is read
            ingestor.apply([received(3, b"\xc1 of the new stream")])
        assert len(ingestor.dead_letters) == 5
    bodies = {path.read_bytes() for path in letters.glob(f"{3:020d}*.message")}
    assert bodies == {b"\xc1", b"\xc1 of the new stream"}


def test_properties_are_kept_as_far_as_json_holds_them(tmp_path: Path) -> None:
    hostile = {
        b"AnnotationStatus": b"Created",
        "long": "x" * 1_000_000,
        7: float("nan"),
        None: [{"deep": [1] * 1000}],
        b"\xff\xfe": b"\xff",
        "number": 2**63,
    }
    apply(tmp_path, [Received(0, 1, b"\xc1", hostile)])
    (note,) = (tmp_path / ".trainwright/dead-letters").glob("*.json")
    assert note.stat().st_size < 5000
    assert json.loads(note.read_text())["properties"]["AnnotationStatus"] == "Created"
    assert "0 applied, 1 left" in replay(tmp_path)
