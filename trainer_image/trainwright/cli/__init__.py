"""The `trainwright` command: keys, fetching and inspecting sealed models."""

from trainwright.cli.commands import main

__all__ = ["main"]
