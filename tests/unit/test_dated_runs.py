"""Runs of a server are named by the day; an interrupted one is gone on with, whatever the day."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from annotation_trees import write_tree
from test_standalone_settings import ACCOUNT, NO_FILE

from trainwright.errors import ConfigurationError
from trainwright_trainer.annotations.sample import CLASS_NAMES
from trainwright_trainer.places import Places
from trainwright_trainer.standalone.dated import begin_run
from trainwright_trainer.standalone.variables import read_settings

TODAY, TOMORROW = date(2026, 11, 21), date(2026, 11, 22)
NO_KEYS = Places(Path())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "azaion")


def begin(root: Path, today: date = TODAY, keys: Places = NO_KEYS, gpus: int = 0, **variables: str) -> str:
    """Begin a run and leave it, as a process that is killed does; return its name."""
    settings = read_settings(NO_FILE, {**ACCOUNT, "AZAION_ROOT_DIR": str(root), **variables})
    with begin_run(settings, keys, gpus=gpus, today=today) as dated:
        assert dated.places.workspace == root / "unfinished" / dated.name
        return dated.name


def finish(root: Path, name: str) -> None:
    (root / "models" / name).mkdir(parents=True)
    (root / "unfinished" / name).rename(root / "unfinished" / f".{name}")


def test_an_interrupted_run_is_gone_on_with_the_same_day_and_the_next(root: Path) -> None:
    assert begin(root) == "azaion-2026-11-21"
    assert begin(root) == "azaion-2026-11-21"
    assert begin(root, TOMORROW) == "azaion-2026-11-21"


def test_a_second_run_of_a_day_has_a_number(root: Path) -> None:
    finish(root, begin(root))
    assert begin(root) == "azaion-2026-11-21-2"
    assert not list((root / "unfinished").glob(".azaion-*")), "what a finished run left is still there"
    finish(root, "azaion-2026-11-21-2")
    assert begin(root, TOMORROW) == "azaion-2026-11-22"


def test_a_name_that_a_dataset_or_model_bears_is_taken(root: Path) -> None:
    (root / "datasets" / "azaion-2026-11-21").mkdir(parents=True)
    (root / "models" / "azaion-2026-11-21-2").mkdir(parents=True)
    assert begin(root) == "azaion-2026-11-21-3"


def test_other_settings_are_another_run(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    begin(root)
    assert begin(root, TRAINING_BATCH_SIZE="8") == "azaion-2026-11-21-2"
    assert "other settings" in caplog.text
    assert begin(root) == "azaion-2026-11-21", "the first one is there still"
    assert begin(root, gpus=1) == "azaion-2026-11-21-3"


def test_a_workspace_that_says_nothing_of_itself_is_not_gone_on_with(root: Path) -> None:
    begin(root)
    (root / "unfinished" / "azaion-2026-11-21" / "plan.json").write_text('{"plan')
    assert begin(root) == "azaion-2026-11-21-2"


def test_the_plan_is_what_the_variables_say(root: Path) -> None:
    variables = {"TRAINING_EPOCHS": "3", "EXPORT_ONNX_IMGSZ": "640", "AZAION_DATA_DIR": "valid"}
    settings = read_settings(NO_FILE, {**ACCOUNT, "AZAION_ROOT_DIR": str(root), **variables})
    with begin_run(settings, NO_KEYS, gpus=0, today=TODAY) as dated:
        plan = dated.plan
    assert (plan.model.name, plan.model.version) == ("azaion", "2026-11-21")
    assert (plan.training.epochs, plan.export_image_size) == (3, 640)
    assert (plan.dataset.directories.data, plan.dataset.directories.seed) == ("valid", "data-seed")
    assert plan.delivery is None
    assert ACCOUNT["AZAION_API_PASSWORD"] not in plan.to_json()


def test_a_model_is_delivered_with_both_keys_or_not_at_all(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--signing-key"):
        begin(root, keys=Places(Path(), recipients=tmp_path))
    settings = read_settings(NO_FILE, {**ACCOUNT, "AZAION_ROOT_DIR": str(root)})
    keys = Places(Path(), recipients=tmp_path, signing_key=tmp_path)
    with begin_run(settings, keys, gpus=0, today=TODAY) as dated:
        assert dated.plan.delivery is not None
        assert dated.plan.delivery.api.url == ACCOUNT["AZAION_API_URL"]
        assert dated.places.read_account().password == ACCOUNT["AZAION_API_PASSWORD"]
        assert ACCOUNT["AZAION_API_PASSWORD"] not in repr(dated)


def test_classes_beside_the_earlier_scripts_do_where_the_root_has_none(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "classes.json").rename(tmp_path / "classes.json")
    monkeypatch.chdir(tmp_path)
    settings = read_settings(NO_FILE, {**ACCOUNT, "AZAION_ROOT_DIR": str(root)})
    with begin_run(settings, NO_KEYS, gpus=0, today=TODAY) as dated:
        classes = dated.plan.dataset.classes.given
    assert classes is not None
    assert classes.names == CLASS_NAMES


def test_a_root_that_is_no_folder_of_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="AZAION_ROOT_DIR"):
        begin(tmp_path / "file")
