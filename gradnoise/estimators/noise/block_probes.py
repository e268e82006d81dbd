"""tr(HΣ) and GᵀHG from disjoint blocks of the samples, where these are a part of the population.

The samples are cut into M random blocks a of b samples, with H_a, ḡ_a and noise vectors

    u_a = Σ_{i∈a} s_i c_i/√b,   E[u_au_aᵀ] = Σ (n - 1)/n.

y_a = u_{a-r}ᵀH_au_{a-r} has H and Σ from different samples: its mean is tr(HΣ)(n - 1)/n without the
third moments K3 of `noise_scale`, up to K3/n². In two rounds, r = 1 and 2 around the ring of blocks
with signs of their own, every block is met four times. What a block does to the mean, as a source
of noise and of curvature, is the mean over both rounds of its two values; the variance of these
over blocks is that of sampling, less the part in which the rounds differ, which is chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...linalg.deflation import LowRank
from ...moments.moments import GradientMoments
from ...operators.gradients import PerSampleGradients
from ...operators.hessian import Hessian
from ...per_sample.contract.engine import Engine
from ...problem.problem import Problem
from ...problem.sums import sums_of_some
from ...statistics.skew import Skew
from ...tensors.random import generator
from ...tensors.sums import dots
from ...tensors.trees import flatten, in_units
from .errors import third_moment
from .sign_probes import Known
from .sums import NoiseScale, Parts, Sums

BLOCKS = 32
ROUNDS = 2
SAME = 4  # of so many blocks one also meets its own noise, for K3


@dataclass(frozen=True, eq=False)
class Block:
    """Some samples and what they give.

    Args:
        positions: of its samples, sorted.
        mean: ḡ_a, shape (P,).
        noises: u_a with independent signs, ROUNDS of them, each in units of its size.
    """

    positions: Tensor
    mean: Tensor
    noises: list[tuple[Tensor, float]]


def block_noise_scale(
    hessian: Hessian,
    engine: Engine,
    moments: GradientMoments,
    near: LowRank,
    image: Tensor,
    *,
    seed: int = 0,
    tick: Any = None,
) -> NoiseScale:
    """The noise scales of samples that are a part of the population.

    Args:
        hessian, engine, moments: of the same samples.
        near: of a Hessian that is similar; what it tells is taken out of the values.
        image: Hḡ.
        seed: of the blocks and the signs.
        tick: called with 1 after every block.
    """
    mean = flatten([*moments.mean.values()])
    rows = PerSampleGradients.of(hessian.problem, engine=engine)
    with hessian.problem.guard():
        known = Known.of(near, rows, mean)
        mean = mean.to(hessian.dtype)
        found = _Ring(hessian, moments, known, mean, image)
        for block, before in _around(hessian.problem, mean, seed):
            found.meet(block, before)
            if tick is not None:
                tick(1)
    return found.sums().scales(moments, hessian.product_error)


def _around(problem: Problem, mean: Tensor, seed: int) -> Iterator[tuple[Block, list[Block]]]:
    """Every block with the ROUNDS before it, the nearest first."""
    source, count = generator(seed), problem.samples.count
    pieces = torch.randperm(count, generator=source).tensor_split(BLOCKS)
    first = [_made(problem, p.sort().values, mean, source) for p in pieces[-ROUNDS:]]
    before, ahead = first[::-1], dict(enumerate(first, BLOCKS - ROUNDS))
    for k, piece in enumerate(pieces):
        block = ahead.get(k) or _made(problem, piece.sort().values, mean, source)
        yield block, before
        before = [block, *before[:-1]]


def _made(problem: Problem, positions: Tensor, mean: Tensor, source: torch.Generator) -> Block:
    count = len(positions)
    signs = 2.0 * torch.randint(0, 2, (ROUNDS, count), generator=source) - 1
    weights = torch.cat([signs / math.sqrt(count), torch.full((1, count), 1 / count)])
    *noises, own = sums_of_some(problem, positions, weights)
    for noise, row in zip(noises, weights, strict=False):
        noise.sub_(mean, alpha=float(row.sum()))
    return Block(positions, own, [*map(in_units, noises)])


class _Ring:
    """The numbers of every block, and the estimates from them."""

    def __init__(
        self,
        hessian: Hessian,
        moments: GradientMoments,
        known: Known,
        mean: Tensor,
        image: Tensor,
    ) -> None:
        self._hessian, self._moments, self._known, self._mean = hessian, moments, known, mean
        self._unit, self._size = in_units(mean)
        self._image = (image / self._size).to(mean)
        self._along = _dot(self._unit, self._image)
        self._values: list[Tensor] = []  # y of both rounds, (ROUNDS,) each
        self._parts: list[Tensor] = []  # the same by parameter, (ROUNDS, p) each
        self._same: list[Tensor] = []  # uᵀH_au of a block's own noise
        self._mixed: list[Tensor] = []  # (H_aḡ)ᵀ(ḡ_a - ḡ)
        self._curvatures: list[Tensor] = []  # what a block does to GᵀHG
        self._squares: list[Tensor] = []  # (uᵀH_av)² of two noises

    def meet(self, block: Block, before: list[Block]) -> None:
        """The curvature of a block along the mean, and along the noises of those before it."""
        noises, sizes = zip(*(other.noises[r] for r, other in enumerate(before)), strict=True)
        own, own_size = block.noises[0]
        asked = [self._unit, *noises] + [own] * (len(self._values) % SAME == 0)
        few = Hessian.of_few(
            self._hessian.problem, block.positions, torch.ones(len(block.positions))
        )
        along, *images = (few @ torch.stack(asked, dim=1)).T
        gap, gap_size = in_units(block.mean - self._mean)
        scale = self._size * gap_size
        self._mixed.append(scale * _dot(along, gap))
        change = self._size**2 * (_dot(self._unit, along) - self._along)
        self._curvatures.append(2 * scale * _dot(self._image, gap) + change)
        self._squares.append((sizes[0] * sizes[1] * _dot(noises[0], images[1])).square())
        if len(images) > ROUNDS:
            self._same.append(own_size**2 * _dot(own, images[ROUNDS]))
        values, parts = [], []
        for other, noise, size, image in zip(before, noises, sizes, images, strict=False):
            rest = self._known.space.by_parameter(noise, image) - self._known.form(noise)
            parts.append(size**2 * rest)
            values.append(parts[-1].sum() + self._known.own[other.positions].mean())
        self._values.append(torch.stack(values))
        self._parts.append(torch.stack(parts))

    def sums(self) -> Sums:
        """Everything together."""
        moments, n, factor = self._moments, self._moments.count, self._moments.sampling_factor
        scale, blocks = n / (n - 1), len(self._values)
        values = scale * torch.stack(self._values).T  # (ROUNDS, M), by the block that gives H
        off = float(values.mean())
        size = n / blocks
        third = size * (scale * float(torch.stack(self._same).mean()) - off)
        trace = off + third / moments.population
        mixed = size * float(torch.stack(self._mixed).sum()) / (blocks - 1) - factor * third
        along = self._size**2 * float(self._along)
        curvature = along - factor * (trace + 2 * mixed + (1 / n - 2 / moments.population) * third)

        as_noise = torch.stack([row.roll(-r) for r, row in enumerate(values, 1)])
        influences = values + as_noise - 2 * off
        other = torch.stack(self._curvatures)
        chance = float(influences.var(0).mean())  # of one round
        of_blocks = moments.spread_factor * size
        matrix = torch.cov(torch.stack([influences.mean(0), other])) * of_blocks
        weakest = 2 * float(torch.stack(self._squares).mean())
        of_probes = chance / (2 * ROUNDS * blocks)
        parts = scale * torch.stack(self._parts).flatten(0, 1) + self._known.parts
        return Sums(
            trace=trace,
            curvature=curvature,
            of_probes=(of_probes, factor**2 * of_probes),
            of_samples=(
                max(
                    float(matrix[0, 0]) - of_blocks * chance / ROUNDS,
                    moments.spread_factor**2 * weakest,
                ),
                max(float(matrix[1, 1]), factor**2 * weakest),
                float(matrix[0, 1]),
            ),
            freedom=(ROUNDS * blocks - 1, blocks - 1),
            skew=self._skew(influences, other, blocks),
            parts=Parts(
                self._size**2 * self._known.space.by_parameter(self._unit, self._image)
                - factor * parts.mean(0),
                parts,
                False,
            ),
        )

    def _skew(self, influences: Tensor, other: Tensor, blocks: int) -> Skew:
        moment = third_moment(influences, other - other.mean())
        scale = blocks / ((blocks - 1) * (blocks - 2))
        population = self._moments.spread_population * blocks / self._moments.count
        return Skew.from_moment(moment * scale, blocks, population)


def _dot(first: Tensor, second: Tensor) -> Tensor:
    """Their inner product, in float64 where the device has it."""
    return dots(first[None], second[None])[0]
