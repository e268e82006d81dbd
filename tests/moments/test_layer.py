"""Layers and parameter groups: names, sums and shares of the noise."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise.moments.layer import UNGROUPED, by_group, by_module
from tests.cases import CORE, Case, named


@pytest.mark.parametrize("case", CORE, ids=named)
def test_layers_sum_to_the_whole(case: Case) -> None:
    model, loss_fn, batch = case.build()
    moments = gn.gradient_moments(model, loss_fn, batch, population="distribution")
    layers = moments.layers.values()
    for name in ("trace_cov", "grad_sq_norm"):
        total = math.fsum(float(getattr(layer, name)) for layer in layers)
        assert total == pytest.approx(float(getattr(moments, name)), rel=1e-10)
    assert math.fsum(layer.noise_share for layer in layers) == pytest.approx(1, rel=1e-12)
    assert sorted(n for layer in layers for n in layer.parameters) == sorted(moments.mean)
    assert moments.per_parameter is not None
    total = sum(moments.restrict([name]).deviations()[1:] for name in moments.mean)
    torch.testing.assert_close(total, moments.deviations()[1:], rtol=1e-9, atol=1e-12)


def test_the_only_layer_is_the_whole() -> None:
    model, x = nn.Sequential(nn.Linear(3, 2)), torch.randn(30, 3)
    moments = gn.gradient_moments(model, nn.MSELoss(), (x, x[:, :2]), population=100)
    (layer,) = moments.layers.values()
    assert layer.trace_cov == moments.trace_cov
    assert layer.simple_noise_scale == moments.simple_noise_scale


def test_parameters_of_no_group_are_named_and_others_passed_over() -> None:
    a, b, c, other = (torch.zeros(1) for _ in range(4))
    found = by_group({"a": a, "b": b, "c": c}, [[a, other], [], [b, a]])
    assert found == {"group 0": ["a"], "group 1": [], "group 2": ["b"], UNGROUPED: ["c"]}


def test_parameters_belong_to_the_module_that_holds_them() -> None:
    names = ["scale", "encoder.0.weight", "encoder.0.bias", "head.weight"]
    assert by_module(names) == {
        "": ["scale"],
        "encoder.0": ["encoder.0.weight", "encoder.0.bias"],
        "head": ["head.weight"],
    }
