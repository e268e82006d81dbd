"""The picture of a sweep: its runs, its knee, its best rates, and what a profile predicts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import gradnoise as gn
from gradnoise.sweeps.picture import sweep as draw
from gradnoise.training.record import Record, Run
from tests.pictures_cases import sharp_sweep
from tests.small_runs import made

LOSSES = (0.9, 0.5, 0.8)


def labels(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def line(axes: Any, label: str) -> Any:
    return next(each for each in axes.lines if each.get_label() == label)


def test_every_cell_is_a_dot_of_its_kind() -> None:
    ends = {(0.1, 0): 0.5, (0.1, 1): 0.5, (0.2, 0): 0.5, (0.2, 1): math.inf, (0.4, 0): math.inf}
    records = [
        Record(Run(4, lr, seed, "steps", 9), end == math.inf, None, 1.0, end)
        for (lr, seed), end in ends.items()
    ]
    axes = draw(gn.Sweep(tuple(records), {}), best=None)
    assert labels(axes) == ["stable", "some seeds diverged", "diverged"]
    for label, lr in zip(labels(axes), (0.1, 0.2, 0.4), strict=True):
        assert line(axes, label).get_xydata().tolist() == [[4, lr]]


def test_the_curve_of_the_critical_batch_size_is_the_fitted_one() -> None:
    sweep = sharp_sweep()
    axes = draw(sweep)
    (label,) = (each for each in labels(axes) if each.startswith("largest stable: "))
    sizes, rates = line(axes, label).get_data()
    assert (sizes[0], sizes[-1]) == pytest.approx((1, 256))
    assert rates == pytest.approx([sweep.fit().lr(size) for size in sizes])
    assert "largest stable, interval of the fit" in labels(axes)
    assert (
        axes.get_title() == f"180 training runs (sgd): critical batch size {sweep.fit().batch_size}"
    )


def test_what_the_runs_do_not_determine_is_no_curve() -> None:
    axes = draw(made(LOSSES, (1, 4, 16)), best=None)
    assert labels(axes) == ["stable", "diverged"]
    assert axes.get_title() == "12 training runs: critical batch size unknown"


def test_without_a_critical_batch_size_the_title_says_why() -> None:
    axes = draw(made(LOSSES, (1, 4)))
    title = axes.get_title().replace("\n", " ")
    assert title.startswith("8 training runs: no critical batch size: the fit of B_c needs three")


def test_the_best_rates_are_drawn_and_can_be_left_out() -> None:
    sweep = made(LOSSES, (1, 4))
    assert line(draw(sweep), "best by training loss").get_xydata().tolist() == [[1, 0.2], [4, 0.2]]
    assert "best by training loss" not in labels(draw(sweep, best=None))


def test_a_profile_adds_its_limits_within_its_population() -> None:
    toy = gn.toy.NoisyQuadratic(torch.diag(torch.tensor([4.0, 1.0])), torch.ones(2))
    profile = gn.profile(toy.model(), toy.loss_fn, toy.sample(8, seed=0), probes=4)
    axes = draw(made(LOSSES, (1, 4, 16)), predictions=profile)
    assert "full-batch limit 0.500" in labels(axes)
    sizes, rates = line(axes, "predicted: mean-square limit").get_data()
    assert sizes.max() <= 8
    assert rates[0] == pytest.approx(float(profile.landscape(0.0).mean_square_lr(sizes[0])))


def test_it_is_saved_where_a_path_is_given(tmp_path: Path) -> None:
    path = tmp_path / "sweep.png"
    made(LOSSES, (1, 4)).plot(path)
    assert path.read_bytes().startswith(b"\x89PNG")
