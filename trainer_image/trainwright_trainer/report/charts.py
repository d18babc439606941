"""Charts as SVG text, drawn by matplotlib without its global state; the same figures give the same bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from io import StringIO

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trainwright.contract import ClassResult, ConfusedPair

COLOURS = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f")
_INK, _GRID = "#334155", "#e2e8f0"
_MOST_CURVES = 8
_MOST_CELLS = 20
_BACKGROUND = "background"
_SIDES = ("train", "valid", "test")


def draw_lines(
    title: str, rows: Sequence[Mapping[str, float]], columns: Mapping[str, str], *, shares: bool = False
) -> str:
    """Draw columns of rows over the epoch, by the names they are to have; '' where there is none."""
    present = {
        column: name for column, name in columns.items() if any(_is_drawn(row, column) for row in rows)
    }
    if not present:
        return ""
    figure, axes = _begin(title, "epoch")
    for colour, (column, name) in zip(_cycle(len(present)), present.items(), strict=True):
        drawn = [(row["epoch"], row[column]) for row in rows if _is_drawn(row, column)]
        epochs, values = zip(*drawn, strict=True)
        axes.plot(
            epochs, values, color=colour, label=name, linewidth=1.6, marker="o" if len(drawn) < 3 else ""
        )
    if shares:
        axes.set_ylim(0, 1.02)
    axes.legend(frameon=False, fontsize=8)
    return _finish(figure)


def draw_curves(classes: Sequence[ClassResult]) -> str:
    """Draw precision over recall, for the classes with the most boxes and for the mean of all."""
    curves = [result for result in classes if result.curve]
    if not curves:
        return ""
    figure, axes = _begin("Precision and recall", "recall")
    recalls = np.linspace(0, 1, len(curves[0].curve))
    shown = sorted(curves, key=lambda result: -result.boxes)[:_MOST_CURVES]
    for colour, result in zip(_cycle(len(shown)), shown, strict=True):
        axes.plot(recalls, result.curve, color=colour, linewidth=1.2, label=_shorten(result.name))
    mean = np.mean([result.curve for result in curves], axis=0)
    axes.plot(recalls, mean, color=_INK, linewidth=2.4, label="mean of classes")
    axes.set_ylabel("precision", fontsize=9)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.legend(frameon=False, fontsize=8, loc="lower left")
    return _finish(figure)


def draw_confusion(pairs: Sequence[ConfusedPair]) -> str:
    """Draw which class was found as which: rows are what is there, columns what was found."""
    names = _names_of(pairs)
    if not names:
        return ""
    rows = [*names, _BACKGROUND]
    table = np.zeros((len(rows), len(rows)))
    place = {name: index for index, name in enumerate(rows)}
    for pair in pairs:
        label, found = pair.label or _BACKGROUND, pair.found or _BACKGROUND
        if label in place and found in place:
            table[place[label], place[found]] += pair.count
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    size = max(4.2, 0.42 * len(rows) + 1.6)
    figure = Figure(figsize=(size, size))
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in zip(*np.nonzero(table), strict=True):
        colour = "white" if shares[row, column] > 0.55 else _INK
        axes.text(
            column, row, f"{table[row, column]:.0f}", ha="center", va="center", fontsize=8, color=colour
        )
    ticks = [_shorten(name) for name in rows]
    axes.set_xticks(range(len(rows)), ticks, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(rows)), ticks, fontsize=8)
    axes.set_xlabel("found", fontsize=9)
    axes.set_ylabel("labelled", fontsize=9)
    axes.set_title("Confusion matrix", fontsize=10, color=_INK, loc="left")
    return _finish(figure)


def draw_balance(classes: Sequence[Mapping[str, object]]) -> str:
    """Draw the boxes of each class in each split, the most frequent classes first."""
    counted = [
        (str(each["name"]), [_boxes(each, side) for side in ("train", "valid", "test")]) for each in classes
    ]
    shown = sorted(counted, key=lambda each: -sum(each[1]))[:_MOST_CELLS]
    if not shown:
        return ""
    figure, axes = _begin("Boxes by class and split", "")
    left = np.zeros(len(shown))
    names = [_shorten(name) for name, _ in shown]
    for index, (side, colour) in enumerate(zip(_SIDES, COLOURS, strict=False)):
        widths = np.array([boxes[index] for _, boxes in shown], dtype=float)
        axes.barh(names, widths, left=left, color=colour, label=side)
        left += widths
    axes.invert_yaxis()
    figure.legend(frameon=False, fontsize=8, ncols=len(_SIDES), loc="upper right")
    return _finish(figure)


def _boxes(each: Mapping[str, object], side: str) -> float:
    counts = each.get(side)
    return float(counts.get("boxes", 0)) if isinstance(counts, Mapping) else 0.0


def _names_of(pairs: Sequence[ConfusedPair]) -> list[str]:
    """Return the classes with the most boxes, in the order of their names."""
    totals: dict[str, int] = {}
    for pair in pairs:
        for name in {pair.label, pair.found} - {None}:
            totals[str(name)] = totals.get(str(name), 0) + pair.count
    return sorted(sorted(totals, key=lambda name: (-totals[name], name))[:_MOST_CELLS])


def _is_drawn(row: Mapping[str, float], column: str) -> bool:
    return math.isfinite(row.get(column, math.nan))


def _cycle(number: int) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(number)]


def _shorten(name: str) -> str:
    return name if len(name) <= 18 else name[:17] + "…"


def _begin(title: str, x_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.6, 3.3))
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=10, color=_INK, loc="left")
    axes.set_xlabel(x_label, fontsize=9)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, colors=_INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _finish(figure: Figure) -> str:
    """Return the figure as an <svg> element: glyphs as paths, so that it looks the same everywhere."""
    figure.tight_layout()
    file = StringIO()
    with mpl.rc_context({"svg.hashsalt": "trainwright", "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return text[text.index("<svg") :]
