"""The documents of the repository as data: fenced blocks, commands, links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])

_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
_INDENTED = re.compile(r"^ {4}((?:trainwright|kubectl)[\w-]* .*)$", re.MULTILINE)
_LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    path: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line or ''}"


@dataclass(frozen=True)
class Command:
    """One command of a console block, as words; a pipeline is several."""

    block: Block
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.block}: {shlex.join(self.words)}"


def read_blocks(*languages: str, documents: list[Path] = DOCUMENTS) -> list[Block]:
    """Return the fenced blocks in these languages."""
    return [block for path in documents for block in _blocks_of(path) if block.language in languages]


def read_commands(documents: list[Path] = DOCUMENTS) -> list[Command]:
    """Return every command: of console blocks the lines after a `$`, and indented lines that call ours."""
    lines = [
        (block, line)
        for block in read_blocks("console", "", documents=documents)
        for line in re.findall(r"^\$ (.*)$", block.text.replace("\\\n", " "), re.MULTILINE)
    ]
    for path in documents:
        indented = _INDENTED.findall(_FENCE.sub("", path.read_text()))
        lines += [(Block(path, 0, "", line), line) for line in indented]
    return [Command(block, words) for block, line in lines for words in _split(line)]


def read_objects(documents: list[Path] = DOCUMENTS) -> list[tuple[Block, dict[str, Any]]]:
    """Return every Kubernetes object of the YAML blocks."""
    return [
        (block, item)
        for block in read_blocks("yaml", documents=documents)
        for item in yaml.safe_load_all(block.text)
        if isinstance(item, dict) and {"apiVersion", "kind"} <= item.keys()
    ]


def read_links(path: Path) -> list[tuple[str, str]]:
    """Return the links of a document to files of the repository: path, and anchor or nothing."""
    targets = [match["target"] for match in _LINK.finditer(_FENCE.sub("", path.read_text()))]
    links = [target.partition("#") for target in targets if "://" not in target]
    return [(file, anchor) for file, _, anchor in links]


def read_anchors(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _blocks_of(path: Path) -> Iterator[Block]:
    text = path.read_text()
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield Block(path, line, match["language"], match["text"])


def _split(line: str) -> Iterator[tuple[str, ...]]:
    """Yield the commands of a line: of a pipeline each, of `name=$(...)` what is inside."""
    inner = re.fullmatch(r"\w+=\$\((.*)\)", line)
    lexer = shlex.shlex(inner[1] if inner else line, posix=True, punctuation_chars="|>")
    lexer.whitespace_split = True
    words: list[str] = []
    redirected = False
    for word in lexer:
        if word == "|":
            yield tuple(words)
            words = []
        elif word == ">":
            redirected = True
        elif redirected:
            redirected = False
        else:
            words.append(word)
    yield tuple(words)
