"""λ along training against the dense solver, and at what price."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import gradnoise as gn
from tests import oracles
from tests.cases import CORE
from tests.optimizers import OPTIMIZERS, by_hand


def test_fifty_steps_of_training_cost_few_products() -> None:
    digits = load_digits()
    x = torch.tensor(digits.data / 16, dtype=torch.float64)[:512, ::4]
    y = torch.tensor(digits.target)[:512]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 10)).double()
    loss_fn, optimizer = nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=0.1)
    held = x[:64], y[:64]
    tracker = gn.SharpnessTracker(model, loss_fn, held)
    for step in range(51):
        part = torch.randint(512, (32,))
        optimizer.zero_grad()
        loss_fn(model(x[part]), y[part]).backward()
        optimizer.step()
        pairs = tracker.update()
        if step % 10 == 0:
            truth = torch.linalg.eigvalsh(oracles.mean_hessian(model, loss_fn, *held))[-1]
            assert float(pairs.values) == pytest.approx(float(truth), rel=1e-2)
            assert model[0].weight.grad is not None
    assert all(pairs.converged for pairs in tracker.history)
    assert tracker.values.shape == (51,)
    assert all(not pairs.vectors.untyped_storage().nbytes() for pairs in tracker.history)
    assert (tracker.matvecs - tracker.history[0].matvecs) / 50 <= 6


class Bowls(nn.Module):
    """½ Σ c_j w_j², with curvatures that can be turned."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(20, dtype=torch.float64))
        self.register_buffer("c", torch.linspace(0, 1, 20, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return (self.c * self.w.square()).sum() / 2 + 0 * x[:, 0]


def test_an_eigenvalue_that_overtakes_is_seen() -> None:
    model = Bowls()
    tracker = gn.SharpnessTracker(model, lambda m, x: m(x), torch.zeros(4, 1).double())
    tracker.update()
    for height in (0.5, 1.5, 2.5):
        model.c[3] = height
        tracker.update()
    assert tracker.values.tolist() == pytest.approx([1.0, 1.0, 1.5, 2.5], rel=1e-2)


def test_among_many_parameters_it_is_seen_after_ten_updates() -> None:
    model = Bowls()
    model.w = nn.Parameter(torch.ones(50_000, dtype=torch.float64))
    model.c = torch.zeros(50_000, dtype=torch.float64)
    model.c[0] = 1.0
    tracker = gn.SharpnessTracker(model, lambda m, x: m(x), torch.zeros(4, 1).double())
    tracker.update()
    for height in torch.linspace(0.5, 1.4, 10).tolist():
        model.c[3] = height
        tracker.update()
    assert float(tracker.values[-1]) == pytest.approx(1.4, rel=1e-2)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW in groups"])
def test_the_state_of_the_optimizer_is_read_anew_at_every_update(name: str) -> None:
    """λ_max(P^-½(H + D)P^-½ + E) of the P that the optimizer holds then; first it holds none."""
    model, loss_fn, batch = CORE[0].build()
    optimizer = OPTIMIZERS[name](list(model.parameters()))
    options = {"optimizer": optimizer, "metric": "optimizer", "tol": 1e-9}
    tracker = gn.SharpnessTracker(model, loss_fn, batch, **options)
    if name != "SGD":
        with pytest.raises(gn.ArgumentError, match=r"no state for '0\.weight' yet: take a step"):
            tracker.update()
    for steps in (1, 2, 3):
        optimizer.zero_grad()
        loss_fn(model(batch[0]), batch[1]).backward()
        optimizer.step()
        scale, inside, outside = by_hand(optimizer, steps)
        h = oracles.dense(model, loss_fn, batch).hessian + torch.diag(inside)
        h = h / scale.sqrt() / scale.sqrt()[:, None] + torch.diag(outside)
        truth = float(torch.linalg.eigvalsh(h)[-1])
        assert float(tracker.update().values) == pytest.approx(truth, rel=1e-8), steps
    moved = tracker.values.tolist()
    optimizer.param_groups[0]["weight_decay"] = 0.0  # the model stays, the optimizer changes
    assert float(tracker.update().values) < moved[-1]
