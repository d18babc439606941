"""Messages applied to trees: any order, any part again, any crash between, and the trees are the same."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from annotation_stream import VALIDATOR, bulk, detection, draw, received, single
from hypothesis import given, settings
from hypothesis import strategies as st

from trainwright.contract import Directories
from trainwright.errors import ConfigurationError, DataError
from trainwright_trainer.ingestion.events import Status
from trainwright_trainer.ingestion.ingestor import SLICE, Ingestor, Received
from trainwright_trainer.workspace_lock import InUseError

CREATED, EDITED, VALIDATED, DELETED = Status


def read_trees(root: Path) -> dict[str, bytes]:
    """Everything in the three trees."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for tree in ("data", "data-seed", "data_deleted")
        for path in sorted((root / tree).rglob("*"))
        if path.is_file()
    }


def ingest(root: Path, messages: list[Received], size: int = 100) -> dict[str, bytes]:
    root.mkdir(exist_ok=True)
    with Ingestor(root, sync=False) as ingestor:
        for start in range(0, len(messages), size):
            ingestor.apply(messages[start : start + size])
        while ingestor.has_more:
            ingestor.apply([])
    return read_trees(root)


def test_created_by_an_operator_is_a_seed_and_moves_when_it_is_validated(tmp_path: Path) -> None:
    image = draw(1)
    trees = ingest(tmp_path, [received(0, single("frame-1", CREATED, 1, image=image))])
    assert trees == {
        "data-seed/images/frame-1.png": image,
        "data-seed/labels/frame-1.txt": b"0 0.500000 0.500000 0.200000 0.200000\n",
    }
    trees = ingest(tmp_path, [received(1, bulk(["frame-1"], VALIDATED, 2))])
    assert sorted(trees) == ["data/images/frame-1.png", "data/labels/frame-1.txt"]


def test_a_validators_edit_writes_its_labels_and_moves_the_image(tmp_path: Path) -> None:
    edit = single("frame-1", EDITED, 2, role=VALIDATOR, detections=[detection(3)])
    trees = ingest(
        tmp_path, [received(0, single("frame-1", CREATED, 1, image=draw(1))), received(1, edit)], size=1
    )
    assert sorted(trees) == ["data/images/frame-1.png", "data/labels/frame-1.txt"]
    assert trees["data/labels/frame-1.txt"].startswith(b"3 ")


def test_a_message_for_a_file_that_is_not_there_yet_is_applied_when_it_comes(tmp_path: Path) -> None:
    messages = [
        received(0, bulk(["frame-1"], DELETED, 5)),
        received(1, single("frame-1", CREATED, 1, image=draw(1))),
    ]
    assert sorted(ingest(tmp_path, messages, size=1)) == [
        "data_deleted/images/frame-1.png",
        "data_deleted/labels/frame-1.txt",
    ]


def test_compressed_messages_and_those_with_more_elements_are_read_too(tmp_path: Path) -> None:
    body = gzip.compress(single("frame-1", CREATED, 1, image=draw(1), more=("new", {"and": 1})))
    assert len(ingest(tmp_path, [received(0, body)])) == 2


def test_what_was_compressed_in_several_parts_is_read_too(tmp_path: Path) -> None:
    body = single("frame-1", CREATED, 1, image=draw(1))
    parts = gzip.compress(body[:50]) + gzip.compress(body[50:])
    assert len(ingest(tmp_path, [received(0, parts)])) == 2


@pytest.mark.parametrize("told", ["Created", b"10", 10, b"created"])
def test_the_status_may_be_a_property_as_a_number_or_a_word_in_bytes_or_text(
    tmp_path: Path, told: Any
) -> None:
    body = single("frame-1", EDITED, 1, image=draw(1))
    trees = ingest(tmp_path, [Received(0, 2**60, body, {b"AnnotationStatus": told})])
    assert "data-seed/images/frame-1.png" in trees


