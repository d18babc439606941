"""What `training.arguments` may hold."""

from __future__ import annotations

import sys

import pytest

from trainwright.contract import ArgumentValue, TrainingSettings
from trainwright.errors import ConfigurationError
from trainwright.training_arguments import check_arguments
from trainwright_trainer import argument_table
from trainwright_trainer.steps.training import training_arguments


def test_good_arguments_have_no_problems() -> None:
    arguments: dict[str, ArgumentValue] = {
        "mosaic": 0,
        "lrf": 0.1,
        "cos_lr": True,
        "freeze": 10,
        "cache": "ram",
    }
    assert check_arguments(arguments) == []


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("mosiac", 0.5, "mosiac is not known, did you mean mosaic?"),
        ("zzz", 1, "zzz is not known"),
        ("mosaic", "much", "mosaic is 'much', which is no number"),
        ("mosaic", True, "mosaic is True, which is no number"),
        ("freeze", 1.5, "freeze is 1.5, which is no integer"),
        ("cos_lr", 1, "cos_lr is 1, which is no boolean"),
        ("epochs", 5, "epochs can't be set here: use training.epochs"),
        ("conf", True, "conf is True, which is no number"),
        ("opset", 12, "opset can't be set here: it is no setting of a training"),
    ],
)
def test_a_bad_argument_is_explained(name: str, value: ArgumentValue, problem: str) -> None:
    assert check_arguments({name: value}) == [problem]


@pytest.mark.parametrize(
    "name",
    [
        "project",
        "name",
        "device",
        "resume",
        "data",
        "exist_ok",
        "model",
        "cfg",
        "save_dir",
        "pretrained",
        "time",
    ],
)
def test_paths_devices_and_our_own_matters_are_refused(name: str) -> None:
    assert f"{name} can't be set here" in check_arguments({name: "x"})[0]


def test_all_problems_are_told_at_once() -> None:
    settings = TrainingSettings(arguments={"mosiac": 0.5, "device": "0", "lrf": 0.1})
    with pytest.raises(ConfigurationError, match=r"mosiac is not known.*; device can't be set here"):
        training_arguments(settings)


def test_typed_settings_become_ultralytics_names() -> None:
    arguments = training_arguments(TrainingSettings(epochs=3, batch_size=4, arguments={"mosaic": 0.0}))
    assert (arguments["epochs"], arguments["batch"], arguments["mosaic"]) == (3, 4, 0.0)


def test_the_table_is_that_of_the_pinned_version(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["argument_table", "--check"])
    assert argument_table.main() == 0, capsys.readouterr().err
