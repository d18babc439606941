"""`.env.example` is complete, explained, and holds no secret."""

from __future__ import annotations

import re
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / ".env.example"

NAMES_AND_DEFAULTS = {
    "AZAION_API_URL": None,
    "AZAION_API_EMAIL": None,
    "AZAION_API_PASSWORD": "changeme",
    "RABBITMQ_HOST": "127.0.0.1",
    "RABBITMQ_PORT": "5552",
    "RABBITMQ_USER": "changeme",
    "RABBITMQ_PASSWORD": "changeme",
    "RABBITMQ_QUEUE_NAME": "azaion-annotations",
    "AZAION_ROOT_DIR": "/azaion",
    "AZAION_DATA_DIR": "data",
    "AZAION_DATA_SEED_DIR": "data-seed",
    "AZAION_DATA_DELETED_DIR": "data_deleted",
    "TRAINING_MODEL": "yolo26m.pt",
    "TRAINING_EPOCHS": "120",
    "TRAINING_BATCH_SIZE": "11",
    "TRAINING_IMGSZ": "1280",
    "TRAINING_SAVE_PERIOD": "1",
    "TRAINING_WORKERS": "24",
    "EXPORT_ONNX_IMGSZ": "1280",
}


def read_example() -> list[str]:
    return EXAMPLE.read_text().splitlines()


def read_values() -> dict[str, str]:
    return dict(line.split("=", 1) for line in read_example() if line and not line.startswith("#"))


def test_it_names_every_variable_in_order_and_no_other() -> None:
    assert list(read_values()) == list(NAMES_AND_DEFAULTS)


def test_defaults_are_the_documented_ones() -> None:
    fixed = {name: value for name, value in NAMES_AND_DEFAULTS.items() if value is not None}
    assert {name: read_values()[name] for name in fixed} == fixed


def test_addresses_are_reserved_for_examples() -> None:
    values = read_values()
    assert values["AZAION_API_URL"] == "https://api.example.com"
    assert values["AZAION_API_EMAIL"].endswith("@example.com")


def test_each_variable_has_a_comment_of_its_own() -> None:
    lines = read_example()
    for number, line in enumerate(lines):
        if line and not line.startswith("#"):
            assert re.fullmatch(r"# [A-Z].{8,}\.", lines[number - 1]), f"{line} has no sentence above it"


def test_no_line_can_be_read_two_ways() -> None:
    for name, value in read_values().items():
        assert re.fullmatch(r"[A-Z][A-Z0-9_]*", name)
        assert re.fullmatch(r"[A-Za-z0-9@:/._-]+", value), f"{name} needs quoting in some readers"
