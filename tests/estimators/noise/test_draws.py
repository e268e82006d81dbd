"""The part of trΣ that the draws of the loss make."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradnoise.estimators.noise.draws import draw_share
from gradnoise.measurement.opened import Opened
from gradnoise.problem.options import Options


def share(data: tuple[torch.Tensor, torch.Tensor], *layers: nn.Module) -> float:
    torch.manual_seed(0)
    linear = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(linear.weight)
    model = nn.Sequential(*layers, linear).double()
    opened = Opened.open(model, nn.MSELoss(), data, Options())
    with opened.problem.guard():
        return draw_share(opened.problem, opened.moments(intervals=False))


TARGETS = torch.randn(128, 1, generator=torch.Generator().manual_seed(0)).double()


def test_draws_of_every_sample() -> None:
    """g = -2ym with a mask m of 0 or 2: of mean -2y, and of variance 4y² by the draw."""
    data = torch.ones(128, 1).double(), TARGETS
    by_draws, by_data = 4 * float(TARGETS.square().mean()), 4 * float(TARGETS.var())
    truth = by_draws / (by_draws + by_data)
    assert share(data, nn.Dropout(0.5)) == pytest.approx(truth, abs=0.12)


def test_all_of_the_noise_is_that_of_the_draws_where_samples_are_equal() -> None:
    data = torch.ones(128, 1).double(), torch.ones(128, 1).double()
    assert share(data, nn.Dropout(0.5)) == pytest.approx(1.0, abs=0.25)
