"""What `training.arguments` may hold."""

from __future__ import annotations

import sys
from importlib.metadata import distribution

import pytest
import yaml

from trainwright.contract import ArgumentValue, LossSettings, OnlineAugmentation, TrainingSettings
from trainwright.errors import ConfigurationError
from trainwright.training_arguments import check_arguments
from trainwright_trainer import argument_table
from trainwright_trainer.steps.training import training_arguments


def test_good_arguments_have_no_problems() -> None:
    arguments: dict[str, ArgumentValue] = {
        "conf": 0.1,
        "max_det": 100,
        "compile": "default",
        "cls_remap": False,
    }
    assert check_arguments(arguments) == []


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("mosiac", 0.5, "mosiac is not known, did you mean training.augmentation.mosaic?"),
        ("max_dets", 9, "max_dets is not known, did you mean max_det?"),
        ("zzz", 1, "zzz is not known"),
        ("iou", "much", "iou is 'much', which is no number"),
        ("max_det", 1.5, "max_det is 1.5, which is no integer"),
        ("cls_remap", 1, "cls_remap is 1, which is no boolean"),
        ("mosaic", 0.5, "mosaic can't be set here: use training.augmentation.mosaic"),
        ("time", 2, "time can't be set here: use training.maxHours"),
        ("dropout", 0.1, "dropout can't be set here: it is for other tasks than detection"),
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
    ],
)
def test_paths_devices_and_our_own_matters_are_refused(name: str) -> None:
    assert f"{name} can't be set here" in check_arguments({name: "x"})[0]


def test_all_problems_are_told_at_once() -> None:
    settings = TrainingSettings(arguments={"mosiac": 0.5, "device": "0", "iou": 0.1})
    with pytest.raises(ConfigurationError, match=r"mosiac is not known.*; device can't be set here"):
        training_arguments(settings)


def test_typed_settings_become_ultralytics_names() -> None:
    settings = TrainingSettings(
        epochs=3,
        batch_size=4,
        final_learning_rate=0.1,
        augmentation=OnlineAugmentation(mosaic=0.0, hsv_h=0.2),
        loss=LossSettings(class_balance=0.5),
        arguments={"conf": 0.2},
    )
    arguments = training_arguments(settings)
    wanted = {"epochs": 3, "batch": 4, "lrf": 0.1, "mosaic": 0.0, "hsv_h": 0.2, "cls_pw": 0.5, "conf": 0.2}
    assert {name: arguments[name] for name in wanted} == wanted


def test_the_built_in_settings_are_those_of_ultralytics_but_for_the_size_of_a_training() -> None:
    text = distribution("ultralytics").locate_file("ultralytics/cfg/default.yaml").read_text()
    theirs = yaml.safe_load(text) | {"freeze": 0}
    ours = training_arguments(TrainingSettings())
    assert {name for name, value in ours.items() if value != theirs[name]} == {"epochs", "batch", "imgsz"}


def test_the_table_is_that_of_the_pinned_version(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["argument_table", "--check"])
    assert argument_table.main() == 0, capsys.readouterr().err
