"""P and the weight decay of an optimizer, read from its state."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise.problem.next_update import next_update
from gradnoise.problem.preconditioner import Preconditioner
from tests.cases import CORE, Case, named
from tests.optimizers import OPTIMIZERS, Lion, by_hand, trained, trained_with
from tests.refusals import CE, X, Y


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_scales_and_decays_are_those_of_the_formulas(name: str) -> None:
    model, _, _, optimizer = trained(CORE[0], name)
    found = Preconditioner.of(optimizer, dict(model.named_parameters()))
    scale, inside, outside = by_hand(optimizer)
    torch.testing.assert_close(found.flat(found.root, scale), scale.rsqrt())
    torch.testing.assert_close(found.flat(found.inside, scale), inside)
    torch.testing.assert_close(found.flat(found.outside, scale), outside)
    assert found.is_decayed is bool(outside.any())


@pytest.mark.parametrize("name", ["SGD", "AdamW in groups"])
def test_products_are_taken_in_the_coordinates(name: str) -> None:
    model, _, _, optimizer = trained(CORE[0], name)
    found = Preconditioner.of(optimizer, dict(model.named_parameters()))
    scale, inside, outside = by_hand(optimizer)
    a, block = torch.randn(43, 43, dtype=torch.float64), torch.randn(43, 2, dtype=torch.float64)
    root = torch.diag(scale.rsqrt())
    truth = root @ (a + torch.diag(inside)) @ root @ block
    torch.testing.assert_close(found.around(lambda b: a @ b, block), truth)
    torch.testing.assert_close(found.decoupled(block), outside[:, None] * block)
    torch.testing.assert_close(found.decoupled(block[:, 0]), outside * block[:, 0])


def test_half_precision_has_its_scales_in_float32() -> None:
    model = torch.nn.Linear(2, 1).bfloat16()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = Preconditioner.of(optimizer, dict(model.named_parameters()))
    assert {root.dtype for root in found.root.values()} == {torch.float32}


FRONT_DOORS = [gn.profile, gn.noise_scale, gn.gradient_moments, gn.sharpness]


@pytest.mark.parametrize("call", FRONT_DOORS)
def test_what_is_no_metric_is_refused(call: Any) -> None:
    case = CORE[0].build()
    fresh = torch.optim.Adam(case[0].parameters())
    with pytest.raises(gn.ArgumentError, match=r"`metric` must be one of euclidean, optimizer"):
        call(*case, metric="adam")
    with pytest.raises(gn.ArgumentError, match=r"needs `optimizer`, the torch\.optim\.Optimizer"):
        call(*case, metric="optimizer")
    with pytest.raises(gn.ArgumentError, match=r"no state for '0\.weight' yet: take a step first"):
        call(*case, metric="optimizer", optimizer=fresh)
    with pytest.raises(gn.ArgumentError, match="preconditioner of Adadelta is not known"):
        call(*case, metric="optimizer", optimizer=torch.optim.Adadelta(case[0].parameters()))


HELD: dict[str, Any] = {  # a small gradient leaves the sum of Adagrad as it is
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01, lr_decay=0.1),
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01, weight_decay=0.3),
    "Adafactor, rate capped": lambda p: torch.optim.Adafactor(p, lr=0.9),
    "Adafactor, small weights": lambda p: torch.optim.Adafactor(p, lr=0.01, eps=(1e-3, 50.0)),
}


@pytest.mark.parametrize("case", [CORE[0], CORE[2]], ids=named)
@pytest.mark.parametrize("name", HELD)
def test_the_next_step_is_that_of_the_coordinates(name: str, case: Case) -> None:
    """w⁺ = w - ε(P⁻¹g + Ew), with the second moments held."""
    model, _, _, optimizer = trained_with(case, HELD[name])
    named_parameters = dict(model.named_parameters())
    size = sum(p.numel() for p in model.parameters())
    gradient = 1e-9 * torch.randn(size, dtype=torch.float64)
    found = Preconditioner.of(optimizer, named_parameters)
    for group in optimizer.param_groups:
        group["beta2_decay"] = -1000.0
    update = torch.cat([u.flatten() for u in next_update(optimizer, named_parameters, gradient)])
    root, outside = found.flat(found.root, gradient), found.flat(found.outside, gradient)
    w = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    expected = root.square() * gradient + outside * w
    torch.testing.assert_close(update, expected, rtol=1e-6, atol=1e-14)


@pytest.mark.parametrize("kind", [torch.optim.Adagrad, torch.optim.Adafactor])
def test_a_state_without_a_step_is_none(kind: Any) -> None:
    """Adagrad has its sums from the start."""
    model, loss_fn, batch = CORE[0].build()
    with pytest.raises(gn.ArgumentError, match=r"no state for '0\.weight' yet: take a step first"):
        gn.profile(*(model, loss_fn, batch), optimizer=kind(model.parameters()), metric="optimizer")


class SignSGD(Lion):
    """Another name."""


def matrices() -> tuple[torch.nn.Module, Any, Any]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 5, bias=False), torch.nn.Tanh())
    model.append(torch.nn.Linear(5, 3, bias=False)).double()
    return model, torch.nn.CrossEntropyLoss(), (torch.randn(8, 4).double(), torch.arange(8) % 3)


@pytest.mark.parametrize(
    ("name", "scale"), [("Lion", "sign"), ("SignSGD", "sign"), ("Muon", "spectral")]
)
def test_where_there_is_no_preconditioner_the_error_names_what_works(name: str, scale: str) -> None:
    """And each of these does work for it."""
    if name == "Muon" and not hasattr(torch.optim, "Muon"):
        pytest.skip("torch has no Muon before 2.9")
    model, loss_fn, data = matrices()
    kinds = {"Lion": Lion, "SignSGD": SignSGD, "Muon": getattr(torch.optim, "Muon", None)}
    optimizer = kinds[name](model.parameters())
    with pytest.raises(gn.ArgumentError, match=f"{name} has no preconditioner") as caught:
        gn.profile(model, loss_fn, data, optimizer=optimizer, metric="optimizer")
    advice = str(caught.value)
    assert set(re.findall(r"gn\.(\w+)", advice)) == {
        "critical_lr",
        "branch",
        f"{scale}_noise_scale",
    }
    found = gn.critical_lr(model, loss_fn, data, optimizer)
    assert found.is_resolved
    gradients = gn.per_sample_gradients(model, loss_fn, data)
    options = {"side": "rows"} if scale == "spectral" else {}
    noise = getattr(gn, f"{scale}_noise_scale")(gradients, **options)
    assert noise.samples == 8
    assert "metric='euclidean'" in advice
    assert gn.profile(model, loss_fn, data, optimizer=optimizer, metric="euclidean").loss


def test_the_optimizer_of_another_copy_is_said_and_the_cures_work() -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(X).sum().backward()
    optimizer.step()
    average = torch.optim.swa_utils.AveragedModel(model)
    p = gn.profile(average, CE, (X, Y), optimizer=optimizer)
    assert p.metric == "euclidean"
    assert any("holds no parameter of this model" in note for note in p.warnings)
    assert gn.profile(model, CE, (X, Y), optimizer=optimizer).metric == "optimizer"
    without = gn.profile(average, CE, (X, Y))
    assert not any("not measured in the metric" in note for note in without.warnings)
    with pytest.raises(gn.ArgumentError, match=r"holds no parameter.*Measure the model that it"):
        gn.profile(average, CE, (X, Y), optimizer=optimizer, metric="optimizer")
