"""A run as `kubectl get` prints it: the API server itself fills the columns in."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]

GAP = "   "


def format_table(table: Object) -> str:
    """Return the text of a meta/v1 Table: its columns of priority 0, as wide as they have to be."""
    shown = [index for index, column in enumerate(table["columnDefinitions"]) if not column["priority"]]
    rows = [[table["columnDefinitions"][index]["name"].upper() for index in shown]]
    rows += [[_text(row["cells"][index]) for index in shown] for row in table["rows"]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(shown))]
    return "\n".join(
        GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _text(cell: object) -> str:
    return "" if cell is None else str(cell)
