"""Many runs as one program train as torch's own optimizers do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.training.checkpoint import Checkpoint
from gradnoise.training.ensemble import Ensemble
from gradnoise.training.record import Run
from gradnoise.training.run import train
from gradnoise.training.schedule import linear
from gradnoise.training.vectorise import why_not_vectorised
from tests.cases import TiedAutoencoder
from tests.small_runs import DATA, NOWHERE, half_frozen, plan_of, small
from tests.starts import STACKED, KilledError, Make, numbers, plan_at, runs_of, trained


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


class HalfUsed(nn.Module):
    """A part that takes no part, with weights that are trained."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = small(), nn.Linear(2, 2).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


class Tied(nn.Module):
    """One weight used by two modules."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = TiedAutoencoder().double(), nn.Linear(4, 2).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(x[:, :4]))


def momentum(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=0.1)


def agree(model: nn.Module, optimizer: torch.optim.Optimizer, **settings: Any) -> None:
    """Many runs at once end as one by one."""
    plan, runs = plan_at(model, optimizer, **settings), runs_of()
    assert why_not_vectorised(plan, runs[0]) is None
    together = {record.run: record for record in Ensemble(plan, runs).run(lambda _: None, NOWHERE)}
    for run in runs:
        alone, _ = train(plan, run)
        assert numbers(together[run]) == pytest.approx(numbers(alone), rel=1e-9)
        assert together[run].diverged == alone.diverged
        means = [together[run].mean_batch_loss, alone.mean_batch_loss]
        assert means == [None, None] or means[0] == pytest.approx(means[1], rel=1e-9)


@pytest.mark.parametrize("max_grad_norm", [None, 0.05])
@pytest.mark.parametrize("steps", [0, 5])
@pytest.mark.parametrize("name", STACKED)
def test_it_goes_on_from_a_checkpoint_as_torch_does(
    name: str, steps: int, max_grad_norm: float | None
) -> None:
    """With the buffers of the optimizer, or without any; rates and decays of several groups."""
    agree(*trained(STACKED[name], steps=steps), max_grad_norm=max_grad_norm)


@pytest.mark.parametrize("name", STACKED)
def test_a_learning_rate_that_falls_does_so_in_all_runs(name: str) -> None:
    agree(*trained(STACKED[name]), schedule=linear)


@pytest.mark.parametrize("make", [momentum, STACKED["AdamW"]])
@pytest.mark.parametrize("model", [half_frozen, HalfUsed, Tied])
def test_parts_that_are_frozen_unused_or_shared(model: Any, make: Make) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        agree(*trained(make, model()), max_grad_norm=0.1)


def test_parameters_that_joined_later_have_a_state_of_their_own() -> None:
    """The last layer was unfrozen after the steps: no buffer, and a count of its own."""
    model = small()
    model[2].requires_grad_(False)
    model, optimizer = trained(STACKED["Adam"], model, steps=4)
    model[2].requires_grad_(True)
    agree(model, optimizer)


@pytest.mark.parametrize("schedule", [None, linear])
@pytest.mark.parametrize("name", ["momentum", "AdamW in groups"])
def test_runs_that_were_cut_off_go_on_with_means_and_buffers(
    name: str, schedule: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gradnoise.training.checkpoint.EVERY", 0.0)
    plan = plan_at(*trained(STACKED[name]), schedule=schedule)
    runs = runs_of((0.01, 0.1, 1e30))
    whole = Ensemble(plan, runs).run(lambda _: None, NOWHERE)
    kept = Checkpoint(tmp_path / "runs.jsonl", "mark", tuple(run.key for run in runs))
    steps: list[int] = []

    def killed(done: int) -> None:
        steps.append(done)
        if len(steps) == 11:  # in the second half
            raise KilledError

    with pytest.raises(KilledError):
        Ensemble(plan, runs).run(killed, kept)
    taken: list[int] = []
    again = Ensemble(plan, runs).run(taken.append, kept)
    assert sum(taken) == 10 * len(runs)
    assert len(taken) < 10
    assert {r.run: r for r in again} == {r.run: r for r in whole}


def test_samples_are_those_of_the_data() -> None:
    """The rows that losses are judged on are not those that are trained on."""
    plan = plan_at(*trained(), judged=(DATA[0][:4], DATA[1][:4]))
    few = Ensemble(plan, runs_of()).run(lambda _: None, NOWHERE)
    every = Ensemble(plan_at(*trained()), runs_of()).run(lambda _: None, NOWHERE)
    assert all(a.train_loss != b.train_loss for a, b in zip(few, every, strict=True))
