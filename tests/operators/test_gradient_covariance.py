"""Σ is the covariance of the per-sample gradients."""

from __future__ import annotations

import pytest
import torch

import gradnoise as gn
from tests import oracles
from tests.cases import CASES, Case, named
from tests.dense import CLOSE, dense


@pytest.mark.parametrize("case", CASES, ids=named)
def test_sigma_is_the_covariance_of_the_dense_gradients(case: Case) -> None:
    model, loss_fn, batch = case.build()
    truth = oracles.dense(model, loss_fn, batch, second=False)
    sigma = gn.GradientCovariance(model, loss_fn, batch, micro_batch=4)
    torch.testing.assert_close(dense(sigma), truth.covariance, **CLOSE)
    assert sigma.T is sigma


def test_its_trace_is_that_of_the_moments() -> None:
    model, loss_fn, batch = CASES[0].build()
    moments = gn.gradient_moments(model, loss_fn, batch)
    trace = float(dense(gn.GradientCovariance(model, loss_fn, batch)).trace())
    assert trace == pytest.approx(float(moments.trace_cov), rel=1e-10)
