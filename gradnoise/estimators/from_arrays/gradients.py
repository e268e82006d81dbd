"""Moments of per-sample gradients that are at hand, as torch tensors or numpy arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...moments.moments import GradientMoments
from ...moments.per_parameter import PerParameter
from ...statistics.estimate import check_level
from ...tensors.random import random_signs
from ...tensors.trees import TensorDict, wide_dtype, widen
from .inputs import as_population, as_rows, as_vector

EXACT = 2048  # samples or parameters up to which tr(Σ̂²) is exact
PROBES = 33  # sign vectors for it beyond
BLOCK = 2**24  # entries that are widened and centred at once


def noise_scale_from_gradients(
    per_sample_gradients: Any,
    *,
    losses: Any = None,
    population: str | int = "distribution",
    level: float = 0.95,
) -> GradientMoments:
    """|G|², trΣ and B_simple of per-sample gradients that are at hand.

    The same numbers as `gradient_moments` for the same samples: |G|² = ‖ḡ‖² - (1/n - 1/N) trΣ and
    trΣ = Σ‖g_i - ḡ‖²/(n - 1), both unbiased; gradients are centred in float64 before they are
    squared. Their ratio B_simple has no value where |G|² is not resolved, and else is biased
    upwards by about the squared relative error of |G|². Intervals hold for any distribution with
    fourth moments. For these, tr(Σ²) is taken from the sample covariance, which overstates it by
    about (trΣ)²/n: intervals of a weak signal are wide rather than narrow.

    The rows must be gradients of single samples. With gradients of batches of B as rows, trΣ is
    that of batches, B times smaller, and so is B_simple.

    Args:
        per_sample_gradients: an array (n, P), torch or numpy, or name -> (n, *shape) as
            `per_sample_gradients` returns; n from 2 on.
        losses: ℓ_i, shape (n,), for `.loss` and for rules that need it; optional.
        population: "distribution" (N = ∞), "dataset" (the n samples are all there are), or N.
        level: coverage of the intervals.

    Returns:
        GradientMoments: `.simple_noise_scale`, `.grad_sq_norm`, `.trace_cov` in the units of
        samples and of squared gradients; `.mean`, `.variance`, `.layers`.

    Raises:
        ArgumentError: not one finite row per sample, or an option out of range.

    Source: McCandlish et al. 2018 (arXiv:1812.06162), App. A.1, for single samples as the small
    batch; docs/theory/noise_scale.md.

    Example:
        >>> rows = torch.tensor([[3.0, 1.0], [3.0, -1.0], [5.0, 0.0], [1.0, 0.0]])
        >>> found = noise_scale_from_gradients(rows, population="dataset")
        >>> float(found.grad_sq_norm), round(float(found.trace_cov), 4)  # ḡ = (3, 0); 10/3
        (9.0, 3.3333)
    """
    check_level(level)
    rows = as_rows(per_sample_gradients)
    count = len(next(iter(rows.values())))
    size = as_population(population, count)
    known = torch.full((count,), math.nan) if losses is None else as_vector("losses", losses, count)
    sums = _Sums(count, next(iter(rows.values())).device)
    for name, tensor in rows.items():
        sums.add(name, tensor)
    for tensor in rows.values():
        sums.look_again(tensor)
    moments = GradientMoments(
        mean=sums.mean,
        centred_sq={name: float(squares.sum()) for name, squares in sums.squares.items()},
        losses=known.to(sums.gram),
        sq_norms=sums.blocks.norms_of(sums.mean),
        population=size,
        resolution=max(torch.finfo(tensor.dtype).eps for tensor in rows.values()),
        level=level,
        slopes=sums.blocks.slope,
        trace_cov_sq=sums.trace_cov_sq(),
        coordinate_sq=sums.squares,
        second_slopes=sums.second_slopes,
        per_parameter=sums.blocks,
        gap_sq_norms=sums.gaps,
    )
    return replace(moments, influence_products=_influence_products(rows, moments.deviations()[1:]))


def _influence_products(rows: TensorDict, influences: Tensor) -> Tensor:
    """u_aᵀu_b of u_a = Cov(e_a, g), e the influences on trΣ and |G|², shape (2, 2)."""
    total = influences.new_zeros(2, 2)
    for tensor in rows.values():
        for wide in _blocks(tensor):
            covariances = influences @ (wide - wide.mean(0)) / (len(wide) - 1)
            total += covariances @ covariances.T
    return total


class _Sums:
    """Sums for the moments over blocks of coordinates; each block is converted to float64."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.exact = count <= EXACT
        signs = random_signs(PROBES, count, seed=0)
        self.signs = signs.to(device=device, dtype=wide_dtype(device))
        self.mean: TensorDict = {}
        self.squares: TensorDict = {}
        self.blocks = PerParameter({}, signs=self.signs)
        self.second_slopes = self.signs.new_zeros(count)
        self.gaps = self.signs.new_zeros(count)
        size = count if self.exact else PROBES
        self.gram = self.signs.new_zeros(size, size)  # of the centred rows, or of signed sums

    def add(self, name: str, tensor: Tensor) -> None:
        """All coordinates of one parameter."""
        shape = tensor.shape[1:]
        count, probes = len(tensor), len(self.signs)
        self.blocks.sq_norms[name] = self.signs.new_zeros(count)
        self.blocks.slopes[name] = self.signs.new_zeros(count)
        self.blocks.grams[name] = self.signs.new_zeros(probes, probes)
        parts = [self._block(name, block) for block in _blocks(tensor)]
        self.mean[name] = torch.cat([mean for mean, _ in parts]).reshape(shape)
        self.squares[name] = torch.cat([squares for _, squares in parts]).reshape(shape)

    def look_again(self, tensor: Tensor) -> None:
        """(g_i - ḡ)ᵀΣ̂ḡ, once all slopes are known."""
        slopes = sum(self.blocks.slopes.values(), torch.zeros_like(self.second_slopes))
        weights = (slopes - slopes.mean()) / (len(slopes) - 1)
        for wide in _blocks(tensor):
            centred = wide - wide.mean(0)
            self.second_slopes += centred @ (weights @ centred)

    def _block(self, name: str, wide: Tensor) -> tuple[Tensor, Tensor]:
        mean, blocks = wide.mean(0), self.blocks
        blocks.sq_norms[name] += wide.square().sum(1)
        blocks.slopes[name] += wide @ mean
        centred = wide - mean
        self.gaps += centred.square().sum(1)
        signed = self.signs @ centred
        blocks.grams[name] += signed @ signed.T / (len(wide) - 1)
        seen = centred if self.exact else signed
        self.gram += seen @ seen.T
        return mean, centred.square().sum(0)

    def trace_cov_sq(self) -> float:
        """tr(Σ̂²) = ‖CCᵀ‖²/(n - 1)²; of signed sums u, v of the rows of C, E (uᵀv)² = ‖CCᵀ‖²."""
        squares = self.gram.square()
        if not self.exact:
            size = len(squares)
            squares = (squares - squares.diagonal().diag()) / (size * (size - 1))
        return float(squares.sum()) / (self.signs.shape[1] - 1) ** 2


def _blocks(tensor: Tensor) -> Iterator[Tensor]:
    """Some coordinates of all rows at a time, in float64 (float32 on MPS)."""
    rows = tensor.reshape(len(tensor), -1)
    for block in torch.split(rows, max(1, BLOCK // len(rows)), dim=1):
        yield widen(block)