POISON = {
    "not msgpack": (b"\xc1 nonsense", "encoding"),
    "nothing": (b"", "encoding"),
    "damaged gzip": (gzip.compress(single("a", CREATED, 1, image=draw(1)))[:-9], "compression"),
    "something after gzip": (gzip.compress(single("a", CREATED, 1, image=draw(1))) + b"!", "compression"),
    "a gzip bomb": (gzip.compress(bytes(70 * 1024 * 1024)), "size"),
    "a path for a name": (single("../../etc/passwd", CREATED, 1, image=draw(1)), "name"),
    "a hidden name": (single(".hidden", CREATED, 1, image=draw(1)), "name"),
    "a name of 300 letters": (single("a" * 300, CREATED, 1, image=draw(1)), "name"),
    "no image": (single("a", CREATED, 1), "image"),
    "no picture": (single("a", CREATED, 1, image=b"MZ, a program"), "image"),
    "a program's suffix": (single("a", CREATED, 1, image=draw(1), suffix=".exe"), "extension"),
    "a box outside": (single("a", CREATED, 1, image=draw(1), detections=[detection(0, 1.5)]), "detections"),
    "no detections": (single("a", CREATED, 1, image=draw(1), detections="{"), "detections"),
    "an endless number": (
        single(
            "a", CREATED, 1, image=draw(1), detections='[{"cl":0,"x":1' + "0" * 400 + ',"y":0,"w":0,"h":0}]'
        ),
        "unexpected",
    ),
    "a list for a role": (single("a", CREATED, 1, image=draw(1), role=[]), "unexpected"),  # type: ignore[arg-type]
    "an image of a game": (single("a", CREATED, 1, image=b"DDS " + bytes(200)), "image"),
    "no names": (bulk([], DELETED, 1), "names"),
    "many created": (bulk(["a", "b"], CREATED, 1), "status"),
}


@pytest.mark.parametrize("what", POISON)
def test_a_message_that_can_not_be_applied_is_kept_with_the_reason(tmp_path: Path, what: str) -> None:
    body, rule = POISON[what]
    good = received(8, single("good", CREATED, 1, image=draw(2)))
    trees = ingest(tmp_path, [received(7, body, X="y"), good])
    assert sorted(trees) == ["data-seed/images/good.png", "data-seed/labels/good.txt"]
    folder = tmp_path / ".trainwright" / "dead-letters"
    note = json.loads((folder / f"{7:020d}.json").read_text())
    assert (note["offset"], note["rule"], note["properties"]) == (7, rule, {"X": "y"})
    assert note["reason"]
    assert (folder / f"{7:020d}.message").read_bytes() == body


def test_dead_letters_that_can_be_applied_later_leave_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainwright_trainer.ingestion import messages

    with monkeypatch.context() as release:  # an earlier one, which knew no PNG
        release.setattr(messages, "SUFFIXES", frozenset({".jpg"}))
        ingest(tmp_path, [received(0, single("a", CREATED, 1, image=draw(1))), received(1, b"\xc1")])
    with Ingestor(tmp_path, sync=False) as ingestor:
        assert len(ingestor.dead_letters) == 2
        results = ingestor.replay_dead_letters()
        assert results.messages == {"applied": 1, "poison": 1}
        assert [letter.offset for letter in ingestor.dead_letters] == [1]
    assert "data-seed/images/a.png" in read_trees(tmp_path)


def test_a_message_of_thousands_of_names_does_not_hold_others_up(tmp_path: Path) -> None:
    names = [f"frame-{number}" for number in range(3 * SLICE)]
    created = [
        received(offset, single(name, CREATED, 1, image=draw(offset))) for offset, name in enumerate(names)
    ]
    ingest(tmp_path, created)
    after = len(names)
    with Ingestor(tmp_path, sync=False) as ingestor:
        other = received(after + 1, single("other", CREATED, 1, image=draw(1)))
        ingestor.apply([received(after, bulk(names, DELETED, 2)), other])
        assert (tmp_path / "data-seed/images/other.png").exists()
        assert ingestor.has_more
        assert ingestor.offset == after - 1  # the message is not done: a crash now reads it again
        while ingestor.has_more:
            ingestor.apply([])
        assert ingestor.offset == after + 1
    assert len(list((tmp_path / "data_deleted/images").iterdir())) == len(names)


