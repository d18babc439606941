"""Log lines: JSON, about a run, and at the level the settings file names now."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from trainwright_operator.logs import JsonFormatter, about, name_attempt
from trainwright_operator.service import follow_settings
from trainwright_operator.settings import read_settings


def line() -> dict[str, object]:
    record = logging.LogRecord("trainwright_operator", logging.INFO, "", 0, "%d images", (3,), None)
    told: dict[str, object] = json.loads(JsonFormatter().format(record))
    return told


def test_a_line_names_the_run_and_the_attempt_it_is_about() -> None:
    with about("ml", "parts-1"):
        assert line().items() >= {"namespace": "ml", "run": "parts-1", "message": "3 images"}.items()
        name_attempt(2)
        assert line()["attempt"] == 2
    assert "run" not in line()


@pytest.fixture
def root_level() -> Iterator[None]:
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


@pytest.mark.usefixtures("root_level")
def test_a_changed_log_level_holds_without_a_restart_and_other_settings_are_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "settings.yaml"

    def write(**changes: object) -> None:
        path.write_text(yaml.safe_dump({"trainer": {"image": "trainer:1"}, **changes}))

    async def follow() -> None:
        task = asyncio.create_task(follow_settings(path, read_settings(path), 0.01))
        await asyncio.sleep(0.05)
        for changes, told in (
            ({"logLevel": "debug"}, "the log level is debug now"),
            ({"workers": "many"}, "can't be read"),
            ({"logLevel": "warning", "workers": 3}, "from the next start on"),
        ):
            write(**changes)
            async with asyncio.timeout(5):
                while told not in caplog.text:
                    await asyncio.sleep(0.01)
        task.cancel()

    write()
    asyncio.run(follow())
    assert logging.getLogger().level == logging.WARNING
