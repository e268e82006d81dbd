"""B_simple and its parts from inner products of the gradients, or from running sums."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...errors import ArgumentError, check_whole
from ...moments.moments import GradientMoments
from ...statistics.estimate import check_level
from ...tensors.trees import sq_norm, widen
from .inputs import as_population, as_tensor
from .result import SimpleNoiseScale

LOST = 1e-3  # relative error of trΣ beyond which a difference of sums is refused
ROUNDING = 8.0  # of a sum, in units of its dtype's resolution


def noise_scale_from_gram(
    gram: Any, *, population: str | int = "distribution", level: float = 0.95
) -> SimpleNoiseScale:
    """B_simple from inner products K = GGᵀ alone, K_ij = g_iᵀg_j.

    ‖ḡ‖² = Σ_ij K_ij/n², (n - 1) trΣ = tr K - n‖ḡ‖² and tr(Σ̂²) = ‖K_c‖²/(n - 1)² with K_c doubly
    centred; g_iᵀḡ are the means of the rows. Bias and intervals are those of
    `noise_scale_from_gradients`. The spread is a difference of entries of K, so digits are lost
    where the signal is strong; that is refused once three digits of trΣ are not left.

    Args:
        gram: K, shape (n, n), torch or numpy, symmetric.
        population, level: as for `noise_scale_from_gradients`.

    Returns:
        SimpleNoiseScale: B_simple in samples, with `.grad_sq_norm` and `.trace_cov`.

    Raises:
        ArgumentError: not a finite Gram matrix of two samples or more, digits lost, or an option
            out of range.

    Source: double centring, as in classical scaling (Torgerson 1952).

    Example:
        >>> rows = torch.tensor([[3.0, 1.0], [3.0, -1.0], [5.0, 0.0], [1.0, 0.0]])
        >>> float(noise_scale_from_gram(rows @ rows.T, population="dataset").grad_sq_norm)
        9.0
    """
    check_level(level)
    tensor = as_tensor("gram", gram)
    matrix, eps = widen(tensor), torch.finfo(tensor.dtype).eps
    _check_gram(matrix, eps)
    count = len(matrix)
    slopes = matrix.mean(1)
    mean_sq = float(slopes.mean())
    centred = matrix - slopes - slopes[:, None] + mean_sq
    spread = float(centred.trace())
    _check_digits(float(matrix.trace()), spread, eps)
    moments = GradientMoments(
        mean={"": slopes.new_tensor([math.sqrt(max(mean_sq, 0.0))])},  # of the same length
        centred_sq={"": spread},
        losses=torch.full_like(slopes, math.nan),
        sq_norms=matrix.diagonal(),
        population=as_population(population, count),
        resolution=eps,
        level=level,
        slopes=slopes,
        trace_cov_sq=float(centred.square().sum()) / (count - 1) ** 2,
    )
    influences = moments.deviations()[1:]
    influence_products = influences @ matrix @ influences.T / (count - 1) ** 2
    return SimpleNoiseScale.of_moments(replace(moments, influence_products=influence_products))


def _check_gram(matrix: Tensor, eps: float) -> None:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < 2:
        raise ArgumentError(
            f"`gram` must be the (n, n) matrix of inner products of two samples or more; got "
            f"shape {tuple(matrix.shape)}"
        )
    norms, tolerance = matrix.diagonal(), math.sqrt(eps) * float(matrix.abs().max())
    largest = (norms.clamp(min=0)[:, None] * norms.clamp(min=0)).sqrt()
    if bool((matrix - matrix.T).abs().max() > tolerance) or bool((norms < 0).any()):
        raise ArgumentError("`gram` must be symmetric with squared norms on its diagonal")
    if bool((matrix.abs() - largest > tolerance).any()):
        raise ArgumentError("`gram` holds an inner product larger than the norms allow")


def noise_scale_from_sums(
    samples: int,
    total: Any,
    sum_sq_norms: Any,
    *,
    population: str | int = "distribution",
    level: float = 0.95,
    resolution: float | None = None,
) -> SimpleNoiseScale:
    """B_simple from running sums: n, Σg_i or its squared norm, and Σ‖g_i‖².

    (n - 1) trΣ = Σ‖g_i‖² - ‖Σg_i‖²/n is a difference of large numbers: where the first is κ times
    the difference, trΣ has lost log10 κ digits. That is refused once three digits are not left
    (κ above 1e3 in float32, 1e11 in float64); centre the gradients first, or sum in float64.
    Both parts are unbiased; sums hold no interval, unless all of the population was summed.

    Args:
        samples: n, from 2 on.
        total: Σg_i, shape (P,), or ‖Σg_i‖² as a single number.
        sum_sq_norms: Σ‖g_i‖², a single number.
        population, level: as for `noise_scale_from_gradients`.
        resolution: relative rounding of the sums; default that of the coarser dtype of the two.

    Returns:
        SimpleNoiseScale with `Status.NO_INTERVAL`; no value where |G|² is not positive.

    Raises:
        ArgumentError: not sums of one set of gradients, digits lost, or an option out of range.

    Source: McCandlish et al. 2018 (arXiv:1812.06162), App. A.1.

    Example:
        >>> float(noise_scale_from_sums(4, torch.tensor([12.0, 0.0]), 46.0).trace_cov)  # 10/3
        3.33...
    """
    check_level(level)
    check_whole("samples", samples, 2)
    if resolution is not None and not 0 <= resolution < 1:
        raise ArgumentError(f"`resolution` is a relative rounding such as 1e-7; got {resolution}")
    size = as_population(population, samples)
    mean_sq, square, eps = _sums(samples, total, sum_sq_norms)
    eps = eps if resolution is None else resolution
    spread = square - samples * mean_sq
    _check_digits(square, spread, eps)
    unknown = torch.full((1,), math.nan, dtype=torch.float64).expand(samples)
    return SimpleNoiseScale.of_moments(
        GradientMoments(
            mean={"": torch.tensor([math.sqrt(mean_sq)], dtype=torch.float64)},  # of its length
            centred_sq={"": spread},
            losses=unknown,
            sq_norms=unknown,
            population=size,
            resolution=eps,
            level=level,
        )
    )


def _sums(samples: int, total: Any, sum_sq_norms: Any) -> tuple[float, float, float]:
    """‖ḡ‖², Σ‖g_i‖² and the resolution of the two."""
    first, second = as_tensor("total", total), as_tensor("sum_sq_norms", sum_sq_norms)
    if first.ndim > 1 or second.numel() != 1:
        raise ArgumentError(
            f"`total` must be a vector (P,) or its squared norm, `sum_sq_norms` one number; got "
            f"shapes {tuple(first.shape)} and {tuple(second.shape)}"
        )
    known, square = float(sq_norm(widen(first)) if first.ndim else first), float(second)
    if known < 0 or square < 0:
        raise ArgumentError(f"squared norms cannot be negative; got {known:g} and {square:g}")
    return known / samples**2, square, max(torch.finfo(t.dtype).eps for t in (first, second))


def _check_digits(square: float, spread: float, eps: float) -> None:
    """Refuse a difference Σ‖g_i - ḡ‖² of Σ‖g_i‖² that is mostly rounding."""
    if square and spread * LOST < ROUNDING * eps * square:
        raise ArgumentError(
            f"the spread Σ‖g_i - ḡ‖² = {spread:.3g} is a difference of sums of {square:.3g} that "
            f"are known to {eps:.1e}: fewer than three digits are left (or the sums are not of the "
            f"same gradients). Add them up in float64, or centre the gradients before squaring "
            f"them: noise_scale_from_gradients"
        )