def test_files_and_offset_of_an_earlier_consumer_are_taken_over(tmp_path: Path) -> None:
    for tree, name in (("data", "old-1"), ("data-seed", "old-2")):
        for folder, suffix in (("images", ".jpg"), ("labels", ".txt")):
            (tmp_path / tree / folder).mkdir(parents=True)
            (tmp_path / tree / folder / (name + suffix)).write_text(name)
    (tmp_path / "offset.yaml").write_text("offset_queue: 41\nother: kept\n")
    with Ingestor(tmp_path, sync=False) as ingestor:
        assert ingestor.offset == 40
        validated, deleted = bulk(["old-2"], VALIDATED, 1), bulk(["old-1"], DELETED, 1)
        ingestor.apply([received(41, validated), received(42, deleted)])
    trees = read_trees(tmp_path)
    assert sorted(trees) == [
        "data/images/old-2.jpg",
        "data/labels/old-2.txt",
        "data_deleted/images/old-1.jpg",
        "data_deleted/labels/old-1.txt",
    ]
    assert trees["data/labels/old-2.txt"] == b"old-2"
    assert (tmp_path / "offset.yaml").read_text() == "offset: 42\nother: kept\n"


def test_an_offset_file_that_makes_no_sense_is_an_error_and_not_a_start_from_the_beginning(
    tmp_path: Path,
) -> None:
    (tmp_path / "offset.yaml").write_text("offset: many\n")
    with pytest.raises(DataError, match=r"offset is 'many', no offset"), Ingestor(tmp_path):
        pass


def test_a_take_over_that_was_interrupted_is_made_when_it_can_be(tmp_path: Path) -> None:
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "data" / "images" / "old.jpg").write_text("old")
    (tmp_path / "offset.yaml").write_text("offset: many\n")
    with pytest.raises(DataError), Ingestor(tmp_path):
        pass
    (tmp_path / "offset.yaml").write_text("offset: 7\n")
    with Ingestor(tmp_path, sync=False) as ingestor:
        assert ingestor.offset == 6
        ingestor.apply([received(7, bulk(["old"], DELETED, 1))])
    assert list(read_trees(tmp_path)) == ["data_deleted/images/old.jpg"]


def test_a_batch_that_unpacks_to_much_is_applied_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainwright_trainer.ingestion import ingestor as module

    messages = [received(n, single(f"frame-{n}", CREATED, n, image=draw(n))) for n in range(5)]
    monkeypatch.setattr(module, "_UNPACKED_BYTES", 2 * len(draw(0)))
    recorded = []
    with Ingestor(tmp_path, sync=False) as ingestor:
        record = ingestor.ledger.record
        ingestor.ledger.record = lambda new, *, position: (  # type: ignore[method-assign]
            recorded.append(position.offset),
            record(new, position=position),
        )
        ingestor.apply(messages)
    assert recorded == [1, 3, 4]
    assert len(read_trees(tmp_path)) == 10


def test_other_directories_than_those_that_were_filled_are_refused(tmp_path: Path) -> None:
    ingest(tmp_path, [received(0, single("a", CREATED, 1, image=draw(1)))])
    others = Directories(data="checked", seed="data-seed", deleted="data_deleted")
    with (
        pytest.raises(
            ConfigurationError, match="are in the directories data, data-seed, data_deleted, not in"
        ),
        Ingestor(tmp_path, others, sync=False),
    ):
        pass
    assert not (tmp_path / "checked").exists()
    assert len(ingest(tmp_path, [received(1, bulk(["a"], DELETED, 2))])) == 2


def test_a_second_consumer_of_the_same_trees_is_refused(tmp_path: Path) -> None:
    import subprocess
    import sys

    program = (
        "import sys; from pathlib import Path; from trainwright_trainer.ingestion.ingestor import Ingestor\n"
        "with Ingestor(Path(sys.argv[1])): pass"
    )
    with Ingestor(tmp_path):
        second = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False
        )
    assert "in use by another process" in second.stderr
    assert InUseError.__name__ in second.stderr


def test_a_repetition_changes_nothing_although_the_clock_it_was_made_by_is_ahead(tmp_path: Path) -> None:
    """The broker had both before the date that they tell, and one of them after what happened meanwhile."""
    created = single("frame", CREATED, 1000, image=draw(1), detections=[detection(1)])
    edited = single("frame", EDITED, 20, role=VALIDATOR, detections=[detection(2)])
    told = [received(0, created, minute=10), received(1, edited, minute=20)]
    wanted = ingest(tmp_path / "once", told)
    assert "data/images/frame.png" in wanted
    assert ingest(tmp_path / "twice", [*told, received(2, created, minute=30)]) == wanted
    assert ingest(tmp_path / "again", [*told, received(2, created, minute=2000)]) == wanted


