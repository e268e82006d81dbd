"""The losses as a function of the parameters, and what has none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradnoise as gn
from gradnoise.problem.objective import Objective
from tests.refusals import CE, X, Y, check_refused, linear


def frozen() -> nn.Module:
    return linear().requires_grad_(False)


def scalar(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def nan(model: nn.Module, batch: Any) -> Tensor:
    return model(batch[0]).square().sum(1).neg().sqrt()


def half_of_them(model: nn.Module, batch: Any) -> Tensor:
    return model(batch[0])[::2].sum(1)


def number(model: nn.Module, batch: Any) -> Any:
    return 3.0


REFUSED: dict[str, Any] = {
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
    "a class": (linear, nn.CrossEntropyLoss, gn.LossError, r"make one: CrossEntropyLoss\(\)"),
    "no entries": (lambda: nn.Linear(0, 0), CE, gn.ModelError, r"none with entries"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_models_and_losses_without_a_gradient_are_refused_and_left_as_they_were(name: str) -> None:
    check_refused(*REFUSED[name], unit="sample")


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


CHANGES: dict[str, Any] = {
    "a parameter": lambda m: m[0].weight.detach().mul_(2),
    "a parameter's data": lambda m: m[0].bias.data.add_(1),
    "a parameter through NumPy": lambda m: m[0].bias.detach().numpy().fill(7),
    "a buffer": lambda m: m[1].running_mean.copy_(torch.ones(2)),
    "a buffer of whole numbers": lambda m: m[1].num_batches_tracked.add_(1),
    "entries swapped": lambda m: m[0].weight.data.copy_(m[0].weight.data.flip(0)),
    "all entries negated": lambda m: m[0].weight.data.neg_(),
    "the sign of a zero": lambda m: m[1].bias.data.neg_(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_fingerprint_changes_with_every_value(name: str) -> None:
    model = nn.Sequential(linear(), nn.BatchNorm1d(2))
    model[0].weight.data = torch.tensor([[1.0, -2.0, 3.0], [-1.0, 2.0, -3.0]])
    objective = Objective(model, CE)
    before = objective.fingerprint()
    assert objective.fingerprint() == before
    CHANGES[name](model)
    assert objective.fingerprint() != before


def test_the_sum_of_a_batch_is_split_by_rows_of_weights() -> None:
    objective = Objective(linear(), CE)
    rows = torch.stack([torch.ones(8), torch.arange(8.0)])
    for row, found in zip(rows, objective.gradients((X, Y), rows), strict=True):
        torch.testing.assert_close(found, objective.gradient((X, Y), row))
    assert objective.sample_bytes == 4 * objective.size == 32
