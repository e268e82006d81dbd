"""Losses have to be independent, reproducible and differentiable."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradnoise as gn
from gradnoise.problem.checks import Behaviour, agreed, examine
from gradnoise.problem.objective import Objective
from gradnoise.problem.options import Options
from gradnoise.problem.problem import Problem
from tests.refusals import CE, X, Y, check_refused, linear
from tests.unit_cases import X as INPUTS
from tests.unit_cases import Y as LABELS
from tests.unit_cases import mlp


def normed() -> nn.Module:
    return nn.Sequential(linear(), nn.BatchNorm1d(2))


def shared_mean(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none") / len(batch[1])


def looks_back(model: nn.Module, batch: Any) -> Tensor:
    sums = model(batch[0]).sum(1)
    return sums + torch.cat([sums[:1] * 0, sums[:-1]])


def leans_on_first(model: nn.Module, batch: Any) -> Tensor:
    return model(batch[0]).sum(1) + model(batch[0][:1]).sum()


def detached(model: nn.Module, batch: Any) -> Tensor:
    return model(batch[0]).detach().sum(1)


REFUSED: dict[str, Any] = {
    "detached loss": (linear, detached, gn.LossError, r"does not depend on any trainable"),
    "batch norm": (normed, CE, gn.CoupledSamplesError, r"1 \(BatchNorm1d\).*model\.eval\(\)"),
    "batch norm without statistics": (
        lambda: nn.Sequential(linear(), nn.BatchNorm1d(2, track_running_stats=False)).eval(),
        CE,
        gn.CoupledSamplesError,
        r"one sample changes the loss of another",
    ),
    "a loss of the sample before": (linear, looks_back, gn.CoupledSamplesError, r"one sample"),
    "a loss of the first sample": (linear, leans_on_first, gn.CoupledSamplesError, r"one sample"),
    "a criterion in disguise": (
        linear,
        lambda outputs, targets: F.cross_entropy(outputs, targets, reduction="none"),
        gn.LossError,
        r"failed with TypeError.*pass gn\.supervised",
    ),
    "loss divided by the batch": (
        linear,
        shared_mean,
        gn.CoupledSamplesError,
        r"do not divide by the batch size",
    ),
}


class Recurrent(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.rnn = nn.LSTM(1, 2, num_layers=2, dropout=dropout, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x.unsqueeze(-1))[0][:, -1]


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_measured_is_refused_and_left_as_it_was(name: str) -> None:
    check_refused(*REFUSED[name], unit="sample")


RANDOM: dict[str, Any] = {
    "dropout": (lambda: nn.Sequential(linear(), nn.Dropout()), "1 (Dropout)"),
    "dropout inside an LSTM": (lambda: Recurrent(dropout=0.5), "rnn (LSTM)"),
    "a last layer at zero": (lambda: nn.Sequential(nn.Dropout(), at_zero()), "0 (Dropout)"),
}


def at_zero() -> nn.Module:
    layer = linear()
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


@pytest.mark.parametrize("name", RANDOM)
def test_losses_that_draw_are_told_from_coupled_ones(name: str) -> None:
    build, layers = RANDOM[name]
    objective = Objective(build(), CE)
    with objective.guard():
        assert examine(objective, (X, Y)) == Behaviour(is_random=True, layers=layers)


def test_batch_norm_before_a_last_layer_at_zero_is_seen() -> None:
    objective = Objective(nn.Sequential(nn.BatchNorm1d(3), at_zero()), CE)
    with objective.guard():
        assert "BatchNorm1d" in examine(objective, (X, Y)).layers


class Seldom(nn.Module):
    """Stochastic depth: one sample in ten is dropped."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.rand(len(x), 1) > 0.1)


@pytest.mark.parametrize("seed", range(10))
def test_draws_that_seldom_change_anything_are_seen_in_two_samples(seed: int) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(Seldom(), linear())
    objective = Objective(model, CE)
    with objective.guard():
        assert examine(objective, (X[:2], Y[:2])).is_random
    groups = Options(unit="group", group_size=2, seed=seed)
    assert Problem.open(model, CE, (X, Y), groups).unit.is_replayed


class LayerDrop(nn.Module):
    """A layer that is left out for the whole batch, one time in ten."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.rand(()) > 0.1)


@pytest.mark.parametrize("seed", range(10))
def test_a_layer_that_is_seldom_dropped_for_a_whole_batch_is_seen(seed: int) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(LayerDrop(), linear())
    objective = Objective(model, CE)
    with objective.guard():
        assert examine(objective, (X, Y)).is_random
    groups = Options(unit="group", group_size=8, seed=seed)
    data = (X.repeat(2, 1), Y.repeat(2))
    assert Problem.open(model, CE, data, groups).unit.is_replayed


class Scaled(nn.Module):
    """One random number for the whole batch, as the time of a step or the λ of mixup may be."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rand(())


