"""All diagnostics that one measurement of the moments gives."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import scipy
import torch
from torch import nn

from ...measurement.opened import Opened
from ...moments.measure import slopes, with_intervals
from ...moments.moments import GradientMoments
from ...per_sample.contract.engine import Engine
from ...problem.losses.loss_fn import LossFn
from ...problem.options import Options
from ...problem.problem import Problem
from ...problem.samples import MICRO_BATCH
from ...problem.sums import weighted_sum
from ...show.table import integer
from ...statistics.estimate import Estimate, percent, short
from ...tensors.trees import unflatten
from ..report import Line, line, out_of, report
from .batch_bounds import cabs_batch_size, diversity_bound, gradient_diversity
from .batch_tests import NU, THETA, inner_product_test, norm_test, orthogonality_test, trace_cov_sq
from .hill import hill_index
from .sign import sign_noise_scale
from .signal_to_noise import SignalToNoise, signal_to_noise


@dataclass(frozen=True, eq=False)
class Diagnostics:
    """Diagnostics of the literature from per-sample gradients, in one measurement; `print` it.

    Batch sizes and noise scales are in samples; the other numbers have no unit. In the metric of an
    optimizer gradients are P^-½(g_i + Dw), and the loss in `cabs` is without weight decay.

    Args:
        moments: what all of it is computed from.
        norm_test, inner_product_test, orthogonality_test: smallest batches that pass.
        diversity_bound: B_S of gradient diversity.
        gradient_diversity: Δ_S; None for a distribution.
        cabs: batch size by CABS; None without a learning rate.
        sign_noise_scale: ‖σ‖₁²/‖G‖₁².
        signal_to_noise: GSNR per coordinate and on the average.
        hill: tail exponent of ‖g_i - ḡ‖; None where fewer than three of these are not zero.
        hill_gaussian: the tail exponent that Gaussian noise with the same trΣ and tr(Σ²) would
            show; nan where all gradients are equal.

    Source: see the function of each name; docs/theory/diagnostics.md.
    """

    moments: GradientMoments
    norm_test: Estimate
    inner_product_test: Estimate
    orthogonality_test: Estimate
    diversity_bound: Estimate
    gradient_diversity: Estimate | None
    cabs: Estimate | None
    sign_noise_scale: Estimate
    signal_to_noise: SignalToNoise
    hill: Estimate | None
    hill_gaussian: float

    def __str__(self) -> str:
        moments = self.moments
        size = moments.group_size
        measured = out_of(moments.count, moments.population)
        if size > 1:
            measured = f"{integer(size * moments.count)} samples in groups of {size}"
        heading = f"measured on {measured}, {percent(moments.level)} intervals"
        return report(heading, self._lines())

    def _lines(self) -> list[Line]:
        ratio = self.signal_to_noise
        resolved = f"{ratio.share_resolved:.0%} of coordinates resolved"
        lines = [
            line("B_simple = trΣ/|G|²", self.moments.simple_noise_scale, "samples"),
            line("batch by norm test", self.norm_test, "samples"),
            line("batch by inner product test", self.inner_product_test, "samples"),
            line("batch by orthogonality test", self.orthogonality_test, "samples"),
            line("diversity bound B_S", self.diversity_bound, "samples"),
            line("sign noise scale", self.sign_noise_scale, "samples"),
            ("mean GSNR", short(float(ratio.mean)), "exact" if ratio.mean.is_exact else resolved),
        ]
        if self.gradient_diversity is not None:
            lines.append(line("gradient diversity", self.gradient_diversity))
        if self.cabs is not None:
            lines.append(line("batch by CABS", self.cabs, "samples"))
        if self.hill is not None:
            lines.append(line("tail exponent of ‖g_i - ḡ‖", self.hill))
            lines.append(("Gaussian noise reads", short(self.hill_gaussian), ""))
        return lines


def diagnostics(
    model: nn.Module,
    loss_fn: LossFn | nn.Module,
    data: Any,
    *,
    lr: float | None = None,
    theta: float = THETA,
    nu: float = NU,
    tail: float = 0.1,
    optimizer: torch.optim.Optimizer | None = None,
    metric: str = "auto",
    engine: str = "auto",
    population: str | int = "dataset",
    max_samples: int | None = 4096,
    level: float = 0.95,
    seed: int = 0,
    micro_batch: int = MICRO_BATCH,
    unit: str = "auto",
    group_size: int | None = None,
    process_group: Any = None,
) -> Diagnostics:
    """Batch tests, diversity, CABS, GSNR, sign noise scale and tails, on one set of samples.

    Two passes over the samples and eight weighted backward passes (of many samples: of parts of
    them), as `gradient_moments` with `variance=True` and intervals; also where all of N is
    measured. Where a part of N is, two passes more give the interval of the inner product test.
    `tail_index` and `spectral_noise_scale` need the gradients themselves and are not included.

    Args:
        model, loss_fn, data, optimizer, metric, engine, population, max_samples, level, seed,
            micro_batch, unit, group_size, process_group: as for `gradient_moments`.
        lr: learning rate ε, for CABS.
        theta: θ of the norm and the inner product test.
        nu: ν of the orthogonality test.
        tail: share of the samples, those with the largest ‖g_i - ḡ‖, that give Hill's exponent.

    Returns:
        Diagnostics; `print` it.

    Raises:
        GradNoiseError: see `gradient_moments`.
        ArgumentError: `lr`, `theta`, `nu` or `tail` out of range, or a loss that is not positive
            with `lr`.

    Source: see `norm_test`, `inner_product_test`, `orthogonality_test`, `gradient_diversity`,
    `cabs_batch_size`, `signal_to_noise`, `sign_noise_scale` and `hill_index`.

    Example:
        >>> from gradnoise.toy import NoisyQuadratic
        >>> toy = NoisyQuadratic(torch.eye(2), torch.tensor([3.0, 4.0]))  # |G|² = 25, trΣ = 2
        >>> found = diagnostics(toy.model(), toy.loss_fn, toy.sample(512, seed=0))
        >>> 0.05 < float(found.norm_test) < 0.15  # 2/25/0.81
        True
    """
    options = Options(
        optimizer=optimizer, metric=metric, engine=engine, population=population,
        max_samples=max_samples, level=level, seed=seed, micro_batch=micro_batch,
        unit=unit, group_size=group_size, process_group=process_group,
    )  # fmt: skip
    opened = Opened.open(model, loss_fn, data, options)
    return find_diagnostics(opened, lr=lr, theta=theta, nu=nu, tail=tail)


def find_diagnostics(
    opened: Opened,
    *,
    lr: float | None = None,
    theta: float = THETA,
    nu: float = NU,
    tail: float = 0.1,
) -> Diagnostics:
    """The diagnostics of a model that is open; see `diagnostics`."""
    problem, engine = opened.problem, opened.engine
    with problem.guard():
        streamed = opened.moments(variance=True, intervals=False)
        sampled = replace(streamed, population=math.inf)  # slopes also where all is measured
        moments = replace(with_intervals(problem, engine, sampled), population=streamed.population)
        if moments.sampling_factor:
            moments = _with_second_slopes(problem, engine, moments)
    return diagnose(opened.in_samples(moments), Thresholds(lr, theta, nu, tail))


def _with_second_slopes(
    problem: Problem, engine: Engine, moments: GradientMoments
) -> GradientMoments:
    """(g_i - ḡ)ᵀΣ̂ḡ: Σ̂ḡ by one weighted backward pass, then one more pass over the samples."""
    assert moments.slopes is not None
    gaps = moments.slopes - moments.slopes.mean()
    image = weighted_sum(problem, gaps / (moments.count - 1))
    direction = dict(zip(moments.mean, unflatten(image, [*moments.mean.values()]), strict=True))
    found = slopes(problem, engine, direction)
    return replace(moments, second_slopes=found - found.mean())


@dataclass(frozen=True)
class Thresholds:
    """ε of CABS, θ and ν of the batch tests, and the share of samples in the tail."""

    lr: float | None = None
    theta: float = THETA
    nu: float = NU
    tail: float = 0.1


def diagnose(moments: GradientMoments, chosen: Thresholds = Thresholds()) -> Diagnostics:
    """The diagnostics of moments with variances and slopes."""
    finite = not math.isinf(moments.population) and moments.group_size == 1
    hill, gaussian = _tails(replace(moments, group_size=1), chosen.tail)
    return Diagnostics(
        moments=moments,
        norm_test=norm_test(moments, theta=chosen.theta),
        inner_product_test=inner_product_test(moments, theta=chosen.theta),
        orthogonality_test=orthogonality_test(moments, nu=chosen.nu),
        diversity_bound=diversity_bound(moments),
        gradient_diversity=gradient_diversity(moments) if finite else None,
        cabs=None if chosen.lr is None else cabs_batch_size(moments, chosen.lr),
        sign_noise_scale=sign_noise_scale(moments),
        signal_to_noise=signal_to_noise(moments),
        hill=hill,
        hill_gaussian=gaussian,
    )


def _tails(moments: GradientMoments, tail: float) -> tuple[Estimate | None, float]:
    """Hill's exponent of ‖g_i - ḡ‖, and of the quantiles that Gaussian noise would have.

    ‖c‖² of Gaussian noise has mean trΣ and variance 2tr(Σ²); it is taken as a Γ variable with these
    two moments.
    """
    squares = moments.distances
    trace, n = float(moments.trace_cov), moments.count
    if trace <= 0 or int((squares > 0).sum()) < 3:
        return None, math.nan
    second = trace_cov_sq(moments)
    shape = trace**2 / (2 * (second if second > 0 else moments.trace_cov_sq))
    ranks = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    quantiles = torch.from_numpy(scipy.special.gammaincinv(shape, ranks.numpy())).sqrt()
    level = moments.level
    return (
        hill_index(squares.sqrt(), tail=tail, level=level),
        float(hill_index(quantiles, tail=tail)),
    )
