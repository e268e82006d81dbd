"""What can be measured, and one clear error for each thing that cannot."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradnoise as gn
from gradnoise.problem.checks import check_batch
from gradnoise.problem.objective import Objective

SOURCE = torch.Generator().manual_seed(0)
X, Y = torch.randn(8, 3, generator=SOURCE), torch.randint(2, (8,), generator=SOURCE)
CE = nn.CrossEntropyLoss()


def linear() -> nn.Module:
    return nn.Linear(3, 2)


def frozen() -> nn.Module:
    return linear().requires_grad_(False)


def normed() -> nn.Module:
    return nn.Sequential(linear(), nn.BatchNorm1d(2))


def scalar(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def nan(model: nn.Module, batch: Any) -> Tensor:
    return model(batch[0]).square().sum(1).neg().sqrt()


def shared_mean(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none") / len(batch[1])


def looks_back(model: nn.Module, batch: Any) -> Tensor:
    sums = model(batch[0]).sum(1)
    return sums + torch.cat([sums[:1] * 0, sums[:-1]])


def leans_on_first(model: nn.Module, batch: Any) -> Tensor:
    return model(batch[0]).sum(1) + model(batch[0][:1]).sum()


def detached(model: nn.Module, batch: Any) -> Tensor:
    return model(batch[0]).detach().sum(1)


def half_of_them(model: nn.Module, batch: Any) -> Tensor:
    return model(batch[0])[::2].sum(1)


def number(model: nn.Module, batch: Any) -> Any:
    return 3.0


REFUSED = {
    "no trainable parameter": (frozen, CE, gn.ModelError, r"no trainable parameter: 2 param"),
    "not a module": (lambda: "model", CE, gn.ModelError, r"must be a torch.nn.Module; got str"),
    "lazy": (lambda: nn.LazyLinear(2), CE, gn.ModelError, r"'weight' is not initialised"),
    "complex": (
        lambda: nn.Linear(3, 2, dtype=torch.complex64),
        CE,
        gn.ModelError,
        r"'weight' is complex",
    ),
    "loss is no function": (linear, "mse", gn.LossError, r"`loss_fn` must be.*got str"),
    "scalar loss": (linear, scalar, gn.LossError, r"shape \(8,\); got a single number"),
    "wrong shape": (linear, half_of_them, gn.LossError, r"shape \(8,\); got shape \(4,\)"),
    "no tensor": (linear, number, gn.LossError, r"must return a tensor.*got float"),
    "NaN loss": (linear, nan, gn.LossError, r"not finite for \d of 8 samples"),
    "detached loss": (linear, detached, gn.LossError, r"does not depend on any trainable"),
    "dropout": (
        lambda: nn.Sequential(linear(), nn.Dropout()),
        CE,
        gn.RandomLossError,
        r"1 \(Dropout\).*model\.eval\(\)",
    ),
    "dropout inside an LSTM": (
        lambda: Recurrent(dropout=0.5),
        CE,
        gn.RandomLossError,
        r"rnn \(LSTM\)",
    ),
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
    "a class": (linear, nn.CrossEntropyLoss, gn.LossError, r"make one: CrossEntropyLoss\(\)"),
    "no entries": (lambda: nn.Linear(0, 0), CE, gn.ModelError, r"none with entries"),
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


def snapshot(model: Any) -> Any:
    if not isinstance(model, nn.Module):
        return None
    return (
        [module.training for module in model.modules()],
        [(id(b), b.tolist()) for b in model.buffers()],
        [(id(p), p.requires_grad, p.grad) for p in model.parameters()],
        torch.get_rng_state().tolist(),
    )


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_measured_is_refused_and_left_as_it_was(name: str) -> None:
    build, loss_fn, error, message = REFUSED[name]
    model = build()
    before = snapshot(model)
    with pytest.raises(error, match=message):
        gn.profile(model, loss_fn, (X, Y))
    assert snapshot(model) == before


def test_batch_norm_with_single_samples_says_the_same() -> None:
    with pytest.raises(gn.CoupledSamplesError, match=r"1 \(BatchNorm1d\)"):
        gn.profile(normed(), CE, [(X[:1], Y[:1]), (X[1:2], Y[1:2])])


@pytest.mark.parametrize("shapes_differ", [False, True])
def test_batch_norm_over_pixels_is_seen_through_batches_of_one(shapes_differ: bool) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    images = [(torch.randn(1, 1, 4, 4 + shapes_differ * (i % 2)),) for i in range(6)]
    with pytest.raises(gn.CoupledSamplesError, match=r"1 \(BatchNorm2d\)"):
        gn.profile(model, lambda m, x: m(x[0]).flatten(1).square().mean(1), images)


def test_parameters_made_in_inference_mode_are_refused() -> None:
    with torch.inference_mode():
        model = linear()
    with pytest.raises(gn.ModelError, match=r"'weight' was made under torch.inference_mode"):
        gn.profile(model, CE, (X, Y))


def test_data_made_in_inference_mode_is_fine() -> None:
    with torch.inference_mode():
        data = (X.clone(), Y.clone())
    assert gn.gradient_moments(linear(), CE, data).count == 8


def test_a_loss_that_takes_its_batch_apart_is_fine() -> None:
    def popping(model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch.pop("x")), batch.pop("y"), reduction="none")

    batch = {"x": X, "y": Y}
    assert gn.profile(linear(), popping, batch, probes=2).samples == 8
    assert set(batch) == {"x", "y"}


class Remembers(nn.Module):
    """Stores what it computed, and keeps an average in a buffer that it replaces."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = linear(), None
        self.register_buffer("average", torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        self.last = self.inner(x)
        self.average = 0.9 * self.average + 0.1 * self.last.detach().mean(0)
        return self.last


def test_a_model_that_remembers_its_outputs_forgets_the_measurement() -> None:
    model = Remembers()
    average = model.average
    profile = gn.profile(model, CE, (X, Y), probes=2)
    assert profile.samples == 8
    assert model.last is None
    assert model.average is average
    assert not average.any()


@pytest.mark.parametrize("change", ["mode", "frozen", "layer"])
def test_an_operator_of_a_model_that_changed_says_so(change: str) -> None:
    model = nn.Sequential(linear(), nn.Dropout(), nn.Linear(2, 2)).eval()
    hessian = gn.Hessian(model, CE, (X, Y))
    if change == "mode":
        model.train()
    elif change == "frozen":
        model[0].weight.requires_grad_(False)
    else:
        model[2] = nn.Linear(2, 2).eval()
    with pytest.raises(gn.ModelError, match="build the operator again"):
        hessian @ torch.ones(14)


def test_an_error_inside_the_users_loss_comes_through_unchanged() -> None:
    def broken(model: nn.Module, batch: Any) -> Tensor:
        raise KeyError("their own")

    with pytest.raises(KeyError, match="their own"):
        gn.profile(linear(), broken, (X, Y))


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
        check_batch(objective, (X, Y))
        assert objective.losses((X, Y)).shape == (8,)


def test_the_gradient_is_weighted_and_zero_for_unused_parameters() -> None:
    model = nn.ModuleDict({"used": linear().double(), "unused": nn.Linear(1, 1)})
    objective = Objective(model, lambda m, batch: m["used"](batch).sum(1))
    gradient = objective.gradient(X.double(), torch.arange(8.0))
    torch.testing.assert_close(gradient[0][0], torch.arange(8.0).double() @ X.double())
    assert not gradient[2].any()


def test_the_guard_opens_once_however_often_it_is_entered() -> None:
    objective = Objective(linear(), CE)
    before = torch.get_rng_state()
    with objective.guard():
        with objective.guard():
            torch.rand(1)
        assert not torch.equal(torch.get_rng_state(), before)
    assert torch.equal(torch.get_rng_state(), before)


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
