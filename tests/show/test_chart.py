"""A chart in a terminal: where dots, bands and lines lie."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gradnoise.show.chart import Curve, chart

NAN, INF = math.nan, math.inf
LEFT = 9  # label and frame


def rows(curve: Curve, width: int = LEFT + 10, height: int = 4, **options: bool) -> list[str]:
    return chart(curve, width, height, **options).plain.split("\n")


def x(count: int) -> np.ndarray:
    return np.arange(count, dtype=float)


def test_it_has_the_size_that_is_asked_for() -> None:
    curve = Curve(x(50), x(50))
    found = rows(curve, 40, 5)
    assert [len(row) for row in found] == [40] * 7
    assert len(rows(curve, 40, 5, labelled=False)) == 5
    assert found[-1].split() == ["step", "0", "49"]


def test_a_rising_line_rises() -> None:
    found = [row[LEFT:] for row in rows(Curve(x(40), x(40)))[:4]]
    first = [next(k for k, cell in enumerate(row) if cell != " ") for row in reversed(found)]
    assert first == sorted(first)
    assert found[3][0] != " "
    assert found[0][-1] != " "


def test_a_constant_is_a_level_line() -> None:
    found = [row[LEFT:] for row in rows(Curve(x(40), np.full(40, 3.0)))[:4]]
    assert sum(bool(row.strip()) for row in found) == 1


def test_a_column_shows_the_mean_of_its_points_and_a_gap_where_there_is_none() -> None:
    y = np.tile([1.0, 3.0], 200)
    y[:20] = 0.0
    y[-20:] = 4.0
    y[200:280] = NAN
    found = [row[LEFT:] for row in rows(Curve(x(400), y))[:4]]
    assert {cell for row in found for cell in row[5:7]} == {" "}
    assert {cell for row in (found[0], found[3]) for cell in row[1:4]} <= {" ", "⡇", "⢸"}
    assert any(row[3] != " " for row in found[1:3])


def test_points_without_a_number_do_not_hide_those_beside_them() -> None:
    y = np.where(np.arange(400) % 2, NAN, 2.0)
    found = [row[LEFT:] for row in rows(Curve(x(400), y))[:4]]
    assert sum(" " not in row for row in found) == 1


def test_a_jump_is_joined() -> None:
    found = [row[LEFT:] for row in rows(Curve(x(40), np.where(x(40) < 20, 0.0, 1.0)))[:4]]
    middle = ["".join(row[4:6]).strip() for row in found]
    assert all(middle)


def test_few_points_are_held_until_the_next_one() -> None:
    found = [row[LEFT:] for row in rows(Curve(x(2), np.array([1.0, 2.0])))[:4]]
    assert found[3][:9].strip() == found[3][:9]
    assert found[0][-1] != " "


def test_the_interval_is_shaded_and_open_above() -> None:
    y = np.full(40, 10.0)
    high = np.where(x(40) < 20, 12.0, INF)
    found = rows(Curve(x(40), y, np.full(40, 8.0), high, log=True), height=9)[:9]
    columns = ["".join(row[LEFT + k] for row in found) for k in (0, 9)]
    assert columns[0].count("░") < columns[1].count("░")
    assert columns[1][0] == "░"
    assert columns[1][-1] == " "


def test_a_bound_without_a_value_is_shaded_from_there_on() -> None:
    nothing = np.full(40, NAN)
    found = rows(Curve(x(40), nothing, np.full(40, 10.0), np.full(40, INF), log=True), height=4)
    assert [row[-1] for row in found[:4]] == ["░", "░", "░", " "]


def test_the_second_line_is_dashed_and_below_the_dots() -> None:
    found = [row[LEFT:] for row in rows(Curve(x(40), x(40), level=np.full(40, 20.0)))[:4]]
    dashed = [row for row in found if "╌" in row]
    assert len(dashed) == 1
    assert dashed[0].count("╌") < 10


@pytest.mark.parametrize(
    ("values", "log", "labels"),
    [
        ((1.0, 1000.0), True, {"1", "10", "100", "1000"}),
        ((2.0, 9.0), True, {"2", "5"}),
        ((0.0, 10.0), False, {"0", "5", "10"}),
        ((0.31, 0.34), False, {"0.31", "0.32", "0.33", "0.34"}),
        ((1.0, 1e12), True, {"1", "10000", "1e+08", "1e+12"}),
    ],
)
def test_labels_are_round_numbers(values: tuple[float, float], log: bool, labels: set[str]) -> None:
    found = rows(Curve(x(2), np.array(values), log=log), height=8)[:8]
    assert {row[:8].strip() for row in found} - {""} == labels
    assert all(("┤" in row) == bool(row[:8].strip()) for row in found)


@pytest.mark.parametrize("y", [[], [NAN, NAN], [-1.0, 0.0]])
def test_nothing_to_show_is_an_empty_chart(y: list[float]) -> None:
    found = rows(Curve(x(len(y)), np.array(y), log=True))
    assert all(not row[LEFT:].strip() for row in found[:4])