def test_draws_that_a_batch_shares_are_measured_in_groups() -> None:
    """Samples that are all equal: the only noise is the one draw of each batch of four."""
    data = torch.utils.data.TensorDataset(X[:1].repeat(256, 1), Y[:1].repeat(256))
    loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)
    layer = linear()
    model = nn.Sequential(Scaled(), layer)
    found = gn.profile(model, CE, loader)
    assert (found.unit, found.group_size) == ("group", 4)
    assert any("the samples of a batch share random numbers" in note for note in found.warnings)
    assert "one draw for each group" in found.randomness
    draws = torch.linspace(0, 1, 1001)[:, None]
    slopes = layer(draws * X[:1]).softmax(1) - F.one_hot(Y[:1], 2)
    gradients = torch.cat([(slopes[:, :, None] * (draws * X[:1])[:, None]).flatten(1), slopes], 1)
    assert found.trace_cov.low < 4 * float(gradients.var(0).sum()) < found.trace_cov.high


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("layer", [nn.Dropout, Seldom, lambda: nn.Dropout(0.02)])
def test_draws_of_single_samples_are_not_taken_for_shared_ones(layer: Any, seed: int) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(layer(), linear())
    unit = Problem.open(model, CE, (X.repeat(4, 1), Y.repeat(4)), Options(seed=seed)).unit
    assert (unit.kind, unit.is_replayed) == ("sample", True)


def test_draws_that_change_nothing_are_no_randomness() -> None:
    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        torch.rand(())  # as LayerDrop with probability 0 does
        return F.cross_entropy(model(batch[0]), batch[1], reduction="none")

    objective = Objective(linear(), loss_fn)
    with objective.guard():
        assert examine(objective, (X, Y)) == Behaviour()


def test_batch_norm_with_single_samples_says_the_same() -> None:
    with pytest.raises(gn.CoupledSamplesError, match=r"1 \(BatchNorm1d\)"):
        gn.profile(normed(), CE, [(X[:1], Y[:1]), (X[1:2], Y[1:2])])


@pytest.mark.parametrize("shapes_differ", [False, True])
def test_batch_norm_over_pixels_is_seen_through_batches_of_one(shapes_differ: bool) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    images = [(torch.randn(1, 1, 4, 4 + shapes_differ * (i % 2)),) for i in range(6)]
    with pytest.raises(gn.CoupledSamplesError, match=r"1 \(BatchNorm2d\)"):
        gn.profile(model, lambda m, x: m(x[0]).flatten(1).square().mean(1), images)


ACCEPTED = {
    "dropout in eval mode": lambda: nn.Sequential(linear(), nn.Dropout()).eval(),
    "dropout that drops nothing": lambda: nn.Sequential(linear(), nn.Dropout(0.0)),
    "batch norm in eval mode": lambda: normed().eval(),
    "group norm in train mode": lambda: nn.Sequential(linear(), nn.GroupNorm(1, 2)),
    "bfloat16": lambda: nn.Sequential(Cast(torch.bfloat16), linear().bfloat16()),
    "mixed dtypes": lambda: nn.Sequential(linear(), Cast(torch.float64), nn.Linear(2, 2).double()),
}


class Cast(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.dtype)


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_can_be_measured_passes_the_checks(name: str) -> None:
    objective = Objective(ACCEPTED[name](), CE)
    with objective.guard():
        assert examine(objective, (X, Y)) == Behaviour()
        assert objective.losses((X, Y)).shape == (8,)


def test_a_loop_that_ends_with_the_whole_batch_couples_its_samples() -> None:
    """Halves of a batch stop where the whole does; a sample alone stops earlier."""

    class Iterated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(5):
                y = self.inner(x).tanh()
                if bool((y - x).abs().max() < 2.5):
                    break
                x = y
            return y

    batch = torch.zeros(20, 4)
    batch[1:-1] = 4.0  # in either half
    with pytest.raises(gn.CoupledSamplesError, match="one sample changes the loss of another"):
        gn.per_sample_sq_norms(Iterated(), lambda m, x: m(x).square().sum(1), batch)


class Hidden(torch.autograd.Function):
    """A reversible layer's way: the region runs again inside the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, region: nn.Module) -> Tensor:
        ctx.region = region
        ctx.save_for_backward(x)
        return region(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        with torch.enable_grad():
            x = ctx.saved_tensors[0].detach().requires_grad_()
            torch.autograd.backward(ctx.region(x), grad)
        return x.grad, None


def test_gradients_that_come_by_a_backward_pass_of_the_models_own_are_not_missed() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    loss = lambda m, x: Hidden.apply(m[0](x), m[1]).square().sum(1)  # noqa: E731
    with pytest.raises(gn.ModelError, match=r"fills \.grad of 1\.weight, 1\.bias by a backward"):
        gn.gradient_moments(model, loss, torch.randn(5, 3))
    assert model[1].weight.grad is None


@pytest.mark.parametrize("between", [[], [nn.BatchNorm1d(5)]])
def test_dropout_that_seldom_drops_is_random(between: list[nn.Module]) -> None:
    """None of the few samples that are looked at may show it."""
    model = mlp(nn.Dropout(1e-4), *between)
    problem = Problem.open(model, nn.CrossEntropyLoss(), (INPUTS, LABELS), Options(group_size=12))
    assert problem.unit.is_group == bool(between)
    assert problem.unit.is_replayed


def test_what_any_rank_finds_is_so_for_all() -> None:
    coupled, random = Behaviour(coupling="x", layers="a"), Behaviour(is_random=True, layers="b")
    assert agreed([Behaviour(), random, coupled]) == Behaviour(True, "x", "a")
    assert agreed([Behaviour(), random]) == random
    assert agreed([Behaviour(), Behaviour()]) == Behaviour()
