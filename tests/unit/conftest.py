"""Fixtures of the tests of the chart: helm, and what it renders."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from chart_rendering import Objects, Render, render_chart
from prerequisites import require_program


@pytest.fixture(scope="module")
def helm() -> str:
    """The program helm; without it the test is skipped, or fails in CI."""
    return require_program("helm")


@pytest.fixture(scope="module")
def render(helm: str) -> Render:
    """Return a function from values to the objects the chart renders."""

    def render_values(**values: Any) -> Objects:
        done = render_chart(helm, values)
        assert done.returncode == 0, done.stderr
        return [item for item in yaml.safe_load_all(done.stdout) if item]

    return render_values
