"""The frame of a regime map holds everything that is drawn on it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

import gradnoise as gn
from gradnoise.learning_rate.advice import Recommendation
from gradnoise.problem.optimizer_settings import OptimizerSettings
from gradnoise.profiles.regime import batch_grid, rate_ends


@pytest.mark.parametrize(("batch_size", "lr"), [(1, 1e-9), (512, 4.0), (4096, 40.0)])
@pytest.mark.parametrize("advised", [False, True])
def test_the_setting_in_use_and_the_advice_are_inside(
    resolved: gn.Profile, batch_size: int, lr: float, advised: bool
) -> None:
    if advised:
        profile = resolved.with_advice(Recommendation(batch_size, lr, ("Tried.",), "good"))
    else:
        settings = OptimizerSettings("SGD", lr)
        profile = replace(resolved, optimizer=settings, batch_size=batch_size, population=math.inf)
    grid = batch_grid(profile, 50)
    low, high = rate_ends(profile, profile.landscape())
    assert len(grid) == 50
    assert grid[0] == 1
    assert grid[-1] >= 2 * batch_size
    assert 2 * low <= lr <= high / 2


def test_bounds_alone_have_a_frame(bounds_only: gn.Profile) -> None:
    low, high = rate_ends(bounds_only, bounds_only.landscape())
    assert 0 < low < high < math.inf
    assert batch_grid(bounds_only, 9)[-1] >= bounds_only.noise_scale.low
