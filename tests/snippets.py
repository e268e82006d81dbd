"""The programs of a page: read from its Markdown, and run one after the other.

A comment right before a block says what a reader need not see:

    <!-- before: ... -->   code that is run first: what the page takes for granted
    <!-- not run: why -->  the block cannot run in a test
    <!-- printed -->       a block of text: the words that the block before it prints, and numbers
                           of the same size
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w.]*\w)")
APART = 3.0  # a number may be so many times the one that is shown

_BLOCK = re.compile(
    r"(?:<!-- (?P<mark>before|not run|printed)(?::(?P<note>.*?))?\s*-->\s*?\n)?"
    r"^```(?P<kind>\w*)\n(?P<code>.*?)^```",
    re.S | re.M,
)


@dataclass(frozen=True)
class Block:
    """One fenced block with the comment before it.

    Args:
        mark, note: of the comment; "" where there is none.
    """

    kind: str
    code: str
    mark: str
    note: str

    @property
    def runs(self) -> bool:
        return self.kind == "python" and self.mark != "not run"


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page."""
    return [
        Block(found["kind"], found["code"], found["mark"] or "", (found["note"] or "").strip())
        for found in _BLOCK.finditer(page.read_text(encoding="utf-8"))
    ]


def run(page: Path) -> Iterator[tuple[Block, str]]:
    """Run what runs, in one namespace: each block, and what the last program has printed."""
    names: dict[str, Any] = {"__name__": "__main__"}
    printed = ""
    for block in blocks(page):
        if block.runs:
            before = block.note if block.mark == "before" else ""
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(before, f"{page.name}, before", "exec"), names)
            with contextlib.redirect_stdout(io.StringIO()) as shown:
                exec(compile(block.code, page.name, "exec"), names)
            printed = shown.getvalue()
        yield block, printed


def differs(shown: str, printed: str) -> str:
    """What of a block of text is not in the output, in words; "" where it agrees.

    Lines of the block have to come in the output in their order; "..." stands for any lines.
    """
    rest = [_words(line) for line in printed.splitlines()]
    for line in filter(str.strip, shown.splitlines()):
        if line.strip() == "...":
            continue
        words, numbers = _words(line)
        found = [k for k, (same, _) in enumerate(rest) if same == words]
        if not found:
            return f"not printed: {line}"
        for one, other in zip(numbers, rest[found[0]][1], strict=True):
            if not 1 / APART <= (abs(one) + 1e-9) / (abs(other) + 1e-9) <= APART:
                return f"{one} is shown and {other} printed: {line}"
        rest = rest[found[0] + 1 :]
    return ""


def _words(line: str) -> tuple[str, list[float]]:
    """A line with a sign for every number, and the numbers."""
    plain = re.sub(r"(?<=\d) (?=\d{3}\b)", "", " ".join(line.split()))
    return NUMBER.sub("#", plain), [float(number) for number in NUMBER.findall(plain)]
