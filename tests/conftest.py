"""Options of all tests."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the tests of whole runs be made on a real node."""
    parser.addoption(
        "--cluster",
        choices=("process", "node"),
        default="process",
        help="where tests of whole runs have their pods: as processes of this machine, or on a node with"
        " kubelet and containerd, which needs root and some programs, and says which are missing",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only a real node can show, unless there is to be one: it is no test that was skipped."""
    if config.getoption("--cluster") == "node":
        return
    left_out = [item for item in items if item.get_closest_marker("real_node")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
