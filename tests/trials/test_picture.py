"""The picture of branches: two losses against the batch size, the tolerance, B_crit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import gradnoise as gn
from gradnoise.trials.picture import draw
from tests.starts import ended, made_branches


def labels(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def curve(figure: Any, label: str) -> Any:
    """Points and half lengths of the error bars."""
    found = next(c for c in figure.axes[0].containers if c.get_label() == label)
    line, _, (bars,) = found.lines
    halves = [(top - bottom) / 2 for (_, bottom), (_, top) in bars.get_segments()]
    return line.get_xydata().tolist(), halves


def test_both_losses_are_drawn_with_their_errors() -> None:
    figure = draw(made_branches())
    points, errors = curve(figure, "at the mean weights of the last half")
    assert points == [[4, pytest.approx(0.19)], [16, pytest.approx(0.31)], [64, 0.91]]
    assert errors == pytest.approx([0.01] * 3)
    points, _ = curve(figure, "batches of the last quarter")
    assert points[0] == [4, pytest.approx(0.31)]


def test_the_tolerance_is_a_band_above_the_lowest_loss() -> None:
    figure = draw(made_branches())
    (band,) = (p for p in figure.axes[0].patches if p.get_label().startswith("within 10 %"))
    assert (band.get_y(), band.get_height()) == pytest.approx((0.19, 0.019))


def test_the_critical_batch_size_is_marked_where_it_is_known() -> None:
    figure = draw(made_branches())
    (label,) = (each for each in labels(figure) if each.startswith("critical batch size"))
    assert " to " in label
    flat = (*ended(4, 0.1, (0.1,)), *ended(16, 0.1, (0.1,)))
    assert not any("critical" in label for label in labels(draw(gn.Branches(flat, {}))))


def test_one_seed_has_no_error() -> None:
    figure = draw(gn.Branches((*ended(4, 0.1, (0.1,)), *ended(16, 0.1, (0.2,))), {}))
    assert curve(figure, "batches of the last quarter")[1] == [0.0, 0.0]


def test_it_is_saved_where_a_path_is_given(tmp_path: Path) -> None:
    path = tmp_path / "branches.png"
    made_branches().plot(path)
    assert path.read_bytes().startswith(b"\x89PNG")
