"""Several estimates as text: a heading, and a line for each."""

from __future__ import annotations

import math
from collections.abc import Iterable

from rich.text import Text

from ..show.table import cells, plain_table, render
from ..statistics.estimate import Estimate

Line = tuple[str, str, str]  # label, value, interval


def line(label: str, estimate: Estimate, unit: str = "") -> Line:
    """An estimate with its interval; its bounds and the reason where there is no value."""
    return label, *cells(estimate, unit)


def report(heading: str, lines: Iterable[Line]) -> str:
    """The heading, and a table of the lines."""
    table = plain_table("measured", "value", "interval")
    for cells_of_line in lines:
        table.add_row(*cells_of_line)
    return render([Text(heading), table])


def out_of(samples: int, population: float) -> str:
    """ "n samples out of N"."""
    size = "a distribution" if math.isinf(population) else f"{population:g}"
    return f"{samples} samples out of {size}"
