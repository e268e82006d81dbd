"""Moments of given per-sample gradients, torch tensors or numpy arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...moments.moments import GradientMoments
from ...moments.per_parameter import Blocks
from ...statistics.estimate import check_level
from ...tensors.random import random_signs
from ...tensors.trees import TensorDict, widen
from .inputs import as_population, as_rows, as_vector

EXACT = 2048  # samples up to which tr(Σ̂²) is exact
PROBES = 33  # sign vectors for it beyond
BLOCK = 2**24  # entries that are converted to float64 and centred at once


def noise_scale_from_gradients(
    per_sample_gradients: Any,
    *,
    losses: Any = None,
    population: str | int = "distribution",
    level: float = 0.95,
) -> GradientMoments:
    """|G|², trΣ and B_simple of given per-sample gradients.

    The same numbers as `gradient_moments` for the same samples: |G|² = ‖ḡ‖² - (1/n - 1/N) trΣ and
    trΣ = Σ‖g_i - ḡ‖²/(n - 1), both unbiased; gradients are centred in float64 before they are
    squared. The ratio B_simple has no value where |G|² is not resolved; otherwise it is biased
    upwards by about the squared relative error of |G|². Intervals hold for any distribution with
    fourth moments. They use tr(Σ²) of the sample covariance, which is about (trΣ)²/n too large, so
    intervals of a weak signal are too wide rather than too narrow.

    The rows must be gradients of single samples. If they are gradients of batches of B samples,
    trΣ and B_simple come out B times too small.

    Args:
        per_sample_gradients: an array (n, P), torch or numpy, or name -> (n, *shape) as
            `per_sample_gradients` returns; n from 2 on.
        losses: ℓ_i, shape (n,), for `.loss` and `cabs_batch_size`; optional.
        population: "distribution" (N = ∞), "dataset" (the n samples are all there are), or N.
        level: coverage of the intervals.

    Returns:
        GradientMoments: `.simple_noise_scale` in samples, `.grad_sq_norm` and `.trace_cov` in
        loss²/parameter²; `.mean`, `.variance`, `.layers`.

    Raises:
        ArgumentError: not one finite row for each sample, or an option out of range.

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
    own = torch.full((count,), math.nan) if losses is None else as_vector("losses", losses, count)
    sums = _Sums(count, next(iter(rows.values())).device)
    for name, tensor in rows.items():
        sums.add(name, tensor)
    for tensor in rows.values():
        sums.add_second_slopes(tensor)
    moments = GradientMoments(
        mean=sums.mean,
        centred_sq={name: float(squares.sum()) for name, squares in sums.squares.items()},
        losses=widen(own).to(sums.gram.device),
        sq_norms=sums.blocks.norms_of(sums.mean),
        population=size,
        resolution=max(torch.finfo(tensor.dtype).eps for tensor in rows.values()),
        level=level,
        slopes=sums.blocks.slope,
        trace_cov_sq=sums.trace_cov_sq(),
        coordinate_sq=sums.squares,
        second_slopes=sums.second_slopes,
        blocks=sums.blocks,
        gap_sq_norms=sums.gaps,
    )
    return replace(moments, pulls=_covariance_products(rows, moments.deviations()[1:]))


def _covariance_products(rows: TensorDict, influences: Tensor) -> Tensor:
    """u_aᵀu_b of u_a = Cov(e_a, g), e the influences on trΣ and |G|², shape (2, 2)."""
    total = influences.new_zeros(2, 2)
    for tensor in rows.values():
        for block in _blocks(tensor):
            covariances = influences @ (block - block.mean(0)) / (len(block) - 1)
            total += covariances @ covariances.T
    return total


class _Sums:
    """The sums that moments consist of; one block of coordinates in float64 at a time."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.exact = count <= EXACT
        self.signs = widen(random_signs(PROBES, count, seed=0).to(device))
        self.mean: TensorDict = {}
        self.squares: TensorDict = {}
        self.blocks = Blocks({}, signs=self.signs)
        self.second_slopes = self.signs.new_zeros(count)
        self.gaps = self.signs.new_zeros(count)
        size = count if self.exact else PROBES
        self.gram = self.signs.new_zeros(size, size)  # of the centred rows, or of their signed sums

    def add(self, name: str, tensor: Tensor) -> None:
        """Add all coordinates of one parameter."""
        shape = tensor.shape[1:]
        count, probes = len(tensor), len(self.signs)
        self.blocks.sq_norms[name] = self.signs.new_zeros(count)
        self.blocks.slopes[name] = self.signs.new_zeros(count)
        self.blocks.grams[name] = self.signs.new_zeros(probes, probes)
        parts = [self._block(name, block) for block in _blocks(tensor)]
        self.mean[name] = torch.cat([mean for mean, _ in parts]).reshape(shape)
        self.squares[name] = torch.cat([squares for _, squares in parts]).reshape(shape)

    def add_second_slopes(self, tensor: Tensor) -> None:
        """Add to (g_i - ḡ)ᵀΣ̂ḡ, after all parameters have been added."""
        slopes = sum(self.blocks.slopes.values(), torch.zeros_like(self.second_slopes))
        weights = (slopes - slopes.mean()) / (len(slopes) - 1)
        for block in _blocks(tensor):
            centred = block - block.mean(0)
            self.second_slopes += centred @ (weights @ centred)

    def _block(self, name: str, block: Tensor) -> tuple[Tensor, Tensor]:
        """Add some coordinates (n, p) of a parameter; their mean and Σ_i (g_i - ḡ)², (p,) each."""
        mean, sums = block.mean(0), self.blocks
        sums.sq_norms[name] += block.square().sum(1)
        sums.slopes[name] += block @ mean
        centred = block - mean
        self.gaps += centred.square().sum(1)
        signed = self.signs @ centred
        sums.grams[name] += signed @ signed.T / (len(block) - 1)
        rows = centred if self.exact else signed
        self.gram += rows @ rows.T
        return mean, centred.square().sum(0)

    def trace_cov_sq(self) -> float:
        """tr(Σ̂²) = ‖CCᵀ‖²/(n - 1)²; for signed sums u, v of the rows of C, E (uᵀv)² = ‖CCᵀ‖²."""
        squares = self.gram.square()
        if not self.exact:
            size = len(squares)
            squares = (squares - squares.diagonal().diag()) / (size * (size - 1))
        return float(squares.sum()) / (self.signs.shape[1] - 1) ** 2


def _blocks(tensor: Tensor) -> Iterator[Tensor]:
    """Some coordinates of all rows at a time, (n, p) in float64."""
    rows = tensor.reshape(len(tensor), -1)
    for block in torch.split(rows, max(1, BLOCK // len(rows)), dim=1):
        yield widen(block)
