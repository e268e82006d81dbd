"""Cells and tables of reports, as plain text."""

from __future__ import annotations

import math

import pytest
from rich.text import Text

from gradnoise.show.table import WIDTH, cells, integer, listed, plain_table, render
from gradnoise.statistics.estimate import Estimate, Status

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (999.4, "999"), (1234.0, "1 234"), (1e6, "1 000 000")]
)
def test_thousands_are_separated_by_a_space(number: float, text: str) -> None:
    assert integer(number) == text


@pytest.mark.parametrize(
    ("parts", "unit", "shown"),
    [
        ((3.0, 2.5, 3.5, Status.RESOLVED), "", ("3.00", "2.50 to 3.50")),
        ((3.0, 2.5, 3.5, Status.RESOLVED), "samples", ("3.00 samples", "2.50 to 3.50")),
        ((3.0, 3.0, 3.0, Status.RESOLVED), "", ("3.00", "exact")),
        ((3.0, 2.9999, 3.0001, Status.RESOLVED), "", ("3.00", "±0.01%")),
        ((3.0, -INF, INF, Status.NO_INTERVAL), "", ("3.00", "interval not measured")),
        ((3.0, 2.5, 3.5, Status.NOT_CONVERGED), "", ("3.00", "2.50 to 3.50 (not converged)")),
        ((NAN, 300.0, INF, Status.SIGNAL_BELOW_NOISE), "", ("≥ 300", "signal below noise")),
        ((NAN, 0.0, 9.0, Status.NOISE_BELOW_ERROR), "", ("≤ 9.00", "noise below its own error")),
        ((NAN, -INF, INF, Status.NEGATIVE_CURVATURE), "", ("undefined", "negative curvature")),
    ],
)
def test_a_value_and_its_interval_are_two_cells(parts, unit, shown) -> None:
    value, low, high, status = parts
    assert cells(Estimate(value, low, high, 0.95, NAN, 100, status), unit) == shown


def test_numbers_are_aligned_right_between_two_columns_of_text() -> None:
    table = plain_table("name", "small", "large", "meaning")
    table.add_row("a", "1", "1 000", "first")
    table.add_row("bb", "22", "2", "second")
    heading, _, first, second = render([table]).split("\n")
    assert first.index("first") == second.index("second") == heading.index("meaning")
    assert first.startswith("a ")
    assert first.index("1 000") + 5 == second.index(" 2 ") + 2 == heading.index("large") + 5


def test_sentences_are_listed_under_their_title() -> None:
    text = render(listed("Notes", ("One.", "Two [brackets] stay.")))
    assert text == "Notes\n- One.\n- Two [brackets] stay."


def test_text_has_no_colours_no_trailing_spaces_and_a_fixed_width() -> None:
    text = render([Text("word " * 60, style="bold red"), Text("end   ")])
    assert "\x1b" not in text
    assert all(len(line) <= WIDTH and line == line.rstrip() for line in text.split("\n"))
    assert text.endswith("end")
