"""Numbers, tables and lists as text, at the width of the terminal."""

from __future__ import annotations

import io
import math
import os
import sys

import pytest
from rich.text import Text

from gradnoise.show.table import (
    cells,
    duration,
    fitted,
    integer,
    listed,
    or_listed,
    plain_table,
    render,
    width,
)
from gradnoise.statistics.estimate import Estimate, Status

INF, NAN = math.inf, math.nan


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((columns, 24)))


@pytest.fixture(autouse=True)
def _no_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.mark.parametrize(
    ("columns", "expected"), [(20, 40), (60, 60), (80, 80), (100, 100), (200, 100)]
)
def test_a_line_is_as_long_as_the_terminal_from_forty_to_a_hundred(
    monkeypatch: pytest.MonkeyPatch, columns: int, expected: int
) -> None:
    on_a_terminal(monkeypatch, columns)
    assert width() == expected


@pytest.mark.parametrize("stdout", [None, io.StringIO()], ids=["closed", "file"])
@pytest.mark.parametrize(
    ("said", "expected"), [(None, 80), ("60", 60), ("0", 40), ("wide", 80), ("500", 100)]
)
def test_without_a_terminal_a_line_is_what_columns_says_or_eighty(
    monkeypatch: pytest.MonkeyPatch, stdout: io.StringIO | None, said: str | None, expected: int
) -> None:
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((97, 24)))
    monkeypatch.setattr(sys, "stdout", stdout)
    if said is not None:
        monkeypatch.setenv("COLUMNS", said)
    assert width() == expected


def explained_table() -> list[str]:
    table = plain_table("measured", "value", "what it means")
    table.add_row("loss", "3.00", "the mean over all of the samples that were measured")
    table.add_row("noise", "12.0", "how much single samples differ from that mean")
    return render(fitted(table)).split("\n")


def test_a_table_that_fits_keeps_its_last_column() -> None:
    heading, _, first, second = explained_table()
    assert heading.split() == ["measured", "value", "what", "it", "means"]
    assert first.endswith("3.00  the mean over all of the samples that were measured")
    assert second.startswith("noise ")


def test_where_a_line_is_too_short_the_last_column_is_a_list_below(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_a_terminal(monkeypatch, 60)
    heading, _, first, second, empty, title, *sentences = explained_table()
    assert heading.split() == ["measured", "value"]
    assert (first.split(), second.split()) == (["loss", "3.00"], ["noise", "12.0"])
    assert (empty, title) == ("", "what it means")
    assert " ".join(sentences).startswith("- loss: the mean over all of the samples")
    assert max(map(len, sentences)) <= 60


def test_a_table_of_many_columns_is_a_list_where_a_line_is_too_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = plain_table("rule", "left", "right", "verdict")
    table.add_row("lr < mean_square_lr", "0.100", "0.301 (0.299 to 0.301)", "passed")
    table.add_row("resolved", "", "", "failed")
    assert or_listed(table) is table
    monkeypatch.setenv("COLUMNS", "40")
    said = " ".join(render([or_listed(table)]).split())
    assert said == (
        "- lr < mean_square_lr: left 0.100, right 0.301 (0.299 to 0.301), verdict passed "
        "- resolved: verdict failed"
    )


def test_a_name_does_not_steer_the_terminal() -> None:
    text = render([Text("a\x1b[31mb\x07c\nd")])
    assert "\x1b" not in text
    assert "\x07" not in text
    assert text.endswith("\nd")


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (3.78, 3.7828, "±0.08%"),  # 3.78 to 3.78 says nothing
        (3.78 * (1 - 1e-9), 3.78, "±0.01%"),
        (3.70, 3.86, "3.70 to 3.86"),
        (3.78, 3.78, "exact"),
    ],
)
def test_an_interval_whose_ends_look_alike_is_given_in_percent(
    low: float, high: float, said: str
) -> None:
    assert cells(Estimate(3.78, low, high, 0.95, 0.0, 9), "samples") == ("3.78 samples", said)


@pytest.mark.parametrize(
    ("estimate", "shown"),
    [
        (
            Estimate(NAN, 3.0, INF, 0.95, 0.0, 9, Status.SIGNAL_BELOW_NOISE),
            ("≥ 3.00", "signal below noise"),
        ),
        (
            Estimate(2.0, 1.0, 3.0, 0.95, 0.5, 9, Status.NO_INTERVAL),
            ("2.00", "interval not measured"),
        ),
        (
            Estimate(2.0, 1.0, 3.0, 0.95, 0.5, 9, Status.NOT_CONVERGED),
            ("2.00", "1.00 to 3.00 (not converged)"),
        ),
        (
            Estimate(NAN, 0.0, 9.0, 0.95, 0.0, 9, Status.NOISE_BELOW_ERROR),
            ("≤ 9.00", "noise below its own error"),
        ),
        (
            Estimate(NAN, -INF, INF, 0.95, 0.0, 9, Status.NEGATIVE_CURVATURE),
            ("undefined", "negative curvature"),
        ),
    ],
)
def test_what_is_not_resolved_says_so_beside_its_bounds(
    estimate: Estimate, shown: tuple[str, str]
) -> None:
    assert cells(estimate, "") == shown


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (999.4, "999"), (1234.0, "1 234"), (1e6, "1 000 000")]
)
def test_thousands_are_separated_by_a_space(number: float, text: str) -> None:
    assert integer(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.00123, "0.0012 s"), (0.25, "0.25 s"), (42.4, "42 s"), (99.4, "99 s"),
        (99.6, "1.7 min"), (212, "3.5 min"), (5400, "90 min"), (7200, "2 h"), (1e6, "280 h"),
    ],
)  # fmt: skip
def test_a_duration_has_two_digits(seconds: float, text: str) -> None:
    assert duration(seconds) == text


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
    assert all(len(line) <= 80 and line == line.rstrip() for line in text.split("\n"))
    assert text.endswith("end")


@pytest.mark.parametrize(
    ("parts", "unit", "shown"),
    [
        ((3.0, 2.5, 3.5, Status.RESOLVED), "", ("3.00", "2.50 to 3.50")),
        ((3.0, 2.5, 3.5, Status.RESOLVED), "samples", ("3.00 samples", "2.50 to 3.50")),
        ((3.0, 3.0, 3.0, Status.RESOLVED), "", ("3.00", "exact")),
        ((3.0, 2.9999, 3.0001, Status.RESOLVED), "", ("3.00", "±0.01%")),
        ((3.0, -INF, INF, Status.NO_INTERVAL), "", ("3.00", "interval not measured")),
        ((3.0, 2.5, 3.5, Status.NOT_CONVERGED), "", ("3.00", "2.50 to 3.50 (not converged)")),
        (
            (NAN, 300.0, INF, Status.SIGNAL_BELOW_NOISE),
            "",
            ("≥ 300", "signal below noise"),
        ),
        (
            (NAN, 0.0, 9.0, Status.NOISE_BELOW_ERROR),
            "",
            ("≤ 9.00", "noise below its own error"),
        ),
        (
            (NAN, -INF, INF, Status.NEGATIVE_CURVATURE),
            "",
            ("undefined", "negative curvature"),
        ),
    ],
)
def test_a_value_and_its_interval_are_two_cells(parts, unit, shown) -> None:
    value, low, high, status = parts
    assert cells(Estimate(value, low, high, 0.95, NAN, 100, status), unit) == shown
