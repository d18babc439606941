"""Applies messages to the trees: in batches, each of them wholly or again."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from trainwright.contract import Directories
from trainwright.errors import ConfigurationError
from trainwright_trainer.ingestion.announcement import Announcement
from trainwright_trainer.ingestion.dead_letters import DeadLetters, LostLetter
from trainwright_trainer.ingestion.events import ADOPTED, NOWHERE, Event, settle
from trainwright_trainer.ingestion.ledger import Ledger, Position
from trainwright_trainer.ingestion.messages import Message, PoisonError, read_message
from trainwright_trainer.ingestion.offsets import OffsetFile
from trainwright_trainer.ingestion.trees import Changes, Trees
from trainwright_trainer.ingestion.volume import using
from trainwright_trainer.workspace_lock import lock_workspace

FOLDER, OFFSET_FILE = ".trainwright", "offset.yaml"
SLICE = 500
"""So many names of one message are applied at once; other messages are applied between the slices."""

_UNPACKED_BYTES = 64 * 1024 * 1024  # of messages that are held at once
_MOST_PENDING = 200_000  # names that are left to do, before more is read
_KEPT_UP_WITH = 10_000  # names that are left to do; with more of them there are more slices at a time
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Received:
    """A message as the broker gave it; `time` is in microseconds since 1970, and the broker's."""

    offset: int
    time: int
    body: bytes
    properties: Mapping[Any, Any]


@dataclass
class Results:
    """What became of a batch: messages by result, and names whose files changed."""

    messages: Counter[str] = field(default_factory=Counter)
    poison: Counter[str] = field(default_factory=Counter)
    changed: int = 0


