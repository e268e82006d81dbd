"""Each layer measured alone, held to the dense blocks of the Hessian and of the covariance."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import gradnoise as gn
from tests import oracles
from tests.cases import CASES, CORE, Case, named
from tests.optimizers import by_hand, in_coordinates, trained
from tests.oracles import columns

CHOSEN = [case for case in CASES if case.name in ("MLP with cross-entropy", "tied weights")]


@pytest.mark.parametrize("case", CHOSEN, ids=named)
def test_blocks_alone_are_those_of_the_dense_hessian(case: Case) -> None:
    model, loss_fn, batch = case.build()
    truth = oracles.dense_of(case)
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


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW in groups"])
def test_in_the_metric_of_an_optimizer_blocks_are_those_of_its_steps(name: str) -> None:
    """Blocks of P^-½(H + D)P^-½, to whose λ alone decoupled decay is added."""
    model, loss_fn, batch, optimizer = trained(CORE[0], name)
    dense = in_coordinates(model, oracles.dense(model, loss_fn, batch), optimizer)
    outside = by_hand(optimizer)[2]
    options: Any = {"optimizer": optimizer, "metric": "optimizer", "tol": 1e-10}
    whole = gn.layer_noise_scales(model, loss_fn, batch, **options)
    part = gn.layer_noise_scales(model, loss_fn, batch, population="distribution", **options)
    for key, scale in whole.items():
        own = columns(model, scale.parameters)
        h, c = dense.hessian[own][:, own], dense.covariance[own][:, own]
        mean, noise = dense.gradients.mean(0)[own], scale.noise
        values, vectors = torch.linalg.eigh(h + torch.diag(outside[own]))
        assert float(scale.sharpness) == pytest.approx(float(values[-1]), rel=1e-7)
        assert float(noise.trace_hessian_cov) == pytest.approx(float((h * c).sum()), rel=1e-7)
        assert float(noise.grad_curvature) == pytest.approx(float(mean @ h @ mean), rel=1e-7)
        assert float(noise.trace_cov) == pytest.approx(float(c.trace()), rel=1e-9)
        assert float(noise.grad_sq_norm) == pytest.approx(float(mean @ mean), rel=1e-9)
        top = vectors[:, -1]
        quotients = torch.einsum("p,ipq,q->i", top, dense.hessians[:, own][:, :, own], top)
        error = float(quotients.std()) / len(quotients) ** 0.5
        assert part[key].sharpness.stderr == pytest.approx(error, rel=1e-6)
        assert part[key].sharpness.low < float(values[-1]) < part[key].sharpness.high


def test_an_accuracy_out_of_range_is_refused() -> None:
    with pytest.raises(gn.ArgumentError, match=r"`accuracy` is a relative error.*got -1"):
        gn.layer_noise_scales(*CORE[0].build(), accuracy=-1)


def test_no_layer_is_sharper_than_the_whole() -> None:
    model, loss_fn, batch = CORE[0].build()
    scales = gn.layer_noise_scales(model, loss_fn, batch, tol=1e-10)
    whole = float(gn.sharpness(model, loss_fn, batch, tol=1e-10).values)
    assert all(float(scale.sharpness) <= whole * (1 + 1e-9) for scale in scales.values())
