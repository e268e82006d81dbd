"""Rules of single operations: what they refuse, and their digits in half precision."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradnoise as gn
from gradnoise.per_sample.hooks.layout import Layout
from gradnoise.per_sample.hooks.rules import RULES, At, add
from tests.cases import SAMPLES, features
from tests.engines import summary
from tests.layer_cases import Function, ids, squares


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Embedding(5, 3, scale_grad_by_freq=True), "scale_grad_by_freq"),
        (nn.EmbeddingBag(5, 3, scale_grad_by_freq=True, mode="sum"), "scale_grad_by_freq"),
    ],
)
def test_tables_that_couple_samples_are_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(gn.EngineError, match=message):
        summary(model.double(), squares, ids(4)())


def test_a_parameter_with_an_entry_for_every_sample_is_refused() -> None:
    at, delta = At(Layout(0), SAMPLES, torch.float64), features()
    with pytest.raises(gn.EngineError, match="separate entries for every sample"):
        add(at, delta, features(), torch.zeros(SAMPLES, 4))["other"]()


def test_layer_norm_in_half_precision_is_normalised_in_float32() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 32), nn.LayerNorm(32)).bfloat16()
    x = torch.randn(8, 5, 32).bfloat16()
    seen: list[Tensor] = []
    model[0].register_forward_hook(lambda m, i, o: seen.append(o.detach()))
    loss = lambda m, batch: m(batch).float().pow(3).sum((1, 2))  # noqa: E731
    norms = gn.per_sample_sq_norms(model, loss, x, engine="hooks", per_parameter=True)
    output = model(x)
    (delta,) = torch.autograd.grad(output.float().pow(3).sum(), output)
    normal = nn.functional.layer_norm(seen[-1].double(), (32,))
    truth = (delta.double() * normal).sum(1).square().sum(1)
    torch.testing.assert_close(norms["1.weight"].double(), truth, rtol=1e-5, atol=0)


def test_a_bias_that_differs_between_positions_is_refused() -> None:
    model = Function(lambda s, x: torch.addmm(s.b, x, s.w), b=(5, 3), w=(4, 3)).double()
    with pytest.raises(gn.EngineError, match="a bias that differs between positions"):
        summary(model, squares, torch.linspace(-1, 1, 20, dtype=torch.float64).reshape(5, 4))


def test_arguments_of_a_rule_are_those_of_the_operation_in_order() -> None:
    for operation, rule in RULES.items():
        assert rule.of <= {*rule.names}
        if inspect.isfunction(operation):
            names = list(inspect.signature(operation).parameters)
            assert list(rule.names) == names[: len(rule.names)], operation
    assert RULES[F.linear].bind((1, 2), {"bias": 3}) == {"input": 1, "weight": 2, "bias": 3}


def test_running_statistics_are_not_updated_once_more() -> None:
    at, delta = At(Layout(0), SAMPLES, torch.float64), torch.randn(SAMPLES, 3, 5).double()
    inputs, mean, variance = torch.randn(SAMPLES, 3, 5).double(), torch.zeros(3), torch.ones(3)
    rule, scale = RULES[F.instance_norm].factored, torch.ones(3).double()
    found = rule(at, delta, inputs, mean, variance, scale)["weight"]()
    truth = (delta * F.instance_norm(inputs)).sum(2)
    torch.testing.assert_close(found.gradients(slice(0, SAMPLES)), truth)
    assert not mean.any()
    assert bool((variance == 1).all())
