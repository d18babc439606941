"""The operator's settings are refused at its start, not run by run."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from trainwright_operator.settings import read_settings


@pytest.mark.parametrize(
    ("defaults", "named"),
    [
        ({"training": {"epoch": 5}}, "training.epoch"),
        ({"compute": {"gpus": "many"}}, "compute.gpus"),
        ({"dataset": {"annotationStream": {"host": "mq"}}}, "dataset.annotationStream.stream"),
    ],
)
def test_defaults_that_no_run_could_have_keep_the_operator_from_starting(
    defaults: dict[str, object], named: str, tmp_path: Path
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump({"trainer": {"image": "trainer:1"}, "defaults": defaults}))
    with pytest.raises(ValidationError, match=named):
        read_settings(path)
