"""How Σ lies beside H, held to dense matrices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from tests import oracles
from tests.cases import CORE, Case, named


@pytest.mark.parametrize("case", CORE, ids=named)
def test_alignment_is_that_of_the_dense_matrices(case: Case) -> None:
    model, loss_fn, batch = case.build()
    dense = oracles.dense_of(case)
    h, sigma, mean = dense.hessian, dense.covariance, dense.gradients.mean(0)
    found = gn.covariance(model, loss_fn, batch, k=3, tol=1e-9, products=len(mean)).alignment
    top_h = torch.linalg.eigh(h)[1].flip(1)[:, :3]
    top_sigma = torch.linalg.eigh(sigma)[1].flip(1)[:, :3]
    trace = float((h * sigma).sum())
    assert found.overlap.is_exact  # all 32 sign vectors of six samples
    assert float(found.overlap) == pytest.approx(trace / float(h.norm() * sigma.norm()), rel=1e-6)
    assert float(found.trace_hessian_cov) == pytest.approx(trace, rel=1e-6)
    assert float(found.hessian_norm) == pytest.approx(float(h.norm()), rel=1e-9)
    cosines = torch.linalg.svdvals(top_sigma.T @ top_h).clamp(max=1)
    torch.testing.assert_close(found.angles, cosines.arccos(), rtol=1e-5, atol=1e-5)
    assert found.subspace_overlap == pytest.approx(float(cosines.square().mean()), abs=1e-6)
    shares = (
        float((top_h.T @ mean).square().sum() / mean.square().sum()),
        float((top_h.T @ sigma @ top_h).trace() / sigma.trace()),
    )
    assert float(found.grad_share) == pytest.approx(shares[0], rel=1e-6)
    assert float(found.noise_share) == pytest.approx(shares[1], rel=1e-6)
    assert found.grad_share.is_exact
    assert found.noise_share.is_exact


class _Once(torch.autograd.Function):
    """A square whose backward cannot be differentiated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * grad


def test_without_second_derivatives_it_is_by_differences() -> None:
    model, _, (x, _) = CORE[0].build()

    def loss_fn(model: nn.Module, batch: Tensor) -> Tensor:
        return _Once.apply(model(batch)).sum(1)

    found = gn.covariance(model, loss_fn, x, population="distribution")
    known = gn.covariance(model, lambda m, x: m(x).square().sum(1), x, population="distribution")
    assert found.alignment is not None
    assert known.alignment is not None
    overlap = known.alignment.overlap
    assert float(found.alignment.overlap) == pytest.approx(float(overlap), rel=1e-4)
    assert found.alignment.overlap.high == pytest.approx(overlap.high, rel=1e-3)
    assert float(gn.covariance(model, loss_fn, x, hessian=False).trace) > 0
