"""The picture of a sweep: its runs, its knee, its best rates, and what a profile predicts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import gradnoise as gn
from gradnoise.sweeps.picture import draw
from gradnoise.training.record import Record, Run
from tests.small_runs import made

LOSSES = (0.9, 0.5, 0.8)


def labels(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def line(figure: Any, label: str) -> Any:
    return next(each for each in figure.axes[0].lines if each.get_label() == label)


def test_every_cell_is_a_dot_of_its_kind() -> None:
    ends = {(0.1, 0): 0.5, (0.1, 1): 0.5, (0.2, 0): 0.5, (0.2, 1): math.inf, (0.4, 0): math.inf}
    records = [
        Record(Run(4, lr, seed, "steps", 9), end == math.inf, None, 1.0, end)
        for (lr, seed), end in ends.items()
    ]
    figure = draw(gn.Sweep(tuple(records), {}), best=None)
    assert labels(figure) == ["stable", "some seeds diverged", "diverged"]
    for label, lr in zip(labels(figure), (0.1, 0.2, 0.4), strict=True):
        assert line(figure, label).get_xydata().tolist() == [[4, lr]]


def test_the_curve_of_the_critical_batch_size_is_the_fitted_one() -> None:
    sweep = made(LOSSES, (1, 4, 16))
    figure = draw(sweep)
    (label,) = (each for each in labels(figure) if each.startswith("largest stable"))
    sizes, rates = line(figure, label).get_data()
    assert (sizes[0], sizes[-1]) == pytest.approx((1, 16))
    assert rates == pytest.approx([sweep.fit().lr(size) for size in sizes])


def test_without_a_critical_batch_size_the_title_says_why() -> None:
    figure = draw(made(LOSSES, (1, 4)))
    assert figure.axes[0].get_title().startswith("no critical batch size: the fit of B_c needs")


def test_the_best_rates_are_drawn_and_can_be_left_out() -> None:
    sweep = made(LOSSES, (1, 4))
    assert line(draw(sweep), "best by train_loss").get_xydata().tolist() == [[1, 0.2], [4, 0.2]]
    assert "best by train_loss" not in labels(draw(sweep, best=None))


def test_a_profile_adds_its_limits_within_its_population() -> None:
    toy = gn.toy.NoisyQuadratic(torch.diag(torch.tensor([4.0, 1.0])), torch.ones(2))
    profile = gn.profile(toy.model(), toy.loss_fn, toy.sample(8, seed=0), probes=4)
    figure = draw(made(LOSSES, (1, 4, 16)), predictions=profile)
    assert "full-batch limit 0.500" in labels(figure)
    sizes, rates = line(figure, "predicted: mean-square limit").get_data()
    assert sizes.max() <= 8
    assert rates[0] == pytest.approx(float(profile.landscape(0.0).mean_square_lr(sizes[0])))


def test_it_is_saved_where_a_path_is_given(tmp_path: Path) -> None:
    path = tmp_path / "sweep.png"
    made(LOSSES, (1, 4)).plot(path)
    assert path.read_bytes().startswith(b"\x89PNG")
