"""Numbers, tables and sentences of a report."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from ..statistics.estimate import Estimate, Status, short

WIDTH = 100


def render(parts: Sequence[Text | Table]) -> str:
    """Texts and tables as plain text of a fixed width."""
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None, markup=False, emoji=False)
    console.print(Group(*parts))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.rstrip().split("\n"))


def integer(number: float) -> str:
    """Thousands set apart."""
    return f"{number:,.0f}".replace(",", " ")


def cells(estimate: Estimate, unit: str) -> tuple[str, str]:
    """Value and interval; bounds in place of a value that is not resolved."""
    if math.isnan(float(estimate)):
        return estimate.bounds_in_words("≥ ", "≤ "), estimate.status.value
    value = short(float(estimate)) + (f" {unit}" if unit else "")
    if estimate.status is Status.NO_INTERVAL:
        return value, estimate.status.value
    if estimate.is_exact:
        return value, "exact"
    low, high = short(estimate.low), short(estimate.high)
    interval = f"{low} to {high}" if low != high else "within last digit"
    return (
        value,
        f"{interval} ({_FLAGS[estimate.status]})" if estimate.status in _FLAGS else interval,
    )


_FLAGS = {Status.NOT_CONVERGED: "not converged"}


def plain_table(first: str, *others: str) -> Table:
    """Numbers to the right, the first and the last column in words."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column(first, no_wrap=True, max_width=48)
    for heading in others[:-1]:
        table.add_column(heading, justify="right")
    table.add_column(others[-1])
    return table


def listed(title: str, sentences: tuple[str, ...]) -> list[Text | Table]:
    """Sentences under a title."""
    grid = Table.grid(padding=(0, 1))
    for sentence in sentences:
        grid.add_row("-", sentence)
    return [Text(title), grid]
