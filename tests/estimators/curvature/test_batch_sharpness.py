"""Batch sharpness: all batches of a small population, then what it is of one and of all samples."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from tests import oracles


def problem() -> tuple[nn.Module, nn.Module, tuple[Tensor, Tensor]]:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    return model, nn.CrossEntropyLoss(), (torch.randn(5, 3).double(), torch.randint(2, (5,)))


def over_all_batches(size: int) -> list[float]:
    dense, values = oracles.dense(*problem()), []
    for chosen in itertools.combinations(range(5), size):
        g, h = dense.gradients[list(chosen)].mean(0), dense.hessians[list(chosen)].mean(0)
        values.append(float(g @ h @ g / (g @ g)))
    return values


@pytest.mark.parametrize("size", [1, 2, 4])
def test_it_is_the_mean_over_batches(size: int) -> None:
    """Of 300 batches drawn, within four standard errors of all batches."""
    values = torch.tensor(over_all_batches(size))
    found = gn.batch_sharpness(*problem(), batch_size=size, batches=300)
    error = float(values.std(correction=0)) / 300**0.5
    assert abs(float(found) - float(values.mean())) < 4 * error
    assert found.stderr == pytest.approx(error, rel=0.15)
    assert found.low < float(values.mean()) < found.high


def test_of_all_samples_it_is_the_curvature_along_the_gradient() -> None:
    p = gn.profile(*problem())
    found = gn.batch_sharpness(*problem(), batch_size=5)
    assert found.is_exact
    assert float(found) == pytest.approx(float(p.grad_curvature) / float(p.grad_sq_norm))
    assert 1 / float(p.landscape().greedy_lr(10**9)) == pytest.approx(float(found))


def test_the_interaction_with_noise_is_that_of_the_best_step() -> None:
    p = gn.profile(*problem(), accuracy=0)
    trace, curvature = float(p.trace_hessian_cov), float(p.grad_curvature)
    expected = (curvature + trace / 2) / float(p.grad_sq_norm)
    found = p.landscape().noise_interaction(2)
    assert float(found) == pytest.approx(expected)
    assert found.low <= expected * (1 + 1e-9)
    assert found.high >= expected * (1 - 1e-9)


def test_nothing_is_changed_and_the_seed_decides() -> None:
    model, loss_fn, data = problem()
    before = torch.get_rng_state()
    found = [gn.batch_sharpness(model, loss_fn, data, batch_size=2, seed=s) for s in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None for p in model.parameters())


def test_what_cannot_be_is_refused() -> None:
    model, loss_fn, data = problem()
    with pytest.raises(gn.ArgumentError, match="`batch_size` = 6 is more than the 5 samples"):
        gn.batch_sharpness(model, loss_fn, data, batch_size=6)
    with pytest.raises(gn.ArgumentError, match="`batches`"):
        gn.batch_sharpness(model, loss_fn, data, batch_size=2, batches=1)
    still = nn.Linear(3, 2).double()
    nn.init.zeros_(still.weight)
    with pytest.raises(gn.ArgumentError, match="a batch of 2 samples has no gradient at all"):
        gn.batch_sharpness(still, nn.MSELoss(), (data[0], still(data[0]).detach()), batch_size=2)
