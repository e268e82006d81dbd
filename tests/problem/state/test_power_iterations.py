"""Spectral norm in train mode is measured with the vectors that it has."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm

import gradnoise as gn
from tests.refusals import CE, X, Y, snapshot


def discriminator(norm: Any) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(norm(nn.Linear(3, 4)), nn.LeakyReLU(0.2), norm(nn.Linear(4, 2)))


@pytest.mark.parametrize("norm", [parametrizations.spectral_norm, spectral_norm])
def test_spectral_norm_in_train_mode_is_that_of_its_vectors(norm: Any) -> None:
    model = discriminator(norm)
    model(X)  # as training leaves it, far from converged
    before = snapshot(model)
    trained = gn.profile(model, CE, (X, Y))
    assert snapshot(model) == before
    still = gn.profile(model.eval(), CE, (X, Y))
    for name in ("loss", "grad_sq_norm", "trace_cov", "sharpness", "noise_scale"):
        assert float(getattr(trained, name)) == float(getattr(still, name)), name
    assert (trained.mode, trained.unit, still.mode) == ("train", "sample", "eval")


@pytest.mark.parametrize("norm", [parametrizations.spectral_norm, spectral_norm])
def test_its_gradients_are_those_of_autograd_with_the_vectors_held(norm: Any) -> None:
    model = discriminator(norm).double()
    model(X.double())
    found = gn.per_sample_sq_norms(model, CE, (X.double(), Y))
    model.eval()
    parameters = list(model.parameters())
    for own, x, y in zip(found, X.double(), Y, strict=True):
        loss = nn.functional.cross_entropy(model(x[None]), y[None])
        gradient = torch.autograd.grad(loss, parameters)
        assert float(own) == pytest.approx(float(sum(g.square().sum() for g in gradient)), rel=1e-9)
