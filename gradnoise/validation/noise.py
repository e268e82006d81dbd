"""Gradient noise and curvature of models: every number of a profile, and of arrays at hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from ..estimators.covariance.covariance import covariance
from ..estimators.curvature.sharpness import sharpness
from ..estimators.diagnostics.batch_bounds import gradient_diversity
from ..estimators.diagnostics.sign import sign_noise_scale
from ..estimators.diagnostics.tails import stable_index
from ..estimators.from_arrays.gradients import noise_scale_from_gradients
from ..estimators.from_arrays.gram import noise_scale_from_gram, noise_scale_from_sums
from ..estimators.from_arrays.norms import noise_scale_from_batches, simple_noise_scale_from_norms
from ..estimators.noise.by_layer import layer_noise_scales
from ..measurement.gradient_moments import gradient_moments
from ..per_sample.public import per_sample_gradients
from ..profiles.profile import profile
from ..toy import (
    FiniteLeastSquares,
    FlippedLogistic,
    LinearRegression,
    NoisyQuadratic,
    NoisyQuadraticModel,
    RandomCurvature,
    SoftmaxRegression,
    Toy,
)
from .check import LEVEL, Check, exact, statistical

SAMPLES = 2000
PARTS = (
    *("loss", "grad_sq_norm", "trace_cov", "simple_noise_scale", "sharpness"),
    *("grad_curvature", "trace_hessian_cov", "noise_scale", "curvature_noise_scale"),
)
SPECTRUM = torch.tensor([3.0, 2.0, 1.0, 0.5, 0.2])
MEANS = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
REGRESSION = LinearRegression(SPECTRUM, torch.full((5,), 0.5), noise=0.5)
TOYS: dict[str, Toy] = {
    "T1": NoisyQuadratic(torch.diag(torch.tensor([3.0, 1.0, 0.2])), torch.ones(3)),
    "T2": NoisyQuadraticModel(torch.ones(4)),
    "T4": REGRESSION,
    "T6": RandomCurvature(2.0, 1.0),
    "T7": SoftmaxRegression(MEANS, torch.tensor([1.0, 1.0, 0.5])),
    "T8": FlippedLogistic(0.3),
}


def profiles(seed: int) -> Iterator[Check]:
    """Everything that a profile measures, of a distribution."""
    for name, toy in TOYS.items():
        found = profile(
            toy.model(), toy.loss_fn, toy.sample(SAMPLES, seed), population="distribution",
            level=LEVEL, seed=seed,
        )  # fmt: skip
        for part in PARTS:
            yield statistical(name, part, getattr(toy.truth(), part), getattr(found, part))


def whole_population(seed: int) -> Iterator[Check]:
    """T5, measured whole: all but the probes is exact."""
    source = torch.Generator().manual_seed(seed)
    inputs = torch.randn(40, 6, generator=source, dtype=torch.float64)
    targets = torch.randn(40, generator=source, dtype=torch.float64)
    toy = FiniteLeastSquares(inputs, targets, torch.ones(6))
    found = profile(toy.model(), toy.loss_fn, toy.sample(40, 0), level=LEVEL, seed=seed, tol=1e-9)
    for part in PARTS:
        truth, estimate = getattr(toy.truth(), part), getattr(found, part)
        yield exact("T5", part, truth, float(estimate), 1e-5)
    for batch in (1, 8):
        bound = float(found.mean_square_lr(batch)) / toy.mean_square_lr(batch)
        yield Check("T5", f"mean-square limit at {batch}, over the exact", 1.0, bound, float("nan"),
                    1 - 1e-6 <= bound <= 1.5)  # fmt: skip


def arrays(seed: int) -> Iterator[Check]:
    """The same numbers of T4 from rows, inner products, sums and norms."""
    toy, truth = REGRESSION, REGRESSION.truth()
    data = toy.sample(SAMPLES, seed)
    rows = per_sample_gradients(toy.model(), toy.loss_fn, data)["w"].double()
    norms = rows.square().sum(1)
    small = rows.reshape(-1, 2, 5).mean(1).square().sum(1)
    big = rows.reshape(-1, 20, 5).mean(1).square().sum(1)
    given = noise_scale_from_gradients(rows, level=LEVEL)
    inner = noise_scale_from_gram(rows @ rows.T, level=LEVEL)
    for name, trace, signal, simple in (
        ("rows", given.trace_cov, given.grad_sq_norm, given.simple_noise_scale),
        ("inner products", inner.trace_cov, inner.grad_sq_norm, inner),
    ):
        yield statistical("T4", f"trΣ from {name}", truth.trace_cov, trace)
        yield statistical("T4", f"|G|² from {name}", truth.grad_sq_norm, signal)
        yield statistical("T4", f"B_simple from {name}", truth.simple_noise_scale, simple)
    sums = noise_scale_from_sums(SAMPLES, rows.sum(0), norms.sum())
    whole = noise_scale_from_gradients(rows)
    yield exact("T4", "trΣ from sums", float(whole.trace_cov), float(sums.trace_cov), 1e-9)
    two = simple_noise_scale_from_norms(small, big, 2, 20, level=LEVEL)
    yield statistical("T4", "|G|² from two batch sizes", truth.grad_sq_norm, two.grad_sq_norm)
    yield statistical("T4", "trΣ from two batch sizes", truth.trace_cov, two.trace_cov)
    sizes = [1] * 400 + [2] * 200 + [20] * 50
    many = noise_scale_from_batches(
        sizes, torch.cat([norms[:400], small[200:400], big[40:90]]), level=LEVEL
    )
    yield statistical("T4", "|G|² from many batch sizes", truth.grad_sq_norm, many.grad_sq_norm)
    yield statistical("T4", "trΣ from many batch sizes", truth.trace_cov, many.trace_cov)


def single(seed: int) -> Iterator[Check]:
    """Calls for one quantity."""
    toy, truth = REGRESSION, REGRESSION.truth()
    problem = toy.model(), toy.loss_fn, toy.sample(SAMPLES, seed)
    options: dict[str, Any] = {"population": "distribution", "level": LEVEL}
    moments = gradient_moments(*problem, intervals=True, **options)
    yield statistical("T4", "trΣ in one pass", truth.trace_cov, moments.trace_cov)
    pairs = sharpness(*problem, seed=seed, **options)
    yield statistical("T4", "λ by gn.sharpness", truth.sharpness, pairs.estimate)
    noise = covariance(*problem, k=2, seed=seed, **options)
    yield statistical("T4", "trΣ by gn.covariance", truth.trace_cov, noise.trace)
    c, offset = toy.spectrum, toy.offset
    residual = float(c @ offset**2) + toy.noise**2
    slope = c * offset
    cov = torch.diag(c) * residual + torch.outer(slope, slope)
    top = float(torch.linalg.eigvalsh(cov)[-1])
    yield statistical("T4", "largest eigenvalue of Σ", top, noise.top_eigenvalue)
    square = float(cov.square().sum())
    yield statistical("T4", "tr(Σ²)", square, noise.trace_sq)
    rank = float(cov.trace()) ** 2 / square
    yield statistical("T4", "participation ratio of Σ", rank, noise.participation_ratio)
    (layer,) = layer_noise_scales(*problem, seed=seed, **options).values()
    yield statistical("T4", "B_noise of the only layer", truth.noise_scale, layer.noise.hessian)
    signs = sign_noise_scale(moments_rows(problem), level=LEVEL, seed=seed)
    spread = float(cov.diagonal().sqrt().sum() ** 2 / slope.abs().sum() ** 2)
    yield statistical("T4", "noise scale of signs", spread, signs)
    finite = noise_scale_from_gradients(torch.eye(3, dtype=torch.float64), population="dataset")
    yield exact("orthogonal rows", "gradient diversity", 1.0, float(gradient_diversity(finite)))


def moments_rows(problem: Any) -> Any:
    return per_sample_gradients(*problem)["w"]


def tails(seed: int) -> Iterator[Check]:
    """T10: the stable index of numbers with a known one."""
    source = torch.Generator().manual_seed(seed)
    normal = torch.randn(200_000, generator=source, dtype=torch.float64)
    cauchy = normal[:100_000] / normal[100_000:]
    for name, truth, numbers in (("Gaussian", 2.0, normal), ("Cauchy", 1.0, cauchy)):
        yield statistical("T10", f"tail index, {name}", truth, stable_index(numbers, level=LEVEL))
