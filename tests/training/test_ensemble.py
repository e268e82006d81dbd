"""Many runs as one program train as torch's own optimizers do."""

from __future__ import annotations

import pytest
import torch

import gradnoise as gn
from gradnoise.training.ensemble import Ensemble
from gradnoise.training.record import Run
from gradnoise.training.run import train
from tests.small_runs import NOWHERE, plan_of


@pytest.mark.parametrize(
    ("optimizer", "momentum", "decay"),
    [("sgd", 0.0, 0.0), ("sgd", 0.9, 0.01), ("nesterov", 0.8, 0.0), ("adam", 0.9, 0.02)],
)
def test_it_trains_as_torch_does(optimizer: str, momentum: float, decay: float) -> None:
    plan = plan_of(optimizer=optimizer, momentum=momentum, decay=decay)
    runs = [Run(4, lr, seed, "epochs", 24) for lr in (0.01, 0.1) for seed in (0, 3)]
    together = {record.run: record for record in Ensemble(plan, runs).run(lambda _: None, NOWHERE)}
    for run in runs:
        alone, _ = train(plan, run)
        for name in ("start_loss", "train_loss", "test_loss"):
            assert getattr(together[run], name) == pytest.approx(getattr(alone, name), rel=1e-9)
        assert together[run].metrics == alone.metrics
        assert together[run].diverged == alone.diverged


def test_runs_that_diverge_leave_and_the_others_go_on() -> None:
    toy = gn.toy.NoisyQuadratic(torch.diag(torch.tensor([4.0, 1.0])), torch.ones(2))
    data = toy.sample(32, seed=0)
    rates = [0.1, 5.0, 0.3, 50.0]
    found = gn.sweep(toy.model, toy.loss_fn, data, batch_sizes=[8], lrs=rates, steps=80)
    alone = gn.sweep(toy.model, toy.loss_fn, data, batch_sizes=[8], lrs=[0.3], steps=80)
    assert [record.diverged for record in found.records] == [False, False, True, True]
    assert [record.stopped is None for record in found.records] == [True, True, False, False]
    assert found.records[1].train_loss == pytest.approx(alone.records[0].train_loss, rel=1e-9)
