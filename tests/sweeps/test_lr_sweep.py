"""A quick sweep of one batch size brackets the limit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from tests.small_runs import DATA, small


def test_a_quick_sweep_tries_once_whether_runs_can_be_one_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = []
    monkeypatch.setattr(
        "gradnoise.training.vectorise.why_not_vectorised",
        lambda *given: tried.append(given) or "no",
    )
    gn.lr_sweep(small, nn.CrossEntropyLoss(), DATA, batch_size=8, lrs=[1e-3], seeds=2)
    assert len(tried) == 1


def test_a_quick_sweep_brackets_the_limit_whatever_the_grid() -> None:
    toy = gn.toy.NoisyQuadratic(torch.diag(torch.tensor([4.0, 1.0])), torch.ones(2))
    for grid in (None, [1e-7], [1e4]):
        found = gn.lr_sweep(
            toy.model, toy.loss_fn, toy.sample(16, seed=0), batch_size=16, epochs=100, lrs=grid
        )
        assert 0.3 < found.stable < 0.5 < found.diverged < 1.0
        assert found.diverged / found.stable < 1.6
        assert found.best <= found.stable
        assert "largest stable" in str(found)


def test_a_loss_that_cannot_diverge_is_said() -> None:
    class Bounded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor(1.0))

        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(self.w).expand(len(x))

    with pytest.raises(gn.ArgumentError, match="every run stayed stable"):
        gn.lr_sweep(Bounded, lambda m, x: m(x), torch.zeros(8), batch_size=4, epochs=2)