def test_messages_of_many_names_are_kept_up_with(tmp_path: Path) -> None:
    """Ten of them at a time, each of more names than are applied at once."""
    names = [f"frame-{number}" for number in range(2 * SLICE)]
    with Ingestor(tmp_path, sync=False) as ingestor:
        for offset in range(0, 40, 10):
            ingestor.apply([received(n, bulk(names, VALIDATED, n)) for n in range(offset, offset + 10)])
        assert ingestor.offset is not None
        more = 0
        while ingestor.has_more:
            ingestor.apply([])
            more += 1
        assert more < 40  # of 80 slices
        assert ingestor.offset == 39


def test_no_more_is_read_while_too_many_names_are_left_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainwright_trainer.ingestion.ingestor._MOST_PENDING", 3 * SLICE)
    names = [f"frame-{number}" for number in range(5 * SLICE)]
    with Ingestor(tmp_path, sync=False) as ingestor:
        ingestor.apply([received(0, bulk(names, VALIDATED, 1))])
        assert ingestor.is_busy
        ingestor.apply([])
        assert not ingestor.is_busy


actions = st.one_of(
    st.tuples(st.just(CREATED), st.sampled_from([10, 20]), st.integers(0, 1)),
    st.tuples(st.just(EDITED), st.sampled_from([10, 20]), st.integers(0, 3)),
    st.tuples(st.sampled_from([VALIDATED, DELETED]), st.just(20), st.just(0)),
)
stories = st.lists(st.tuples(st.integers(0, 6), actions), min_size=1, max_size=8)


def tell(minute: int, action: Any) -> bytes:
    status, role, variant = action
    if status in {VALIDATED, DELETED}:
        return bulk(["frame"], status, minute)
    return single(
        "frame",
        status,
        minute,
        role=role,
        image=draw(variant),
        detections=[detection(variant)],
        suffix=".png",
    )


@settings(max_examples=60, deadline=None)
@given(stories, st.randoms(), st.integers(1, 8), st.integers(0, 8))
def test_any_order_of_a_names_messages_and_any_part_again_end_in_the_same_trees(
    tmp_path_factory: pytest.TempPathFactory, story: Any, random: Any, size: int, again: int
) -> None:
    messages = [received(offset, tell(*told)) for offset, told in enumerate(story)]
    shuffled = list(messages)
    random.shuffle(shuffled)
    folder = tmp_path_factory.mktemp("trees")
    wanted = ingest(folder / "in-order", messages)
    assert ingest(folder / "shuffled", shuffled, size) == wanted
    assert ingest(folder / "shuffled", messages[again:], size) == wanted


@settings(max_examples=60, deadline=None)
@given(stories, st.integers(1, 8), st.integers(1, 8))
def test_a_crash_before_the_ledger_is_written_changes_nothing_in_the_end(
    tmp_path_factory: pytest.TempPathFactory, story: Any, size: int, other_size: int
) -> None:
    messages = [received(offset, tell(*told)) for offset, told in enumerate(story)]
    folder = tmp_path_factory.mktemp("trees")
    wanted = ingest(folder / "whole", messages)
    crashed = folder / "crashed"
    crashed.mkdir()

    def crash(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with Ingestor(crashed, sync=False) as ingestor:
        ingestor.ledger.record = crash  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            ingestor.apply(messages[:size])
    assert ingest(crashed, messages, other_size) == wanted


def test_what_was_half_written_when_a_consumer_was_killed_is_removed(tmp_path: Path) -> None:
    first = received(0, single("frame-1", CREATED, 1, image=draw(1)))
    wanted = ingest(tmp_path, [first])
    half = tmp_path / "data-seed/images/.frame-2.png.partial"
    with Ingestor(tmp_path, sync=False) as ingestor:
        ingestor.ledger.begin(1)  # the last that a consumer does before it writes files of message 1
        half.write_bytes(draw(2)[:20])
    assert ingest(tmp_path, []) == wanted
