"""Uses the one stack that all tests of whole runs share."""

from __future__ import annotations

import pytest
import whole_stack


def pytest_configure(config: pytest.Config) -> None:
    """Make its fixtures known; whoever comes second finds them there."""
    if not config.pluginmanager.has_plugin("whole_stack"):
        config.pluginmanager.register(whole_stack, "whole_stack")
