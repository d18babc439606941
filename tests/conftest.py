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