class Ingestor:
    """The one that writes to the trees of a root; a second one is refused.

    Its offset is that of the last message before which, itself included, everything is applied and durable.
    """

    def __init__(self, root: Path, directories: Directories | None = None, *, sync: bool = True) -> None:
        self._root, self._sync = root, sync
        self._directories = directories or Directories()
        self._trees = Trees(root, self._directories, sync=sync)
        self._bulk: deque[tuple[int, Message, int]] = deque()  # offset, message, names that are done
        self._pending = 0  # names of those
        self._read: Position | None = None

    def __enter__(self) -> Self:
        folder = self._root / FOLDER
        with ExitStack() as stack:
            stack.callback(self._trees.close)
            with using(folder):
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(lock_workspace(folder))
            self.dead_letters = DeadLetters(folder / "dead-letters")
            self.offset_file = OffsetFile(self._root / OFFSET_FILE)
            self.ledger = Ledger(folder, durable=self._sync)
            stack.callback(self.ledger.close)
            self._check_directories()
            self._trees.create()
            if self.ledger.is_new:
                with using(self._root):
                    self._take_over()
            self._read = self.ledger.position
            self._begun = self.ledger.begun
            if self._is_again() or self.ledger.is_replaying:
                with using(self._root):
                    self._trees.sweep()
            if self.ledger.is_replaying:  # files of a letter may be there that the ledger knows nothing of
                self.replay_dead_letters()
                self.dead_letters.sweep()
            if self.offset is not None:  # a consumer may have ended between the ledger and the file
                self.offset_file.write(self.offset)
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    @property
    def offset(self) -> int | None:
        """The offset up to which every message is applied and durable."""
        position = self.ledger.position
        return None if position is None else position.offset

    @property
    def reached(self) -> Position | None:
        """Up to where messages were taken in: of some of them names may be left to do."""
        return self._read

    @property
    def has_more(self) -> bool:
        """Whether names of a message with many are left to do."""
        return bool(self._bulk)

    @property
    def is_busy(self) -> bool:
        """Whether so many names are left to do that no more should be read."""
        return self._pending > _MOST_PENDING

    def apply(self, batch: Sequence[Received]) -> Results:
        """Apply messages, and a slice of those with many names; when this returns all of it is durable."""
        results = Results()
        left = deque(batch)
        while True:
            messages, last = self._read_some(left, results)
            if last is not None:
                self.ledger.begin(last)
            events = [event for message in messages for event in message.events()]
            for _ in range(1 + self._pending // _KEPT_UP_WITH):
                events += self._next_slice()
            images = {digest: image for message in messages for digest, image in message.images()}
            new = self._place(events, images, results, again=self._is_again())
            self.ledger.record(new, position=self._finished())
            if not left:
                break
        if self.offset is not None:
            self.offset_file.write(self.offset)
        return results

    def _read_some(self, left: deque[Received], results: Results) -> tuple[list[Message], int | None]:
        """Take messages, no more than fit into memory unpacked; return them, and the last one's offset."""
        messages: list[Message] = []
        size, last = 0, None
        while left and size < _UNPACKED_BYTES:
            received = left.popleft()
            message = self._read_or_keep(received, results)
            last = received.offset
            self._read = Position(received.offset, received.time)
            if message is None:
                continue
            if len(message.names) > SLICE:
                self._bulk.append((received.offset, message, 0))
                self._pending += len(message.names)
                continue
            messages.append(message)
            size += message.size
        return messages, last

    def replay_dead_letters(self) -> Results:
        """Try the dead letters again; those that can be applied now leave the folder."""
        results = Results()
        self.ledger.begin_replay()
        for letter in self.dead_letters:
            if isinstance(letter, LostLetter):
                results.messages["unreadable"] += 1
                continue
            with using(letter.body):
                received = Received(letter.offset, letter.time, letter.body.read_bytes(), letter.properties)
            try:
                message = read_message(received.body, received.properties, broker_time=received.time)
            except PoisonError as error:
                results.messages["poison"] += 1
                results.poison[error.rule] += 1
                continue
            new = self._place(message.events(), dict(message.images()), results, again=True)
            self.ledger.record(new, position=None)
            with using(letter.note):
                letter.remove()
            results.messages["applied"] += 1
        self.ledger.end_replay()
        return results

    def announce(self, stream: str) -> None:
        """Tell others which stream is read into these trees."""
        Announcement(stream=stream, directories=self._directories).write(self._root / FOLDER)

    def rewind(self) -> None:
        """Let the stream be read from its beginning again: what is applied stays."""
        self.ledger.rewind()
        self.offset_file.remove()
        self._read = None

    def _read_or_keep(self, received: Received, results: Results) -> Message | None:
        try:
            message = read_message(received.body, received.properties, broker_time=received.time)
        except PoisonError as error:
            self.dead_letters.keep(received.offset, received.time, received.properties, received.body, error)
            _LOG.warning("message %d is kept as a dead letter: %s", received.offset, error)
            results.messages["poison"] += 1
            results.poison[error.rule] += 1
            return None
        results.messages[message.event.status.name.lower()] += 1
        return message

    def _next_slice(self) -> list[Event]:
        if not self._bulk:
            return []
        offset, message, done = self._bulk.popleft()
        events = list(message.events(done, done + SLICE))
        self._pending -= len(events)
        if done + len(events) < len(message.names):
            self._bulk.append((offset, message, done + len(events)))
        return events

    def _finished(self) -> Position | None:
        """Up to where nothing is left to do."""
        unfinished = min((offset for offset, _, _ in self._bulk), default=None)
        if unfinished is None:
            return self._read
        former = self.ledger.position
        if unfinished > 0 and (former is None or unfinished - 1 > former.offset):
            return Position(unfinished - 1)
        return former

    def _check_directories(self) -> None:
        wanted = str(self._directories)
        found = self.ledger.settle_directories(wanted)
        if found != wanted:
            raise ConfigurationError(
                f"the annotations in {self._root} are in the directories {found}, not in {wanted}",
                hint="Name the same directories to everybody who reads a stream into these trees; others need"
                " another root.",
            )

    def _is_again(self) -> bool:
        """Whether an earlier consumer may have been here before it ended, and not have written it down."""
        offset = self.offset
        return self._begun is not None and (offset is None or offset < self._begun)

    def _place(
        self, events: Iterable[Event], images: Mapping[str, bytes], results: Results, *, again: bool
    ) -> list[Event]:
        """Make the files of every name what its events make of them; return the events that are new."""
        by_name: dict[str, dict[bytes, Event]] = {}
        for event in events:
            by_name.setdefault(event.name, {}).setdefault(event.key, event)  # the broker had the first first
        histories = self.ledger.histories(list(by_name))
        changes, new = Changes(), []
        for name, told in by_name.items():
            history = histories.get(name, [])
            known = {event.key for event in history}
            fresh = [event for key, event in told.items() if key not in known]
            if not fresh:
                continue
            new += fresh
            before, after = settle(history) if history else NOWHERE, settle([*history, *fresh])
            if after.has_files and after != before:
                # An earlier consumer may have left a name's files in several places.
                unsure = again or before.image == ADOPTED
                plan = self._trees.plan_again if unsure else self._trees.plan
                plan(name, before, after, images, changes)
                results.changed += 1
        for path in self._trees.carry_out(changes):
            _LOG.warning("%s was to be moved, and is not there: somebody else took it away", path)
        return new

    def _take_over(self) -> None:
        """Begin the ledger with what an earlier consumer left: its files, and its offset."""
        adopted = list(self._trees.adopt())
        offset = self.offset_file.read()
        self.ledger.record(adopted, position=None if offset is None else Position(offset))
        if adopted or offset is not None:
            _LOG.info("took over %d files and offset %s of an earlier consumer", len(adopted), offset)
