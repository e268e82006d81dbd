"""Numbers, tables and lists of sentences in a report."""

from __future__ import annotations

import io
import math
import os
import re
import shutil
import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from ..statistics.estimate import Estimate, Status, short
from .plain import can_show, in_ascii, part_in_ascii

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
MOST, USUAL, LEAST = 100, 80, 40


def width() -> int:
    """Characters of a line: those of the terminal, from 40 to 100; else of COLUMNS, or 80."""
    if sys.stdout is not None and sys.stdout.isatty():
        columns = shutil.get_terminal_size().columns
    else:
        said = os.environ.get("COLUMNS", "")
        columns = int(said) if said.isdecimal() else USUAL
    return max(LEAST, min(MOST, columns))


def render(parts: Sequence[Text | Table]) -> str:
    """Texts and tables as plain text; in ASCII where stdout has no Greek letters."""
    plain = not can_show(getattr(sys.stdout, "encoding", None))
    console = _console(width())
    console.print(Group(*map(part_in_ascii, parts) if plain else parts))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    text = "\n".join(line.rstrip() for line in text.rstrip().split("\n"))
    text = CONTROL.sub("", text)  # a name must not steer the terminal
    return in_ascii(text) if plain else text


def integer(number: float) -> str:
    """The nearest whole number, thousands separated by a space: 12 345."""
    return f"{number:,.0f}".replace(",", " ")


def duration(seconds: float) -> str:
    """Two digits in seconds, minutes or hours: 0.25 s, 42 s, 3.5 min, 1.2 h."""
    for unit, size in (("s", 1), ("min", 60)):
        if seconds < 99.5 * size:
            return f"{float(f'{seconds / size:.2g}'):g} {unit}"
    return f"{float(f'{seconds / 3600:.2g}'):g} h"


def cells(estimate: Estimate, unit: str) -> tuple[str, str]:
    """The cells "value" and "interval" of an estimate; without a value its bounds and its status.

    Args:
        estimate: what to show.
        unit: after the value; may be empty.
    """
    if math.isnan(float(estimate)):
        return estimate.bounds_in_words("≥ ", "≤ "), estimate.status.value
    value = short(float(estimate)) + (f" {unit}" if unit else "")
    if estimate.status is Status.NO_INTERVAL:
        return value, estimate.status.value
    if estimate.is_exact:
        return value, "exact"
    low, high = short(estimate.low), short(estimate.high)
    interval = f"{low} to {high}" if low != high else _relative(estimate)
    flag = " (not converged)" if estimate.status is Status.NOT_CONVERGED else ""
    return value, interval + flag


def _relative(estimate: Estimate) -> str:
    """The interval in percent of the value, rounded up, where its ends are printed alike."""
    reach = max(estimate.high - float(estimate), float(estimate) - estimate.low)
    percent = math.ceil(1e4 * reach / abs(float(estimate))) / 100
    return f"±{percent:g}%"


def plain_table(first: str, *others: str) -> Table:
    """Numbers to the right, the first and the last column in words."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
    table.add_column(first, no_wrap=True, max_width=48)
    for heading in others[:-1]:
        table.add_column(heading, justify="right", overflow="fold")  # no digit is cut off
    table.add_column(others[-1], overflow="fold")
    return table


def listed(title: str, sentences: tuple[str, ...]) -> list[Text | Table]:
    """A title and a bulleted list of sentences under it."""
    grid = Table.grid(padding=(0, 1))
    for sentence in sentences:
        grid.add_row("-", sentence)
    return [Text(title), grid]


def fitted(table: Table) -> list[Text | Table]:
    """The table; where a line is too short for its last column, that one as a list below it."""
    if _console(10 * MOST).measure(table).maximum <= width():
        return [table]
    last = table.columns.pop()
    pairs = zip(table.columns[0].cells, last.cells, strict=True)
    return [table, Text(), *listed(f"{last.header}", tuple(f"{a}: {b}" for a, b in pairs))]


def or_listed(table: Table) -> Table:
    """The table; where a line is too short for it, its rows as a list of sentences."""
    if _console(10 * MOST).measure(table).maximum <= width():
        return table
    others = table.columns[1:]
    grid = Table.grid(padding=(0, 1))
    for label, *cells_of_row in zip(*(column.cells for column in table.columns), strict=True):
        told = [f"{c.header} {cell}" for c, cell in zip(others, cells_of_row, strict=True) if cell]
        grid.add_row("-", f"{label}: {', '.join(told)}")
    return grid


def _console(columns: int) -> Console:
    return Console(file=io.StringIO(), width=columns, color_system=None, markup=False, emoji=False)
