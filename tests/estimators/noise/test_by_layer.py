"""Each layer measured alone, held to the dense blocks of the Hessian and of the covariance."""

from __future__ import annotations

import math

import pytest
import torch

import gradnoise as gn
from tests import oracles
from tests.cases import CASES, Case, named
from tests.oracles import columns

CHOSEN = [case for case in CASES if case.name in ("MLP with cross-entropy", "tied weights")]


@pytest.mark.parametrize("case", CHOSEN, ids=named)
def test_blocks_alone_are_those_of_the_dense_hessian(case: Case) -> None:
    model, loss_fn, batch = case.build()
    truth = oracles.dense(model, loss_fn, batch)
    scales = gn.layer_noise_scales(model, loss_fn, batch, tol=1e-10)
    assert list(scales) == list(gn.gradient_moments(model, loss_fn, batch).layers)
    for scale in scales.values():
        own = columns(model, scale.parameters)
        h, c, g = truth.hessian[own][:, own], truth.covariance[own][:, own], truth.gradients
        mean, noise = g.mean(0)[own], scale.noise
        top = float(torch.linalg.eigvalsh(h)[-1])
        assert float(scale.sharpness) == pytest.approx(top, rel=1e-7)
        assert float(noise.trace_hessian_cov) == pytest.approx(float((h @ c).trace()), rel=1e-7)
        assert float(noise.grad_curvature) == pytest.approx(float(mean @ h @ mean), rel=1e-7)
        assert float(noise.trace_cov) == pytest.approx(float(c.trace()), rel=1e-9)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_layers_are_named_as_modules_or_given_by_their_parameters() -> None:
    model, loss_fn, batch = CASES[0].build()
    by_name = gn.layer_noise_scales(model, loss_fn, batch, layers=["0", "2.bias", ""])
    assert by_name["0"].parameters == ("0.weight", "0.bias")
    assert by_name["2.bias"].parameters == ("2.bias",)
    assert len(by_name[""].parameters) == 4
    given = {"weights": ["0.weight", "2.weight"]}
    assert gn.layer_noise_scales(model, loss_fn, batch, layers=given)["weights"].parameters == (
        "0.weight",
        "2.weight",
    )
    with pytest.raises(gn.ArgumentError, match="names 'head', which holds no trainable"):
        gn.layer_noise_scales(model, loss_fn, batch, layers="head")
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_frozen_layer_is_no_layer_and_stays_frozen() -> None:
    model, loss_fn, batch = CASES[0].build()
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    scales = gn.layer_noise_scales(model, loss_fn, batch, population="distribution")
    assert list(scales) == ["2"]
    assert not math.isnan(scales["2"].sharpness.stderr)
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, True]
