"""The history of a training: a row for each epoch, as CSV and for TensorBoard, continued over all attempts.

An epoch that is trained again, as its checkpoint was lost, has one row: the one that the weights come from.
"""

from __future__ import annotations

import csv
import io
import logging
import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainwright_trainer.files import write_atomically

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

_LOG = logging.getLogger(__name__)
EPOCH, SECONDS = "epoch", "time"
Row = dict[str, float]


class TrainingHistory:
    """Rows of epochs in `path`, and as TensorBoard's events in the folder `events`, which follows from them.

    The names of the columns are those of Ultralytics' results.csv; `time` has the seconds of training in all
    attempts until then.
    """

    def __init__(self, path: Path, events: Path) -> None:
        self._path = path
        self._events = events
        self._rows: list[Row] = []
        self._writer: SummaryWriter | None = None

    def begin(self, epochs: int, kept: Mapping[str, Sequence[float]] | None = None) -> None:
        """Go on after so many epochs; their rows are those of the file, or else those a checkpoint kept."""
        rows = [row for row in _read(self._path) if row[EPOCH] <= epochs]
        if not _is_whole(rows, epochs):
            of_checkpoint = [row for row in _transpose(kept or {}) if row[EPOCH] <= epochs]
            rows = max(rows, of_checkpoint, key=len)
        if not _is_whole(rows, epochs):
            _LOG.warning("the history of the training has %d of %d epochs", len(rows), epochs)
        from tensorboardX import SummaryWriter  # noqa: PLC0415 - it imports torch, which takes seconds

        self._rows = rows
        self._start = time.monotonic() - self.seconds
        write_atomically(self._path, _to_csv(rows).encode())
        shutil.rmtree(self._events, ignore_errors=True)
        self._writer = SummaryWriter(str(self._events), max_queue=100)
        for row in rows:
            self._plot(row)
        self._writer.flush()

    def append(self, epoch: int, values: Mapping[str, float]) -> None:
        """Add the row of an epoch; it is on disk when this returns."""
        row = {EPOCH: epoch, SECONDS: round(time.monotonic() - self._start, 3), **values}
        same_columns = not self._rows or self._rows[-1].keys() == row.keys()
        self._rows = [*self._rows, row]
        if same_columns and len(self._rows) > 1:
            with self._path.open("a", encoding="utf-8", newline="") as file:
                csv.writer(file).writerow(row.values())
                file.flush()
                os.fsync(file.fileno())
        else:
            write_atomically(self._path, _to_csv(self._rows).encode())
        if self._writer is not None:
            self._plot(row)
            self._writer.flush()

    def close(self) -> None:
        """End the file of events."""
        if self._writer is not None:
            self._writer.close()

    @property
    def seconds(self) -> float:
        """How long the epochs so far took, in all attempts."""
        return self._rows[-1].get(SECONDS, 0) if self._rows else 0

    def columns(self) -> dict[str, list[float]]:
        """Return the rows as columns, the form in which a checkpoint keeps them."""
        return {name: [row.get(name, math.nan) for row in self._rows] for name in _names(self._rows)}

    def _plot(self, row: Row) -> None:
        assert self._writer is not None  # noqa: S101 - `begin` made it
        for name, value in row.items():
            if name != EPOCH:
                tag = name.removesuffix("(B)")  # for boxes: no character of a name in TensorBoard
                self._writer.add_scalar(tag, value, int(row[EPOCH]), walltime=row.get(SECONDS, 0))


def restore_history(path: Path, events: Path, epochs: int, kept: Mapping[str, Sequence[float]]) -> None:
    """Write the history of a training that ended in another workspace."""
    history = TrainingHistory(path, events)
    history.begin(epochs, kept)
    history.close()


def _is_whole(rows: Sequence[Row], epochs: int) -> bool:
    return [int(row[EPOCH]) for row in rows] == list(range(1, epochs + 1))


def _names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _to_csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, _names(rows), restval="nan")
    if rows:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _read(path: Path) -> list[Row]:
    """Return the rows of a file; a line that a crash cut off, and what follows it, is left out."""
    rows: list[Row] = []
    try:
        whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
        for line in csv.DictReader(io.StringIO(whole)):
            rows.append(_make_row({name: float(value) for name, value in line.items()}))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError, csv.Error):
        _LOG.warning("the history of the training is damaged after epoch %d", len(rows))
    return rows


def _transpose(columns: Mapping[str, Sequence[float]]) -> list[Row]:
    """Return columns as rows; those of an unknown form are none."""
    if EPOCH not in columns or len({len(values) for values in columns.values()}) != 1:
        return []
    lines = zip(*columns.values(), strict=True)
    return [_make_row(dict(zip(columns, values, strict=True))) for values in lines]


def _make_row(values: Mapping[str, float]) -> Row:
    return {**values, EPOCH: int(values[EPOCH])}
