"""Estimates from given arrays: gradients, their inner products, sums, norms and tails."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from ..estimators.diagnostics.batch_bounds import gradient_diversity
from ..estimators.diagnostics.tails import stable_index
from ..estimators.from_arrays.gradients import noise_scale_from_gradients
from ..estimators.from_arrays.gram import noise_scale_from_gram, noise_scale_from_sums
from ..estimators.from_arrays.norms import noise_scale_from_batches, simple_noise_scale_from_norms
from ..per_sample.public import per_sample_gradients
from .check import LEVEL, Check, exact, statistical
from .noise import REGRESSION, REGRESSION_NAME, SAMPLES


def gradients(seed: int) -> Iterator[Check]:
    """trΣ, |G|² and B_simple of a linear regression, from rows, inner products and sums."""
    truth, rows, check = REGRESSION.truth(), _rows(seed), partial(statistical, REGRESSION_NAME)
    given = noise_scale_from_gradients(rows, level=LEVEL)
    inner = noise_scale_from_gram(rows @ rows.T, level=LEVEL)
    for name, trace, signal, simple in (
        ("rows", given.trace_cov, given.grad_sq_norm, given.simple_noise_scale),
        ("inner products", inner.trace_cov, inner.grad_sq_norm, inner),
    ):
        yield check(f"trΣ from {name}", truth.trace_cov, trace)
        yield check(f"|G|² from {name}", truth.grad_sq_norm, signal)
        yield check(f"B_simple from {name}", truth.simple_noise_scale, simple)
    sums = noise_scale_from_sums(SAMPLES, rows.sum(0), rows.square().sum())
    again = float(noise_scale_from_gradients(rows).trace_cov)
    yield exact(REGRESSION_NAME, "trΣ from sums", again, float(sums.trace_cov), 1e-9)
    finite = noise_scale_from_gradients(torch.eye(3, dtype=torch.float64), population="dataset")
    yield exact("orthogonal rows", "gradient diversity", 1.0, float(gradient_diversity(finite)))


def norms(seed: int) -> Iterator[Check]:
    """trΣ and |G|² of a linear regression, from norms of gradients of several batch sizes."""
    truth, rows, check = REGRESSION.truth(), _rows(seed), partial(statistical, REGRESSION_NAME)
    one, small, big = (rows.reshape(-1, b, 5).mean(1).square().sum(1) for b in (1, 2, 20))
    two = simple_noise_scale_from_norms(small, big, 2, 20, level=LEVEL)
    yield check("|G|² from two batch sizes", truth.grad_sq_norm, two.grad_sq_norm)
    yield check("trΣ from two batch sizes", truth.trace_cov, two.trace_cov)
    sizes = [1] * 400 + [2] * 200 + [20] * 50
    many = noise_scale_from_batches(
        sizes, torch.cat([one[:400], small[200:400], big[40:90]]), level=LEVEL
    )
    yield check("|G|² from many batch sizes", truth.grad_sq_norm, many.grad_sq_norm)
    yield check("trΣ from many batch sizes", truth.trace_cov, many.trace_cov)


def tails(seed: int) -> Iterator[Check]:
    """The stable index of numbers from stable distributions."""
    source = torch.Generator().manual_seed(seed)
    normal = torch.randn(200_000, generator=source, dtype=torch.float64)
    cauchy = normal[:100_000] / normal[100_000:]
    for name, truth, numbers in (("Gaussian", 2.0, normal), ("Cauchy", 1.0, cauchy)):
        yield statistical(
            f"{name} numbers", "tail index", truth, stable_index(numbers, level=LEVEL)
        )


def _rows(seed: int) -> Tensor:
    """Per-sample gradients of the regression, shape (2000, 5)."""
    toy = REGRESSION
    return per_sample_gradients(toy.model(), toy.loss_fn, toy.sample(SAMPLES, seed))["w"].double()
