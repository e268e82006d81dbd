"""A sweep as text."""

from __future__ import annotations

import json

import pytest

import gradnoise as gn
from tests.small_runs import TEST, made, swept


def test_a_sweep_can_be_printed_and_written(found: gn.Sweep) -> None:
    text = str(found)
    assert "8 runs, 0 diverged; trained 4 at once" in text
    assert "0.400 or more" in text
    assert "no critical batch size: the fit of B_c needs three batch sizes" in text
    assert "\noptimizer" not in text
    json.dumps(found.to_dict())


def test_what_trained_them_is_said() -> None:
    found = swept(momentum=0.9, optimizer="nesterov", weight_decay=0.01)
    assert "\noptimizer nesterov, momentum 0.9, weight decay 0.01\n" in str(found)
    assert "\noptimizer sgd\n" in str(swept())


@pytest.mark.parametrize("knee", [True, False])
@pytest.mark.parametrize("starred", [True, False])
def test_a_star_is_explained_where_there_is_one(knee: bool, starred: bool) -> None:
    losses = (0.5, 0.8, 0.9) if starred else (0.9, 0.5, 0.8)
    found = made(losses, (1, 4, 16) if knee else (1, 4))
    text = str(found)
    assert ("ε_∞ " in text) == knee
    assert ("\n* the best ε lies at the edge of the grid: extend `lrs`" in text) == starred
    assert text.count("*") == (len(found.batch_sizes) + 1) * starred


def test_no_column_is_shown_twice() -> None:
    first, *_ = str(made((0.9, 0.5, 0.8), (1, 4))).split("equal steps")[1].splitlines()
    assert "train_loss" in first
    assert "best by train loss" not in first
    assert "best by train loss" in str(swept(test_data=TEST))


def test_the_ends_of_the_grid_are_those_of_the_batch_size() -> None:
    text = str(swept(lrs=lambda size: [0.1, 0.2] if size == 4 else [0.3, 0.4]))
    assert "0.200 or more" in text
    assert "0.400 or more" in text
