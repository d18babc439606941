"""The journal is believed only when everything it says still holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainwright.artifacts import OnnxModel
from trainwright.contract import Stage
from trainwright.errors import ConfigurationError
from trainwright_trainer.files import digest_bytes
from trainwright_trainer.journal import Journal

PLAN, INPUT = digest_bytes(b"plan"), digest_bytes(b"input")
MODEL = OnnxModel(path="export/model.onnx", digest=digest_bytes(b"onnx"), size=4, opset=18, end_to_end=False)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace in which the export is done."""
    (tmp_path / "export").mkdir()
    (tmp_path / MODEL.path).write_bytes(b"onnx")
    Journal(tmp_path, PLAN).record(Stage.EXPORT, INPUT, MODEL, files=[MODEL.path], seconds=2.5)
    return tmp_path


def recall(workspace: Path, input_digest: str = INPUT) -> OnnxModel | None:
    found = Journal(workspace, PLAN).recall(Stage.EXPORT, input_digest, OnnxModel)
    return found and found[0]


def test_a_finished_stage_is_recalled_with_its_seconds(workspace: Path) -> None:
    assert Journal(workspace, PLAN).recall(Stage.EXPORT, INPUT, OnnxModel) == (MODEL, 2.5)


def test_another_stage_or_input_is_not_done(workspace: Path) -> None:
    assert Journal(workspace, PLAN).recall(Stage.VERIFICATION, INPUT, OnnxModel) is None
    assert recall(workspace, digest_bytes(b"other input")) is None


def test_a_changed_or_missing_output_is_made_again(workspace: Path) -> None:
    (workspace / MODEL.path).write_bytes(b"0nnx")
    assert recall(workspace) is None
    (workspace / MODEL.path).unlink()
    assert recall(workspace) is None


def test_a_crash_while_writing_leaves_the_former_journal(workspace: Path) -> None:
    (workspace / "journal.json.partial").write_text('{"planDigest": "sha256:')
    assert recall(workspace) == MODEL


@pytest.mark.parametrize("content", ["", "{", "[]", '{"planDigest": "x"}', '{"entries": {}}'])
def test_a_damaged_journal_says_nothing_is_done(workspace: Path, content: str) -> None:
    (workspace / "journal.json").write_text(content)
    assert recall(workspace) is None


def test_an_output_of_another_kind_is_made_again(workspace: Path) -> None:
    text = (workspace / "journal.json").read_text()
    (workspace / "journal.json").write_text(text.replace("endToEnd", "endToBegin"))
    assert recall(workspace) is None


def test_the_journal_of_another_plan_is_refused(workspace: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds the work of another plan"):
        Journal(workspace, digest_bytes(b"another plan"))


def test_later_stages_keep_the_earlier_ones(workspace: Path) -> None:
    Journal(workspace, PLAN).record(Stage.VERIFICATION, INPUT, MODEL, files=[], seconds=1)
    assert recall(workspace) == MODEL


def test_the_workspace_may_be_mounted_elsewhere(
    workspace: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "workspace"
    workspace.rename(elsewhere)
    assert recall(elsewhere) == MODEL
