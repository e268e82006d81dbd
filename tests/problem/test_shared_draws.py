"""Random numbers that the samples of a batch share are told from those of each sample."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradnoise as gn
from tests.unit_cases import CE, X, Y, mlp


class Times(nn.Module):
    """Multiplies by noise that `draw` makes."""

    def __init__(self, draw: Any) -> None:
        super().__init__()
        self.draw = draw

    def forward(self, x: Tensor) -> Tensor:
        return x * self.draw(x)


class NoisyWeights(nn.Linear):
    """One draw of the weights for each forward pass (Bayes by backprop, DropConnect)."""

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.randn_like(self.weight)
        return F.linear(x, self.weight + 0.5 * noise, self.bias)


SHARED: dict[str, Any] = {
    "one number": lambda: mlp(Times(lambda x: 0.5 + torch.rand(()))),
    "a layer that is dropped": lambda: mlp(Times(lambda x: float(torch.rand(()) > 0.3))),
    "with dropout": lambda: mlp(nn.Dropout(0.2), Times(lambda x: 0.5 + torch.rand(()))),
    "weights": lambda: mlp(NoisyWeights(5, 5)),
    "a mask for all": lambda: mlp(Times(lambda x: (torch.rand(5) > 0.3) / 0.7)),
}
OWN: dict[str, Any] = {
    "dropout": lambda: mlp(nn.Dropout(0.3)),
    "seldom": lambda: mlp(nn.Dropout(0.02)),
    "stochastic depth": lambda: mlp(Times(lambda x: (torch.rand(len(x), 1) > 0.02) / 0.98)),
    "heavy tails": lambda: mlp(Times(lambda x: torch.randn_like(x) / torch.rand_like(x))),
}


@pytest.mark.parametrize("case", SHARED)
def test_samples_that_share_draws_are_measured_in_groups(case: str) -> None:
    found = gn.measure(SHARED[case](), CE, (X, Y), group_size=12)
    assert found.problem.unit.kind == "group"
    assert found.problem.unit.is_replayed
    assert "the samples of a batch share random numbers" in found.problem.unit.reason
    with pytest.raises(gn.CoupledSamplesError, match=r"share random numbers \(noise on weights"):
        gn.measure(SHARED[case](), CE, (X, Y), unit="sample")
    assert gn.per_sample_sq_norms(SHARED[case](), CE, (X, Y)).shape == (96,)  # no estimate


@pytest.mark.parametrize("case", OWN)
@pytest.mark.parametrize("count", [2, 3, 96])
def test_samples_with_draws_of_their_own_are_measured_alone(case: str, count: int) -> None:
    found = gn.measure(OWN[case](), CE, (X[:count], Y[:count]))
    assert found.problem.unit.kind == "sample"


def test_the_signal_of_noisy_weights_is_covered() -> None:
    """(x(w + ε/2) - y)², whose mean gradient does not depend on ε: |G|² is known."""
    source = torch.Generator().manual_seed(0)
    x, y = (torch.randn(2048, k, generator=source).double() for k in (4, 1))
    torch.manual_seed(0)
    model = NoisyWeights(4, 1).double()
    loss = (F.linear(x, model.weight, model.bias) - y).square().mean()
    weight, bias = torch.autograd.grad(loss, [model.weight, model.bias])
    known = float(weight.square().sum() + bias.square().sum())
    covered = 0
    for seed in range(20):
        found = gn.gradient_moments(model, nn.MSELoss(), (x, y), group_size=32, seed=seed)
        covered += found.grad_sq_norm.low <= known <= found.grad_sq_norm.high
    assert covered >= 17
